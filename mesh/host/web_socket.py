"""A WebSocket (RFC 6455) as whole messages over any trio stream, for both ends.

It knows no TLS, no names and no rights. Rules: a message is bounded; pings are answered while
reading; who sends garbage loses the connection and nothing else happens.
"""

from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final

import trio
from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Event,
    Ping,
    RejectConnection,
    RejectData,
    Request,
    TextMessage,
)
from wsproto.utilities import LocalProtocolError, RemoteProtocolError

from mesh.errors import RemoteError

MESSAGE_BYTES_MAX: Final = 64 << 10
REFUSAL_BYTES_MAX: Final = 64 << 10
RECEIVE_BYTES: Final = 16 << 10
CLOSE_S: Final = 2.0

Headers = Sequence[tuple[bytes, bytes]]


class WebSocketLost(RemoteError):
    """The connection broke, or the other end breaks the protocol; it is over."""


class WebSocketRefused(RemoteError):
    """The server answered with something else; ``status`` and ``body`` say what."""

    def __init__(self, status: int, body: bytes) -> None:
        super().__init__(f"status {status} instead of a WebSocket")
        self.status = status
        self.body = body


class MessageSocket:
    """One open WebSocket; one reader, any number of senders."""

    def __init__(self, stream: trio.abc.Stream, connection: WSConnection) -> None:
        self._stream = stream
        self._connection = connection
        self._events: deque[Event] = deque(connection.events())
        self._message = bytearray()
        self._sending = trio.Lock()  # the reader answers pings while others send
        self.close_reason = ""

    def put_back(self, events: Iterable[Event]) -> None:
        """Take events that were parsed with the handshake."""
        self._events.extendleft(reversed(list(events)))

    async def send(self, message: bytes | str) -> None:
        """Send one message: bytes as binary, str as text."""
        if isinstance(message, str):
            await self._send(TextMessage(data=message))
        else:
            await self._send(BytesMessage(data=message))

    async def ping(self) -> None:
        """Ask the other end for a sign of life."""
        await self._send(Ping())

    async def receive(self) -> bytes | str | None:
        """Return the next message, None when the other end has closed."""
        while True:
            event = await self._next_event()
            match event:
                case BytesMessage() | TextMessage():
                    raw = event.data
                    part = raw.encode() if isinstance(raw, str) else bytes(raw)
                    if len(self._message) + len(part) > MESSAGE_BYTES_MAX:
                        raise WebSocketLost("a WebSocket message that is too long")
                    self._message += part
                    if event.message_finished:
                        whole, self._message = bytes(self._message), bytearray()
                        return whole if isinstance(event, BytesMessage) else whole.decode()
                case Ping():
                    await self._send(event.response())
                case CloseConnection(code=_, reason=reason):
                    self.close_reason = str(reason or "")[:300]
                    try:
                        await self._send(event.response())
                    except WebSocketLost:
                        pass  # it did not wait for it
                    return None
                case _:
                    pass

    async def aclose(self, code: int = 1000, reason: str = "") -> None:
        """Say good-bye, at most for a moment, and close the stream."""
        with trio.move_on_after(CLOSE_S, shield=True):
            try:
                raw = reason.encode()[:120].decode("utf-8", "ignore")
                await self._send(CloseConnection(code=code, reason=raw))
            except WebSocketLost:
                pass  # it is closed already
        await trio.aclose_forcefully(self._stream)

    async def _next_event(self) -> Event:
        while not self._events:
            data = await _receive(self._stream)
            _feed(self._connection, data, self._events)
            if not data and not self._events:
                raise WebSocketLost("the connection ended")
        return self._events.popleft()

    async def _send(self, event: Event) -> None:
        async with self._sending:
            try:
                await self._stream.send_all(self._connection.send(event))
            except (trio.BrokenResourceError, trio.ClosedResourceError, OSError) as exc:
                raise WebSocketLost("the connection broke while sending") from exc
            except LocalProtocolError as exc:
                raise WebSocketLost("the WebSocket is closed") from exc


Serve = Callable[[MessageSocket], Awaitable[None]]


async def open_web_socket(
    stream: trio.abc.Stream, host: str, target: str, headers: Headers = ()
) -> MessageSocket:
    """Ask for a WebSocket as client; raise WebSocketRefused or WebSocketLost."""
    connection = WSConnection(ConnectionType.CLIENT)
    asked = Request(host=host, target=target, extra_headers=list(headers))
    try:
        await stream.send_all(connection.send(asked))
    except (trio.BrokenResourceError, trio.ClosedResourceError, OSError) as exc:
        raise WebSocketLost("the connection broke while sending") from exc
    except LocalProtocolError as exc:
        raise WebSocketLost("this cannot be asked for") from exc
    events: deque[Event] = deque()
    refused: RejectConnection | None = None
    body = bytearray()
    while True:
        data = await _receive(stream)
        _feed(connection, data, events)
        while events:
            event = events.popleft()
            match event:
                case AcceptConnection():
                    made = MessageSocket(stream, connection)
                    made.put_back(events)
                    return made
                case RejectConnection():
                    refused = event
                    if not event.has_body:
                        raise WebSocketRefused(event.status_code, b"")
                case RejectData(data=part) if refused is not None:
                    body += part
                    if event.body_finished or len(body) > REFUSAL_BYTES_MAX:
                        raise WebSocketRefused(refused.status_code, bytes(body))
                case _:
                    raise WebSocketLost("the server closed the WebSocket")
        if not data:
            if refused is not None:
                raise WebSocketRefused(refused.status_code, bytes(body))
            raise WebSocketLost("the connection ended")


def is_upgrade(headers: Headers) -> bool:
    """Tell whether a request's headers (names in lower case) ask for a WebSocket."""
    found = dict(headers)
    return found.get(b"upgrade", b"").lower() == b"websocket"


async def accept_web_socket(
    stream: trio.abc.Stream, headers: Headers, target: str, trailing: bytes = b""
) -> MessageSocket:
    """Take a request that another parser has read, as server; raise WebSocketLost."""
    connection = WSConnection(ConnectionType.SERVER)
    try:
        connection.initiate_upgrade_connection(list(headers), target)
        events = deque(connection.events())
        if not events or not isinstance(events.popleft(), Request):
            raise WebSocketLost("not a request for a WebSocket")
        await stream.send_all(connection.send(AcceptConnection()))
    except (trio.BrokenResourceError, trio.ClosedResourceError, OSError) as exc:
        raise WebSocketLost("the connection broke while sending") from exc
    except (RemoteProtocolError, LocalProtocolError, ValueError) as exc:
        raise WebSocketLost("not a request for a WebSocket") from exc
    if trailing:
        _feed(connection, trailing, events)
    made = MessageSocket(stream, connection)
    made.put_back(events)
    return made


async def serve_web_socket(
    stream: trio.abc.Stream, headers: Headers, target: str, trailing: bytes, serve: Serve
) -> None:
    """Take a request as ``accept_web_socket`` and serve it to its end; closes the stream."""
    try:
        socket = await accept_web_socket(stream, headers, target, trailing)
    except WebSocketLost:
        return  # it asked for a WebSocket without being able to have one
    try:
        await serve(socket)
    finally:
        await socket.aclose()


async def _receive(stream: trio.abc.Stream) -> bytes:
    try:
        return bytes(await stream.receive_some(RECEIVE_BYTES))
    except (trio.BrokenResourceError, trio.ClosedResourceError, OSError) as exc:
        raise WebSocketLost("the connection broke while receiving") from exc


def _feed(connection: WSConnection, data: bytes, events: deque[Event]) -> None:
    try:
        connection.receive_data(data or None)
        events.extend(connection.events())
    except (RemoteProtocolError, LocalProtocolError) as exc:
        raise WebSocketLost("the other end breaks the WebSocket protocol") from exc
