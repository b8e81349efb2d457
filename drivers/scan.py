"""A scan for BMCs on real sockets: RMCP over UDP, Redfish over TCP; nobody is logged in to.

Decides nothing: who is asked, and what answers mean, stands in `drivers.proto.scan`. The rules:
a connection is made only to whom the scan names, and from the out-of-band address; certificates
are noted and not believed; what a host answers is bounded in bytes and seconds.
"""

import ssl
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Final

import httpx2
import trio

from drivers.api import BmcLimits
from drivers.errors import DriverError
from drivers.proto import redfish as core
from drivers.proto.scan import (
    DATAGRAM_BYTES_MAX,
    Done,
    Effect,
    Hit,
    Probe,
    Root,
    Scan,
    Send,
    origins,
    parse_seen_root,
)
from drivers.redfish_http import BmcHttp, make_client

CONNECT_S: Final = 2.0
"""A host that takes no connection for so long has no service there."""
ROOT_S: Final = 8.0
"""From the connection to the whole service root; slow BMCs take five."""
EVENTS_MAX: Final = 256
RMCP_PORT: Final = 623
REDFISH_PORTS: Final = (443, 80)

Found = Callable[[Hit], Awaitable[None]]
Progress = Callable[[int, int], Awaitable[None]]
Event = Callable[[float], list[Effect]]


async def scan_bmcs(
    hosts: Sequence[str],
    found: Found,
    progress: Progress,
    *,
    local_address: str | None = None,
    ports: Sequence[int] = REDFISH_PORTS,
    rmcp_port: int = RMCP_PORT,
    scan: Scan | None = None,
    root_s: float = ROOT_S,
) -> Done:
    """Ask all hosts (IPv4 addresses); ``found`` and ``progress(asked, total)`` as it goes."""
    scan = scan or Scan(hosts)
    send, receive = trio.open_memory_channel[Event](EVENTS_MAX)
    sock = trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM)
    # a connection is tried twice; httpx2 leaves one open that is cancelled in its handshake
    client = make_client("", local_address, connections=2 * EVENTS_MAX, connect_s=0.4 * root_s)
    ended: Done | None = None
    async with send, receive, client, trio.open_nursery() as nursery:
        with sock:
            await sock.bind((local_address or "0.0.0.0", 0))  # noqa: S104 - only asked hosts
            nursery.start_soon(_hear, sock, rmcp_port, scan, send)
            effects = scan.start(trio.current_time())
            while ended is None:
                for effect in effects:
                    match effect:
                        case Send(host, data):
                            await _tell(sock, (host, rmcp_port), data)
                        case Probe(host):
                            where = partial(_root_of, host, ports, client, local_address)
                            nursery.start_soon(_probe, host, where, root_s, scan, send)
                        case Hit():
                            await found(effect)
                        case Done():
                            ended = effect
                await progress(scan.asked, scan.total)
                if ended is None:
                    effects = await _next(scan, receive)
            nursery.cancel_scope.cancel()
    assert ended is not None
    return ended


async def _next(scan: Scan, receive: trio.MemoryReceiveChannel[Event]) -> list[Effect]:
    """Return the effects of the next event, or of the timer."""
    assert scan.deadline is not None
    with trio.move_on_at(scan.deadline):
        event = await receive.receive()
        return event(trio.current_time())
    return scan.on_timer(trio.current_time())


async def _tell(sock: trio.socket.SocketType, to: tuple[str, int], data: bytes) -> None:
    try:
        await sock.sendto(data, to)
    except OSError:
        pass  # no way there: as if it were silent


async def _hear(
    sock: trio.socket.SocketType,
    port: int,
    scan: Scan,
    send: trio.MemorySendChannel[Event],
) -> None:
    while True:
        try:
            data, (host, source, *_) = await sock.recvfrom(DATAGRAM_BYTES_MAX + 1)
        except OSError:  # what an ICMP message says of an earlier datagram
            continue
        if source == port:
            await send.send(partial(scan.on_datagram, str(host), data))


async def _probe(
    host: str,
    where: Callable[[float], Awaitable[Root | None]],
    root_s: float,
    scan: Scan,
    send: trio.MemorySendChannel[Event],
) -> None:
    root = await where(root_s)
    await send.send(lambda now: scan.on_root(host, root, now))


async def _root_of(
    host: str,
    ports: Sequence[int],
    client: httpx2.AsyncClient,
    local_address: str | None,
    root_s: float,
) -> Root | None:
    closed: set[int] = set()
    for origin in origins(host, ports):
        port = core.parse_address(origin).port
        if port not in closed and not await _takes_connections(host, port, local_address):
            closed.add(port)
        if port not in closed:
            root = await look(origin, client, root_s)
            if root is not None:
                return root
    return None


async def _takes_connections(host: str, port: int, local_address: str | None) -> bool:
    with trio.move_on_after(CONNECT_S):
        try:
            stream = await trio.open_tcp_stream(host, port, local_address=local_address)
        except OSError:
            return False
        await trio.aclose_forcefully(stream)
        return True
    return False


async def look(origin: str, client: httpx2.AsyncClient, root_s: float = ROOT_S) -> Root | None:
    """Return the service root at an address, None when there is none.

    Some services want a user even here, against DSP0266; they are known by their headers.
    """
    seen: list[str] = []
    limits = BmcLimits(request_s=root_s)
    http = BmcHttp(core.parse_address(origin), client, None, limits, note=seen.append)
    with trio.move_on_after(root_s):
        try:
            answer = await http.request("GET", core.ROOT_PATH)
            if answer.status in (401, 403) and "odata-version" in answer.headers:
                return Root(origin, "", "", "", "", seen[-1] if seen else None)
            if not answer.ok:
                return None
            body = core.decode(answer.body)
            return parse_seen_root(body, origin, seen[-1] if seen else None)
        except (DriverError, core.NotRedfish, ssl.SSLError):
            return None
    return None
