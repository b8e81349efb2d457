"""From a relayed link to a direct one: dial again, punch a hole, and let the better path stay.

It knows no probe and no key. Rules: the side that dialled the relayed link leads, the other
answers; both tell the addresses from which others see them and probe each other at the same
time (mesh/proto/punch.py); a link over UDP begins only when the path has worked both ways, and
replaces the relayed one as any direct link does (mesh/proto/crossing.py). A peer that names
addresses gets a few probes sent there, not more often than every PUNCH_AGAIN_S.
"""

from collections import Counter
from collections.abc import Callable
from ipaddress import ip_address
from random import uniform
from typing import Any, Final, Protocol

import trio

from mesh.errors import Refused, RemoteError, Unreachable
from mesh.host.log import get_log
from mesh.link.carrier import Carrier
from mesh.link.link import Link
from mesh.link.relay import is_relayed, relay_of
from mesh.link.udp import UdpEndpoint, UdpPath, canonical
from mesh.link.udp_stream import UdpStreams
from mesh.link.ways import KnownAddresses
from mesh.proto.punch import CANDIDATES_MAX, Address

METHOD: Final = "mesh.punch"
FIRST_S: Final = 1.0
"""A relayed link is left alone so long after it is up."""
AGAIN_S: Final = 30.0
AGAIN_MAX_S: Final = 600.0
"""Waits between attempts double up to this, with jitter."""
PUNCH_S: Final = 6.0
"""So long both sides probe."""
PUNCH_AGAIN_S: Final = 5.0
"""Least time between two punches that a peer asks for."""
SEEN_S: Final = 0.5
"""Patience for the relay's word on where we are seen."""
CALL_S: Final = 10.0

_LOG = get_log("punch")


class DirectLinks(Protocol):
    """What punching needs of mesh.link.peers.Peers."""

    def live(self, node_id: str) -> Link | None:
        """Return the main link to a peer if there is one now."""
        ...

    async def open_direct(self, node_id: str, carrier: Carrier | None = None) -> Link:
        """Make a main link by the peer's own ways, or over a carrier; raise Unreachable."""
        ...


class Puncher:
    """Looks for better paths than relays."""

    def __init__(
        self,
        links: DirectLinks,
        udp: UdpEndpoint,
        streams: UdpStreams,
        addresses: Callable[[], KnownAddresses],
        counters: Counter[str],
    ) -> None:
        self._links = links
        self._udp = udp
        self._streams = streams
        self._addresses = addresses
        self._counters = counters
        self._asked_at: dict[str, float] = {}

    async def improve(self, link: Link) -> None:
        """Try to replace a relayed link by a direct one, as long as it lives."""
        if not (is_relayed(link) and link.dialled):
            return
        wait_s = FIRST_S
        while not link.closed:
            with trio.move_on_after(wait_s):
                await link.wait_closed()
                return
            try:
                await self._attempt(link)
                return
            except (RemoteError, Unreachable) as exc:
                self._counters["punches_failed"] += 1
                _LOG.debug("no direct path", peer=link.peer, error=str(exc))
            wait_s = min(max(AGAIN_S, 2 * wait_s), AGAIN_MAX_S) * uniform(0.75, 1.25)  # noqa: S311 - spreads attempts

    async def answer(self, peer: str, body: Any) -> dict[str, Any]:
        """Answer a peer that wants to punch. Raises Refused."""
        link, path = self._links.live(peer), self._udp.path(peer)
        if link is None or path is None or not is_relayed(link):
            raise Refused("there is no relayed link to replace")
        if not self._udp.port:
            raise Refused("no UDP here")
        now = trio.current_time()
        if now < self._asked_at.get(peer, 0.0) + PUNCH_AGAIN_S:
            raise Refused("that is too often")
        self._asked_at = {
            other: at for other, at in self._asked_at.items() if now < at + PUNCH_AGAIN_S
        } | {peer: now}
        there = self._theirs(peer, body)
        ours = await self._ours(link)
        self._udp.punch(path, there)
        return {"candidates": [list(address) for address in ours]}

    # -- within ------------------------------------------------------------------------------

    async def _attempt(self, link: Link) -> None:
        try:
            await self._links.open_direct(link.peer)
        except (RemoteError, Unreachable):
            await self._punch(link)

    async def _punch(self, link: Link) -> None:
        path = self._udp.path(link.peer)
        if path is None or not self._udp.port:
            raise Unreachable("no UDP here")
        if not path.usable:
            ours = [list(address) for address in await self._ours(link)]
            answer = await link.rpc(METHOD, {"candidates": ours}, CALL_S)
            self._udp.punch(path, self._theirs(link.peer, answer))
            await _wait_usable(path)
        self._counters["punches"] += 1
        await self._links.open_direct(link.peer, self._streams.dial(path))

    async def _ours(self, link: Link) -> list[Address]:
        """Return where we can be found, as others see us; the relay is asked anew."""
        path = self._udp.path(relay_of(link))
        if path is not None:
            self._udp.ask(path)
            version = path.level.version
            with trio.move_on_after(SEEN_S):
                await path.level.wait_past(version)
        return self._udp.seen_as()[:CANDIDATES_MAX]

    def _theirs(self, peer: str, body: Any) -> list[Address]:
        """Return the addresses to probe: those the peer names, then those it has announced."""
        known = [(str(host), int(port)) for host, port in self._addresses().get(peer, ())]
        named = body.get("candidates") if isinstance(body, dict) else None
        at_home = any(_is_loopback(host) for host, _ in self._udp.seen_as())
        found: list[Address] = []
        for entry in [*(named if isinstance(named, list) else []), *known]:
            match entry:
                case [str(host), int(port)] | (str(host), int(port)) if 0 < port < 65_536:
                    address = canonical(host, port)
                    if address is not None and _may_be_probed(address[0], at_home):
                        found.append(address)
                case _:
                    pass
        return list(dict.fromkeys(found))[:CANDIDATES_MAX]


async def _wait_usable(path: UdpPath) -> None:
    with trio.move_on_after(PUNCH_S):
        while not path.usable:
            await path.level.wait_past(path.level.version)
        return
    raise Unreachable("no hole could be punched")


def _may_be_probed(host: str, at_home: bool) -> bool:
    """Leave out what is no host; loopback is one only for those who are seen there."""
    address = ip_address(host)
    if address.is_loopback:
        return at_home
    return not (address.is_multicast or address.is_unspecified or address.is_reserved)


def _is_loopback(host: str) -> bool:
    return ip_address(host).is_loopback
