"""A server's serial console as a WebSocket of its Redfish service (DSP2046, SerialConsole).

Knows the way in, not what is written. The rules: the address comes from the system's own
document and must be a path on the same host; a pinned certificate is checked before the login
is sent; a service that offers no such console is said to.
"""

import base64
import hashlib
import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, Final

import trio

from drivers.api import BmcCredentials, BmcLimits
from drivers.errors import DeviceLied, DeviceRefused, DeviceUnreachable
from drivers.proto import redfish as core
from drivers.redfish import RedfishBmc, read_object
from drivers.redfish_http import make_client, open_http
from mesh.host.web_socket import (
    MessageSocket,
    WebSocketLost,
    WebSocketRefused,
    open_web_socket,
)

PING_S: Final = 20.0
"""Between two questions for a sign of life; two without an answer end nothing, TCP does."""
SESSION_END_S: Final = 2.0
CHUNK_BYTES: Final = 4096


class ConsoleBmc(RedfishBmc):
    """The service of one console."""

    async def console_path(self) -> str:
        """Return the path of the WebSocket; DeviceRefused when there is none."""
        path = self._path or await self._discover()
        body = read_object(await self.call("GET", path))
        found = core.parse_console(body)
        if found is None:
            raise DeviceRefused(f"{self.url}: it offers no serial console over a WebSocket")
        return found

    def login_header(self) -> tuple[bytes, bytes]:
        """Return the header that says who we are."""
        if self._token is not None:
            return b"X-Auth-Token", self._token.encode()
        who = f"{self._credentials.username}:{self._credentials.password}".encode()
        return b"Authorization", b"Basic " + base64.b64encode(who)


class WebConsole:
    """One open console; one reader, any number of writers."""

    def __init__(self, url: str, socket: MessageSocket) -> None:
        self.url = url
        self._socket = socket

    async def receive(self) -> bytes:
        """Return what the server wrote, at least one byte; a DriverError ends the console."""
        while True:
            try:
                message = await self._socket.receive()
            except WebSocketLost as exc:
                raise DeviceUnreachable(f"{self.url}: the console broke off ({exc})") from exc
            if message is None:
                why = core.clip(self._socket.close_reason) or "no reason given"
                raise DeviceRefused(f"{self.url}: the BMC closed the console ({why})")
            if message:
                return message.encode() if isinstance(message, str) else message

    async def send(self, data: bytes) -> None:
        """Type characters."""
        for at in range(0, len(data), CHUNK_BYTES):
            try:
                await self._socket.send(data[at : at + CHUNK_BYTES])
            except WebSocketLost as exc:
                raise DeviceUnreachable(f"{self.url}: the console broke off ({exc})") from exc

    async def send_break(self) -> None:
        """Refuse: there is no break in a WebSocket of characters."""
        raise DeviceRefused(f"{self.url}: a console over a WebSocket cannot send a break")

    async def keep_alive(self) -> None:
        """Ask for signs of life, so that nothing on the way forgets the connection."""
        try:
            while True:
                await trio.sleep(PING_S)
                await self._socket.ping()
        except WebSocketLost:
            pass  # the reader hears of it


@asynccontextmanager
async def open_web_console(
    url: str,
    credentials: BmcCredentials,
    *,
    local_address: str | None,
    limits: BmcLimits,
) -> AsyncGenerator[WebConsole]:
    """Open the console of one system; closed at the end."""
    try:
        address = core.parse_address(url)
    except ValueError as exc:
        raise DeviceRefused(str(exc)) from exc
    pin = credentials.tls_sha256
    if pin is not None and not address.tls:
        raise DeviceRefused(f"{url}: tls_sha256 was given, but the address is not https://")

    def client() -> Any:
        return make_client(pin, local_address)

    async with open_http(address, client, pin, limits) as http:
        bmc = ConsoleBmc(address, http, credentials, limits)
        socket: MessageSocket | None = None
        try:
            path = await bmc.console_path()
            header = bmc.login_header()
            try:
                with trio.fail_after(limits.request_s):
                    stream = await _connect(bmc.url, address, pin, local_address)
                    socket = await _upgrade(bmc.url, address, stream, path, header)
            except trio.TooSlowError as exc:
                raise DeviceUnreachable(
                    f"{bmc.url}: its console did not answer within {limits.request_s:g} s"
                ) from exc
            console = WebConsole(bmc.url, socket)
            failure: Exception | None = None
            async with trio.open_nursery() as nursery:
                nursery.start_soon(console.keep_alive)
                try:
                    yield console
                except Exception as exc:  # not to be wrapped in a group by the nursery
                    failure = exc
                nursery.cancel_scope.cancel()
            if failure is not None:
                raise failure
        finally:
            with trio.move_on_after(SESSION_END_S, shield=True):
                if socket is not None:
                    await socket.aclose()
                await bmc.close()


async def _connect(
    where: str, address: core.Address, pin: str | None, local_address: str | None
) -> trio.abc.Stream:
    try:
        stream = await trio.open_tcp_stream(
            address.host, address.port, local_address=local_address
        )
    except OSError as exc:
        raise DeviceUnreachable(
            f"{where}: its console cannot be reached ({exc.strerror or exc})"
        ) from exc
    if not address.tls:
        return stream
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    if pin is not None:  # checked below, before anything is sent
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    secured = trio.SSLStream(
        stream, context, server_hostname=address.host, https_compatible=True
    )
    try:
        await secured.do_handshake()
        shown = secured.getpeercert(binary_form=True) or b""
    except (trio.BrokenResourceError, OSError) as exc:
        await trio.aclose_forcefully(secured)
        raise DeviceUnreachable(f"{where}: no TLS session for its console") from exc
    if pin is not None and hashlib.sha256(shown).hexdigest() != pin:
        await trio.aclose_forcefully(secured)
        raise DeviceRefused(f"{where}: its certificate is not the one in the secret")
    return secured


async def _upgrade(
    where: str,
    address: core.Address,
    stream: trio.abc.Stream,
    path: str,
    header: tuple[bytes, bytes],
) -> MessageSocket:
    host = f"[{address.host}]" if ":" in address.host else address.host
    try:
        return await open_web_socket(stream, f"{host}:{address.port}", path, [header])
    except WebSocketRefused as exc:
        await trio.aclose_forcefully(stream)
        said = core.refusal(exc.body)
        raise DeviceRefused(
            f"{where}: status {exc.status}, its console was refused"
            + (f": {said}" if said else "")
        ) from exc
    except WebSocketLost as exc:
        await trio.aclose_forcefully(stream)
        raise DeviceLied(f"{where}: its console makes no sense ({exc})") from exc
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise
