"""The failure detector of a simulated member, between its links and its datagrams.

It decides nothing: mesh/proto/detector.py does. Rule, as of mesh/detection.py: a datagram needs
keys, so it goes only where a main link is.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from mesh.proto.detector import Detector
from mesh.proto.detector_effects import Changed, Effect

if TYPE_CHECKING:
    from tests.sim.fleet_member import FleetMember

TICK_S: Final = 1e-6
"""Real time never stands still between two timers."""


class Senses:
    """The detector of one life of a member."""

    def __init__(self, member: "FleetMember") -> None:
        self._member = member
        key, chance = member.plan.site.encode(), member.fleet.rng.random
        self._core = Detector(member.author, key, chance)
        self._timer_at: float | None = None
        self._perform(self._core.start(member.fleet.now))

    @property
    def unreachable(self) -> list[str]:
        """Return who is given up."""
        return list(self._core.unreachable)

    def on_members(self, members: Sequence[str]) -> None:
        """The register says who belongs to the site."""
        self._perform(self._core.set_members(members, self._now()))

    def on_link_up(self, peer: str) -> None:
        """A main link is up."""
        self._perform(self._core.on_link_up(peer, self._now()))

    def on_frame(self, peer: str, body: Any) -> None:
        """Something came over the link."""
        self._perform(self._core.on_frame(peer, body, self._now()))

    def on_refused(self, peer: str) -> None:
        """Nobody listens where a member did."""
        self._perform(self._core.on_refused(peer, self._now()))

    def on_datagram(self, source: str, data: bytes) -> None:
        """A datagram came."""
        effects = self._core.on_datagram(source, data, self._now())
        at, due = self._timer_at, self._core.deadline
        if effects or at is None or (due is not None and due < at):
            self._perform(effects)

    def _now(self) -> float:
        return self._member.fleet.now

    def _perform(self, effects: Sequence[Effect]) -> None:
        member, core = self._member, self._core
        for effect in effects:
            if isinstance(effect, Changed):
                member.on_absent(self.unreachable, effect.down)
                continue
            linked = [peer for peer in effect.peers if peer in member.mains]
            if effect.way != "link":
                member.net.to_all(member.name, linked, effect.data)
            if effect.way != "cheap":
                for peer in linked:
                    end = member.mains.get(peer)
                    if end is not None:
                        end.post("detect", effect.data)
        at = core.deadline
        if at is not None and (self._timer_at is None or at < self._timer_at):
            self._timer_at = max(at, self._now() + TICK_S)
            member.timer(self._timer_at, self._on_timer, self._timer_at)

    def _on_timer(self, at: float) -> None:
        if self._timer_at != at:
            return
        self._timer_at = None
        due = self._core.deadline
        late = due is not None and due > self._now()
        self._perform([] if late else self._core.on_timer(self._now()))
