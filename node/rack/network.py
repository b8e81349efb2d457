"""Sockets of a simulated server's firmware: DHCP, TFTP and HTTP from an address of its own.

Knows no boot order. Rule: everything is bound to the server's address (or its relay's), and
everything ends in bounded time and bytes.
"""

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeVar
from urllib.parse import urlencode, urlsplit

import h11
import trio

from node.proto import rack_dhcp, rack_tftp
from node.proto.rack_script import SCRIPT_BYTES_MAX

DATAGRAM_BYTES: Final = 65536
CONNECT_S: Final = 5.0
STALL_S: Final = 30.0
RECEIVE_BYTES: Final = 256 << 10
IMAGE_BYTES_MAX: Final = 4 << 30
ANSWER_BYTES_MAX: Final = 64 << 10

Address = tuple[str, int]
E = TypeVar("E")


class _Core(Protocol[E]):
    """What the two UDP clients have in common."""

    deadline: float | None

    def start(self, now: float) -> list[E]: ...
    def on_timer(self, now: float) -> list[E]: ...
    def on_datagram(self, data: bytes, source: Address, now: float) -> list[E]: ...


async def _drive(core: _Core[Any], source: str) -> Any:
    """Run a core over an unconnected socket until it says something else than Send."""
    with trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM) as sock:
        await sock.bind((source, 0))
        effects = core.start(trio.current_time())
        while True:
            for effect in effects:
                if not isinstance(effect, rack_dhcp.Send | rack_tftp.Send):
                    return effect
                try:
                    await sock.sendto(effect.datagram, effect.to)
                except OSError:
                    pass  # as if it were lost on the way: the core's timer sends it again
            effects = []
            with trio.move_on_at(core.deadline or trio.current_time()):
                try:
                    data, peer = await sock.recvfrom(DATAGRAM_BYTES)
                    effects = core.on_datagram(data, (peer[0], peer[1]), trio.current_time())
                except ConnectionRefusedError:
                    pass  # ICMP from a closed port: the core's timer decides
            effects = effects or core.on_timer(trio.current_time())


async def lease(client: rack_dhcp.DhcpClient, relay: str) -> Any:
    """Return rack_dhcp.Bound or rack_dhcp.NoAnswer."""
    return await _drive(client, relay)


async def read_tftp(servers: Sequence[Address], name: str, source: str) -> Any:
    """Read a file from the first server that has it; rack_tftp.Finished or Failed."""
    end: Any = rack_tftp.Failed("there is no TFTP server")
    for server in servers:
        end = await _drive(rack_tftp.TftpRead(server, name), source)
        if isinstance(end, rack_tftp.Finished):
            break
    return end


@dataclass(frozen=True, slots=True)
class Answered:
    """A whole HTTP answer; ``body`` is empty when it was not kept."""

    status: int
    size: int
    body: bytes


async def get_script(url: str, source: str) -> Answered | str:
    """Fetch a boot script; a text says why there is none."""
    return await _exchange("GET", url, source, b"", {}, SCRIPT_BYTES_MAX, keep=True)


async def get_image(url: str, source: str) -> Answered | str:
    """Fetch a kernel or initrd whole and forget it."""
    return await _exchange("GET", url, source, b"", {}, IMAGE_BYTES_MAX, keep=False)


async def get_range(url: str, source: str, offset: int, length: int) -> bytes | str:
    """Read a piece of a file, as firmware reads a disc; a text says why there is none."""
    headers = {"Range": f"bytes={offset}-{offset + length - 1}"}
    got = await _exchange("GET", url, source, b"", headers, length, keep=True)
    if isinstance(got, str):
        return got
    return got.body if got.status == 206 else f"status {got.status}"


async def post_form(url: str, source: str, fields: Mapping[str, str]) -> Answered | str:
    """Post a form, as cloud-init's phone_home does."""
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    body = urlencode(fields).encode()
    return await _exchange("POST", url, source, body, headers, ANSWER_BYTES_MAX, keep=True)


async def _exchange(
    method: str,
    url: str,
    source: str,
    body: bytes,
    headers: Mapping[str, str],
    bytes_max: int,
    *,
    keep: bool,
) -> Answered | str:
    try:
        parts = urlsplit(url)
        host, port = str(ipaddress.IPv4Address(parts.hostname or "")), parts.port or 80
    except ValueError:
        return "the URL does not name an IPv4 address"
    if parts.scheme != "http":
        return "the URL is not http://"
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    try:
        with trio.fail_after(CONNECT_S):
            stream = await trio.open_tcp_stream(host, port, local_address=source)
        async with stream:
            fields = {"Host": f"{host}:{port}", "User-Agent": "rackmesh-sim/1", **headers}
            if body:
                fields["Content-Length"] = str(len(body))
            head = h11.Request(method=method, target=target, headers=list(fields.items()))
            return await _answer(stream, head, body, bytes_max, keep)
    except trio.TooSlowError:
        return f"{host}:{port} is too slow"
    except (OSError, trio.BrokenResourceError) as exc:
        return f"{host}:{port}: {exc}"
    except (h11.LocalProtocolError, h11.RemoteProtocolError) as exc:
        return f"{host}:{port} does not speak HTTP ({exc})"


async def _answer(
    stream: trio.SocketStream, head: h11.Request, body: bytes, bytes_max: int, keep: bool
) -> Answered | str:
    connection = h11.Connection(h11.CLIENT)
    out = connection.send(head) or b""
    if body:
        out += connection.send(h11.Data(data=body)) or b""
    out += connection.send(h11.EndOfMessage()) or b""
    with trio.fail_after(STALL_S):
        await stream.send_all(out)
    status, size = 0, 0
    kept = bytearray()
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            with trio.fail_after(STALL_S):
                connection.receive_data(await stream.receive_some(RECEIVE_BYTES))
        elif isinstance(event, h11.Response):
            status = event.status_code
        elif isinstance(event, h11.Data):
            size += len(event.data)
            if size > bytes_max:
                return f"the answer has more than {bytes_max} bytes"
            if keep:
                kept += event.data
        elif isinstance(event, h11.EndOfMessage):
            return Answered(status, size, bytes(kept))
        elif isinstance(event, h11.ConnectionClosed):
            return "the connection ended early"
