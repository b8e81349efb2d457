"""Records inside a WebSocket on the hub's TLS port: carrier, dialler, acceptor.

One binary message is one record. It knows no keys of the mesh: TLS is the outer wrapper, Noise
inside says who is there. How a hub mounts it: for every accepted TLS stream ``read_head`` (see
mesh/link/split.py), then ``serve_websocket`` when ``is_mesh_request(head)``, else the web
server gets the ReplayStream.
"""

import ssl
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

import trio
from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Event,
    Ping,
    Pong,
    RejectConnection,
    RejectData,
    Request,
)
from wsproto.utilities import LocalProtocolError, RemoteProtocolError

from mesh.errors import RemoteError, Unreachable
from mesh.link.carrier import Carrier, CarrierLost
from mesh.link.join import JoinService, answer_join, request_join
from mesh.link.session import HANDSHAKE_S
from mesh.link.split import MESH_PATH
from mesh.link.tcp import DIAL_S, address_text, peer_address, peer_host
from mesh.link.tls import client_context, require_strong
from mesh.proto.join import JoinClientPort, JoinResult
from mesh.proto.noise import KEY_BYTES
from mesh.proto.record import IK, RECORD_BYTES_MAX, XX, RecordError, parse_record

RECEIVE_BYTES: Final = 65_536
HUB_PORT: Final = 8443


class LinkAcceptor(Protocol):
    """What serves an accepted member: mesh.link.peers.Peers."""

    async def accept(self, carrier: Carrier, first: tuple[int, memoryview]) -> None:
        """Run the link to its end."""
        ...


class WsCarrier:
    """One WebSocket connection."""

    name = "websocket"

    def __init__(
        self,
        stream: trio.abc.Stream,
        role: ConnectionType,
        address: str,
        host: str | None = None,
    ) -> None:
        self.address = address
        self._host = host
        self._stream = stream
        self._connection = WSConnection(role)
        self._events: deque[Event] = deque()
        self._message = bytearray()
        self._sending = trio.Lock()  # the reader answers pings while the writer sends

    async def send(self, records: Iterable[bytes | memoryview]) -> None:
        """Send each record as one binary message."""
        await self._send_events([BytesMessage(data=bytes(record)) for record in records])

    async def receive(self) -> tuple[int, memoryview]:
        """Return kind and body of the next record."""
        while True:
            event = await self._next_event()
            match event:
                case BytesMessage(data=data):
                    if len(self._message) + len(data) > RECORD_BYTES_MAX:
                        raise RecordError("a WebSocket message longer than a record")
                    self._message += data
                    if event.message_finished:
                        message, self._message = self._message, bytearray()
                        return parse_record(message)
                case Ping():
                    await self._send_events([event.response()])
                case Pong():
                    pass
                case _:
                    raise CarrierLost("the peer closed the WebSocket")

    def datagram_address(self, port: int) -> tuple[str, int] | None:
        """Return where the other end takes datagrams if its port is this, or None."""
        return (self._host, port) if self._host is not None and port else None

    async def aclose(self) -> None:
        """Close at once."""
        await trio.aclose_forcefully(self._stream)

    async def open_as_client(self, host: str) -> None:
        """Ask for the WebSocket. Raises CarrierLost."""
        await self._send_events([Request(host=host, target=MESH_PATH)])
        event = await self._next_event()
        if not isinstance(event, AcceptConnection):
            raise CarrierLost("the server refuses the WebSocket")

    async def open_as_server(self) -> None:
        """Take the client's request. Raises CarrierLost."""
        event = await self._next_event()
        if not isinstance(event, Request):
            raise CarrierLost("not a WebSocket request")
        if event.target != MESH_PATH:
            await self._send_events([RejectConnection(status_code=404)])
            raise CarrierLost("a WebSocket request for another path")
        await self._send_events([AcceptConnection()])

    async def _next_event(self) -> Event:
        while not self._events:
            try:
                data = await self._stream.receive_some(RECEIVE_BYTES)
                self._connection.receive_data(bytes(data) if data else None)
                self._events.extend(self._connection.events())
            except (trio.BrokenResourceError, trio.ClosedResourceError) as exc:
                raise CarrierLost("the connection broke while receiving") from exc
            except (RemoteProtocolError, LocalProtocolError) as exc:
                raise CarrierLost("the peer breaks the WebSocket protocol") from exc
            if not data and not self._events:
                raise CarrierLost("the connection ended")
        event = self._events.popleft()
        if isinstance(event, (CloseConnection, RejectConnection, RejectData)):
            raise CarrierLost("the peer closed the WebSocket")
        return event

    async def _send_events(self, events: Sequence[Event]) -> None:
        async with self._sending:
            try:
                data = b"".join(self._connection.send(event) for event in events)
                await self._stream.send_all(data)
            except (trio.BrokenResourceError, trio.ClosedResourceError) as exc:
                raise CarrierLost("the connection broke while sending") from exc
            except LocalProtocolError as exc:
                raise CarrierLost("the WebSocket is closed") from exc


async def dial_websocket(
    url: str, *, context: ssl.SSLContext | None = None, fingerprint: bytes | None = None
) -> WsCarrier:
    """Connect to a hub's URL (only host and port count); raise Unreachable or TlsRefused."""
    host, port = _host_port(url)
    where = address_text(host, port)
    carrier: WsCarrier | None = None
    try:
        with trio.fail_after(DIAL_S):
            transport = await trio.open_tcp_stream(host, port)
            stream = trio.SSLStream(
                transport,
                context or client_context(),
                server_hostname=host,
                https_compatible=True,
            )
            carrier = WsCarrier(stream, ConnectionType.CLIENT, where, peer_host(transport))
            await stream.do_handshake()
            require_strong(stream, fingerprint)
            await carrier.open_as_client(where)
    except (OSError, trio.TooSlowError, trio.BrokenResourceError, RemoteError) as exc:
        if carrier is not None:
            await carrier.aclose()
        if isinstance(exc, RemoteError) and not isinstance(exc, CarrierLost):
            raise
        late = isinstance(exc, trio.TooSlowError)
        said = str(exc) or ("no answer" if late else "it broke off")
        raise Unreachable(f"no connection to the hub at {where}: {said}") from exc
    except BaseException:
        if carrier is not None:
            await carrier.aclose()
        raise
    return carrier


async def serve_websocket(
    stream: Any, peers: LinkAcceptor, join: JoinService | None = None
) -> None:
    """Serve one member (or one that joins) on an accepted TLS stream, to the end.

    The request may be unread yet or replayed. Returns when the connection is over; closes it.
    """
    transport = stream.transport_stream
    address, host = peer_address(transport), peer_host(transport)
    carrier = WsCarrier(stream, ConnectionType.SERVER, address, host)
    try:
        try:
            with trio.fail_after(HANDSHAKE_S):
                require_strong(stream)
                await carrier.open_as_server()
                first = await carrier.receive()
        except (RemoteError, trio.TooSlowError):
            return  # whoever it was said nothing that we serve
        if first[0] == XX and len(first[1]) == KEY_BYTES:  # empty payload: who joins
            if join is not None:
                await answer_join(carrier, join, first)
        elif first[0] in (IK, XX):
            await peers.accept(carrier, first)
    finally:
        with trio.CancelScope(shield=True):
            await carrier.aclose()


def _host_port(url: str) -> tuple[str, int]:
    try:
        parts = urlsplit(url if "://" in url else f"https://{url}")
        host, port = parts.hostname, parts.port
    except ValueError as exc:
        raise Unreachable(f"{url!r} is no URL of a hub") from exc
    if not host or parts.scheme not in ("https", "wss"):
        raise Unreachable(f"{url!r} is no https URL of a hub")
    return host, port or HUB_PORT


async def join_over_websocket(
    url: str,
    client: JoinClientPort,
    static_private: bytes,
    *,
    fingerprint: bytes | None = None,
) -> JoinResult:
    """Join through the hub at a URL (errors: ``request_join``, TlsRefused)."""
    carrier = await dial_websocket(url, fingerprint=fingerprint)
    return await request_join(carrier, client, static_private)
