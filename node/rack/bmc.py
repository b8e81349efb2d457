"""The listener of a rack's virtual BMCs: Redfish over plain HTTP on loopback, and consoles.

Knows HTTP and basic authentication; what Redfish means stands in ``node.proto.rack_bmc``. Rule:
an order is answered after it was carried out and is durable.
"""

import base64
import hmac
import json
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Final

import h11
import trio

from mesh.host.log import get_log
from mesh.host.web_socket import (
    MessageSocket,
    WebSocketLost,
    accept_web_socket,
    is_upgrade,
)
from node.proto.rack_bmc import (
    BODY_BYTES_MAX,
    CONSOLES_MAX,
    BootOrder,
    MediaOrder,
    PasswordOrder,
    PowerOrder,
    no_medium,
    respond,
)
from node.proto.rack_health import BiosOrder
from node.proto.rack_reply import Reply
from node.proto.rack_sessions import RackSessions, SessionReply
from node.rack.server import SimServer
from node.rack.state import Credentials

CONNECTIONS_MAX: Final = 256
REQUESTS_MAX: Final = 10_000
IDLE_S: Final = 30.0
RECEIVE_BYTES: Final = 16 << 10
log = get_log("rack")


class BmcService:
    """All servers of a rack behind one port."""

    def __init__(
        self,
        servers: Mapping[str, SimServer],
        credentials: Credentials,
        keep: Callable[[Credentials], None],
    ) -> None:
        """``keep`` makes a changed login durable."""
        self._servers = servers
        self._connections = 0
        self._credentials = credentials
        self._keep = keep
        self._consoles: Counter[str] = Counter()
        self._sessions = RackSessions()

    async def serve(self, stream: trio.SocketStream) -> None:
        """Serve one connection to its end."""
        if self._connections >= CONNECTIONS_MAX:
            await trio.aclose_forcefully(stream)
            return
        self._connections += 1
        try:
            async with stream:
                await self._requests(stream)
        except (
            trio.BrokenResourceError,
            trio.TooSlowError,
            h11.RemoteProtocolError,
            WebSocketLost,
            OSError,
        ):
            pass  # the client went away or talks nonsense: nothing was ordered
        finally:
            self._connections -= 1

    async def _requests(self, stream: trio.SocketStream) -> None:
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=RECEIVE_BYTES)
        for _ in range(REQUESTS_MAX):
            head = await _event(connection, stream)
            if not isinstance(head, h11.Request):
                return
            body = bytearray()
            while isinstance(event := await _event(connection, stream), h11.Data):
                body += event.data
                if len(body) > BODY_BYTES_MAX:
                    return
            if not isinstance(event, h11.EndOfMessage):
                return
            reply = await self._answer(head, bytes(body))
            if isinstance(reply, Reply) and reply.console is not None:
                target = head.target.decode("latin-1")
                trailing = connection.trailing_data[0]
                socket = await accept_web_socket(stream, head.headers, target, trailing)
                await self._console(reply.console, socket)
                return
            await _send(connection, stream, reply)
            if {connection.our_state, connection.their_state} != {h11.DONE}:
                return
            connection.start_next_cycle()

    async def _answer(self, head: h11.Request, body: bytes) -> Reply | SessionReply:
        headers, now = dict(head.headers), trio.current_time()
        given = headers.get(b"authorization", b"")
        token = headers.get(b"x-auth-token", b"").decode("latin-1")
        match = headers.get(b"if-match")
        method, path = head.method.decode("latin-1"), head.target.decode("latin-1")
        known = hmac.compare_digest(given, _basic(self._credentials)) or (
            bool(token) and self._sessions.authorised(token, now)
        )
        login = self._credentials.username, self._credentials.password
        about_sessions = self._sessions.respond(method, path, body, login, known, now)
        if about_sessions is not None:
            return about_sessions
        reply = respond(
            method,
            path,
            body,
            match.decode("latin-1") if match is not None else None,
            known,
            [server.shown() for server in self._servers.values()],
            self._credentials.username,
            is_upgrade(head.headers),
        )
        match reply.order:
            case PowerOrder(name, on):
                log.info("bmc order", server=name, detail=f"power {'on' if on else 'off'}")
                await self._servers[name].set_power(on)
            case BootOrder(name, target, enabled):
                log.info("bmc order", server=name, detail=f"boot {target} {enabled}")
                await self._servers[name].set_boot(target, enabled)
            case MediaOrder(name, image):
                log.info("bmc order", server=name, detail="insert" if image else "eject")
                trouble = await self._servers[name].set_image(image)
                if trouble is not None:
                    return no_medium(trouble)
            case BiosOrder(name, attributes):
                log.info("bmc order", server=name, detail="firmware settings")
                await self._servers[name].set_bios(attributes)
            case PasswordOrder(password):
                log.info("bmc order", detail="new password")
                changed = Credentials(self._credentials.username, password)
                await trio.to_thread.run_sync(self._keep, changed)
                self._credentials = changed
                self._sessions.end_all()
            case other:
                assert other is None
        return reply

    async def _console(self, name: str, socket: MessageSocket) -> None:
        """Serve one console to its end."""
        if self._consoles[name] >= CONSOLES_MAX:
            await socket.aclose(1013, "too many consoles of this server are open")
            return
        self._consoles[name] += 1
        server = self._servers[name]
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_show, server, socket, nursery.cancel_scope)
                try:
                    while (message := await socket.receive()) is not None:
                        if server.record.power:
                            raw = message.encode() if isinstance(message, str) else message
                            server.serial.typed(raw)
                except WebSocketLost:
                    pass  # the client went away
                nursery.cancel_scope.cancel()
        finally:
            self._consoles[name] -= 1


async def _show(server: SimServer, socket: MessageSocket, whole: trio.CancelScope) -> None:
    """Send what the server wrote and writes."""
    position = 0
    try:
        while True:
            data, position = await server.serial.after(position)
            for at in range(0, len(data), RECEIVE_BYTES):
                await socket.send(data[at : at + RECEIVE_BYTES])
    except WebSocketLost:
        whole.cancel()


def _basic(credentials: Credentials) -> bytes:
    text = f"{credentials.username}:{credentials.password}".encode()
    return b"Basic " + base64.b64encode(text)


async def _event(connection: h11.Connection, stream: trio.SocketStream) -> Any:
    with trio.fail_after(IDLE_S):
        while (event := connection.next_event()) is h11.NEED_DATA:
            if connection.they_are_waiting_for_100_continue:
                go_on = h11.InformationalResponse(status_code=100, headers=[])
                await stream.send_all(connection.send(go_on) or b"")
            connection.receive_data(await stream.receive_some(RECEIVE_BYTES))
    return event


async def _send(
    connection: h11.Connection, stream: trio.SocketStream, reply: Reply | SessionReply
) -> None:
    body = b"" if reply.body is None else json.dumps(reply.body).encode()
    headers = [("OData-Version", "4.0"), ("Cache-Control", "no-cache")]
    if reply.status != 204:
        headers += [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
    if isinstance(reply, SessionReply):
        if reply.token is not None and reply.location is not None:
            headers += [("X-Auth-Token", reply.token), ("Location", reply.location)]
    elif reply.etag is not None:
        headers.append(("ETag", reply.etag))
    if reply.status == 401:
        headers.append(("WWW-Authenticate", 'Basic realm="simulated BMC"'))
    out = connection.send(h11.Response(status_code=reply.status, headers=headers)) or b""
    if body:
        out += connection.send(h11.Data(data=body)) or b""
    out += connection.send(h11.EndOfMessage()) or b""
    with trio.fail_after(IDLE_S):
        await stream.send_all(out)
