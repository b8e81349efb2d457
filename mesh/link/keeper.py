"""Which peers we dial by ourselves, and when: those that are wanted, and one hub.

It knows no handshake. Rules: a wait between dials is random up to a limit that doubles (full
jitter), the first one longer the larger the fleet; the higher node id leaves the first move to
the lower; who shows up under another address is dialled soon; a hub keeps a link to each other
hub, a node to one: those of its site's region come first, then its own fixed order counts. It
goes to the next when that one is lost, and back when one that it likes better is there again.
"""

import random
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from itertools import islice, takewhile
from typing import Final

import trio

from mesh.errors import RemoteError, Unreachable
from mesh.host.log import get_log
from mesh.link.dialling import Dialler, MainLinks
from mesh.link.level import Level
from mesh.link.link import Link
from mesh.link.session import RegisterPort
from mesh.link.ways import KnownAddresses
from mesh.proto.crossing import Redial, courtesy_s, first_dials_s
from mesh.proto.rendezvous import ranked

KEPT_MAX: Final = 256
"""Peers that we dial by ourselves."""
POLL_S: Final = 2.0
"""How often addresses are looked at, besides ``look_again`` and changes of the register."""
HEAD_START_S: Final = 0.25
"""The higher node id waits so much longer, so that dials seldom cross."""

Wanted = Callable[[], Collection[str]]
"""Returns the peers to keep a main link with, hubs aside."""

_LOG = get_log("peers")


class Keeper:
    """Keeps links up."""

    def __init__(
        self,
        node_id: str,
        register: RegisterPort,
        addresses: Callable[[], KnownAddresses],
        wanted: Wanted | None,
        links: MainLinks,
        dialler: Dialler,
        counters: Counter[str],
        region: Callable[[], str] = lambda: "",
    ) -> None:
        self._node_id = node_id
        self._register = register
        self._addresses = addresses
        self._wanted = wanted
        self._links = links
        self._dialler = dialler
        self._counters = counters
        self._region = region
        self._look = Level()
        self._kept: dict[str, trio.CancelScope] = {}
        self._naps: dict[str, tuple[trio.CancelScope, object]] = {}  # and what did not work

    def look_again(self) -> None:
        """The addresses or the register have changed."""
        self._look.bump()

    async def run(self, hub_link: bool) -> None:
        """Keep links until cancelled."""
        async with trio.open_nursery() as nursery:
            if hub_link:
                nursery.start_soon(self._keep_one_of, self._hubs_if_node)
            while True:
                version = self._look.version
                kept = self._to_keep(hub_link)
                for node in self._kept.keys() - kept:
                    self._kept.pop(node).cancel()
                for node in kept - self._kept.keys():
                    scope = self._kept[node] = trio.CancelScope()
                    nursery.start_soon(self._keep_peer, node, scope)
                self._wake_the_moved()
                with trio.move_on_after(POLL_S):
                    await self._look.wait_past(version)

    def _wake_the_moved(self) -> None:
        """Dial soon whoever has other addresses than those that did not work."""
        soon = trio.current_time() + Redial(random.random).wait_s()
        for node, (nap, tried) in self._naps.items():
            if self._addresses().get(node) != tried:
                nap.deadline = min(nap.deadline, soon)

    def _spread_s(self, node_id: str) -> float:
        """Return the limit of the first wait before a dial to this peer."""
        hubs = self._hubs()
        if node_id in hubs:
            return courtesy_s(len(self._register.register.members()), len(hubs))
        return first_dials_s(len(self._kept))

    def _to_keep(self, hub_link: bool) -> set[str]:
        nodes = set(self._addresses() if self._wanted is None else self._wanted())
        nodes = {node for node in nodes if self._dialler.knows(node)}
        if hub_link and self._is_hub():
            nodes.update(self._hubs())
        nodes.discard(self._node_id)
        active = self._register.register.active
        return set(islice((node for node in sorted(nodes) if active(node)), KEPT_MAX))

    def _hubs(self) -> list[str]:
        return [hub.node_id for hub in self._register.register.hubs()]

    def _is_hub(self) -> bool:
        return self._node_id in self._hubs()

    def _hubs_if_node(self) -> list[str]:
        """Return the hubs in the order in which a node would like them."""
        if self._is_hub():
            return []
        regions = {hub.node_id: hub.region for hub in self._register.register.hubs()}
        near = self._region()
        order = ranked(list(regions), self._node_id)
        return sorted(order, key=lambda hub: regions[hub] != near)

    async def _keep_peer(self, node_id: str, scope: trio.CancelScope) -> None:
        with scope:
            await self._keep_one_of(lambda: [node_id])

    async def _keep_one_of(self, candidates: Callable[[], Sequence[str]]) -> None:
        """Keep a link to the first of these peers that can be had."""
        redial = Redial(random.random)
        while True:
            nodes = candidates()
            link = next((live for node in nodes if (live := self._links.live(node))), None)
            if link is not None:
                since = trio.current_time()
                await self._hold(link, candidates, redial)
                redial.succeeded(trio.current_time() - since)
            elif nodes:
                wait_s = redial.wait_s(self._spread_s(nodes[0]))
                if not await self._nap(nodes[0], wait_s):
                    await self._try_in_turn(nodes)
            else:
                version = self._look.version
                with trio.move_on_after(POLL_S):
                    await self._look.wait_past(version)

    async def _nap(self, node_id: str, wait_s: float) -> bool:
        """Wait before a dial; True when the peer's own link came meanwhile."""
        head_start_s = HEAD_START_S * (self._node_id > node_id)
        with trio.move_on_after(wait_s + head_start_s) as nap:
            tried = self._addresses().get(node_id)
            self._naps[node_id] = nap, list(tried) if tried else tried
            try:
                await self._links.wait_live(node_id)
            finally:
                self._naps.pop(node_id, None)
            return True
        return False

    async def _hold(
        self, link: Link, candidates: Callable[[], Sequence[str]], redial: Redial
    ) -> None:
        """Wait until a link is lost; let go of it when a better one can be had."""
        while not link.closed:
            with trio.move_on_after(redial.return_s()):
                await link.wait_closed()
                return
            better = list(takewhile(lambda node: node != link.peer, candidates()))
            await self._try_in_turn(better)
            if any(self._links.live(node) for node in better):
                link.close("a peer that is liked better is there again")

    async def _try_in_turn(self, nodes: Sequence[str]) -> None:
        for node in nodes:
            try:
                await self._dialler.connect(node)
            except (RemoteError, Unreachable) as exc:
                self._counters["dials_failed"] += 1
                _LOG.debug("dial failed", peer=node, error=str(exc))
            else:
                return
