"""Whom a simulated member dials, when, and where: the rules of mesh/link/keeper.py.

It knows no handshake; which way of a peer starts when is mesh/proto/race.py's. Rules: full-
jitter back-off per peer, the higher node id waits a little longer, a node keeps a link to one
hub in its own order and goes to the next when that is lost; the first session to a peer wins.
"""

from typing import TYPE_CHECKING, Final

from mesh.link.keeper import HEAD_START_S
from mesh.proto.crossing import Redial
from mesh.proto.race import Begin, Effect, Race
from mesh.proto.rendezvous import ranked
from tests.sim.fleet_link import LinkEnd
from tests.sim.fleet_net import Wire

if TYPE_CHECKING:
    from tests.sim.fleet_member import FleetMember

HUB: Final = "a hub"
Way = tuple[str, str]
"""(address, "") or (member, relay)."""


class _Slot:
    """A link that is to be kept up, to one of its candidates."""

    __slots__ = ("planned", "redial", "turn")

    def __init__(self, redial: Redial) -> None:
        self.redial = redial
        self.planned = False
        self.turn = 0  # which candidate is being tried


class _Try:
    """One race over the ways of one peer."""

    def __init__(self, dialling: "Dialling", name: str, slot: _Slot, peer: str) -> None:
        self.dialling, self.name, self.slot, self.peer = dialling, name, slot, peer
        self.member = dialling.member
        direct, late = self.member.ways(peer)
        self.ways = [*direct, *late]
        self.ends: dict[LinkEnd, int] = {}
        self.over = False
        self.core = Race(len(direct), len(late))

    def start(self) -> None:
        self.perform(self.core.start(self.member.clock.now))

    def perform(self, effects: list[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Begin):
                self._begin(effect.way)
            else:
                self.finish(won=False)
        if self.core.deadline is not None and not self.over:
            self.member.timer(self.core.deadline, self._on_timer, self.core.deadline)

    def _on_timer(self, at: float) -> None:
        if not self.over and self.core.deadline == at:
            self.perform(self.core.on_timer(self.member.clock.now))

    def _begin(self, way: int) -> None:
        member, life = self.member, self.member.life
        address, via = self.ways[way]

        def connected(wire: Wire | None, refused: bool) -> None:
            if life != member.life or not member.up or self.over:
                if wire is not None:
                    wire.close()
                return
            if wire is None:
                if refused:
                    member.on_refused(self.peer)
                self._failed(way)
                return
            end = member.new_end(wire, self.peer, address)
            self.ends[end] = way
            self.dialling.trying[end] = self
            end.start()

        member.net.dial(member.name, address, connected, via)

    def _failed(self, way: int) -> None:
        if not self.over:
            self.perform(self.core.on_failed(way, self.member.clock.now))

    def lost(self, end: LinkEnd) -> None:
        """One of our sessions did not come up."""
        way = self.ends.pop(end)
        self._failed(way)

    def finish(self, *, won: bool) -> None:
        """A session is there, or nobody answered."""
        if self.over:
            return
        self.over = True
        for end in list(self.ends):
            self.dialling.trying.pop(end, None)
            if not end.ready:
                end.end("another way was faster")
        self.dialling.finished(self, won)


class Dialling:
    """The dialling of one member during one life."""

    def __init__(self, member: "FleetMember") -> None:
        self.member = member
        self.trying: dict[LinkEnd, _Try] = {}
        self._slots: dict[str, _Slot] = {}

    def look(self) -> None:
        """Links, register or wishes have changed: dial what is missing."""
        wanted = self._wanted()
        for name in [name for name in self._slots if name not in wanted]:
            del self._slots[name]
        for name in wanted:
            slot = self._slots.get(name)
            if slot is None:
                slot = self._slots[name] = _Slot(Redial(self.member.clock.rng.random))
            self._plan(name, slot)

    def _wanted(self) -> dict[str, None]:
        member = self.member
        peers = dict.fromkeys(p for p in sorted(member.wanted()) if member.book.active(p))
        return peers if member.is_hub else {HUB: None, **peers}

    def _candidates(self, name: str) -> list[str]:
        if name != HUB:
            return [name]
        hubs = [hub.node_id for hub in self.member.book.hubs()]
        return ranked(hubs, self.member.author)

    def _plan(self, name: str, slot: _Slot) -> None:
        candidates = self._candidates(name)
        if slot.planned or not candidates:
            return
        if any(peer in self.member.mains for peer in candidates):
            return
        slot.planned = True
        member = self.member
        wait_s = slot.redial.wait_s() + HEAD_START_S * (member.author > candidates[0])
        member.timer(member.clock.now + wait_s, self._due, name, slot)

    def _due(self, name: str, slot: _Slot) -> None:
        if self._slots.get(name) is slot:
            slot.turn = 0
            self._try(name, slot)

    def _try(self, name: str, slot: _Slot) -> None:
        """Dial the candidate whose turn it is, or begin anew later."""
        candidates = self._candidates(name)
        while slot.turn < len(candidates):
            if any(peer in self.member.mains for peer in candidates):
                break
            attempt = _Try(self, name, slot, candidates[slot.turn])
            slot.turn += 1
            if attempt.ways:
                attempt.start()
                return
        slot.planned = False
        self._plan(name, slot)

    def finished(self, attempt: _Try, won: bool) -> None:
        """A race is over."""
        name, slot = attempt.name, attempt.slot
        if self._slots.get(name) is not slot:
            return
        if won:
            slot.planned = False
        else:
            self._try(name, slot)

    def on_ready(self, end: LinkEnd) -> None:
        """A link is up, whoever dialled it."""
        attempt = self.trying.pop(end, None)
        if attempt is not None:
            attempt.finish(won=True)

    def on_end(self, end: LinkEnd) -> None:
        """A link is over, or never came up."""
        attempt = self.trying.pop(end, None)
        if attempt is not None:
            attempt.lost(end)
            return
        lived_s = self.member.clock.now - end.since
        for name in (end.peer, HUB):
            slot = self._slots.get(name)
            if slot is not None and end.ready and end.peer in self._candidates(name):
                slot.redial.succeeded(lived_s)
        self.look()
