"""The tree broadcast of a simulated member, between its store, its register and its links.

It decides nothing: mesh/proto/broadcast.py does. Rules, as of mesh/news.py: a peer's deltas are
taken over in the order in which it sent them; nothing is passed on that is not durable; who
brought a register record does not get it back.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mesh.news import SURPLUS_S
from mesh.proto.broadcast import Broadcast
from mesh.proto.broadcast_ports import (
    DropPeer,
    Effect,
    MergeFrom,
    PullFrom,
    Read,
    SendTo,
    Take,
)
from mesh.proto.broadcast_wire import body_of
from mesh.proto.intake import take
from mesh.proto.serve import serve
from mesh.proto.sets import SetId, SignedHead
from mesh.proto.sync_wire import RECORDS_BYTES, RECORDS_MAX
from mesh.proto.trust import ROLE_HUB
from mesh.store_tx import Tx

if TYPE_CHECKING:
    from tests.sim.fleet_member import FleetMember


class Place:
    """Where a member stands in the topology, as mesh/topology.py says it."""

    def __init__(self, member: "FleetMember") -> None:
        self._member = member

    @property
    def is_gateway(self) -> bool:
        """Tell whether we keep links with other sites."""
        return self._member.overlay.is_gateway

    def wanted(self) -> Collection[str]:
        """Return the peers that we keep links with."""
        return self._member.overlay.wanted

    def gateways(self, site: str) -> list[str]:
        """Return the gateways of a site, first one first."""
        return self._member.overlay.gateways(site)

    def site_of(self, node: str) -> str | None:
        """Return the site of an active member, "" for a hub, None for anybody else."""
        known = self._member.book.member(node)
        if known is None or known.status != "member":
            return None
        return "" if ROLE_HUB in known.roles else known.site or None


class News:
    """The broadcast of one life of a member."""

    def __init__(self, member: "FleetMember") -> None:
        self._member = member
        self._core = Broadcast(member, member.roster, Place(member))  # type: ignore[arg-type]
        self._timer_at: float | None = None
        self._idle: dict[str, int] = {}
        """Links of no use when we last looked, by peer: the link's number."""
        member.timer(self._now() + SURPLUS_S, self._close_surplus)

    def _close_surplus(self) -> None:
        """Close links that we dialled and that nobody wants, as mesh/news.py does."""
        member, before = self._member, self._idle
        member.timer(self._now() + SURPLUS_S, self._close_surplus)
        useless = [end for peer, end in member.mains.items() if self._core.unwanted(peer)]
        self._idle = {end.peer: end.number for end in useless if end.dialled}
        for end in useless:
            if end.dialled and before.get(end.peer) == end.number:
                end.close("no longer wanted")

    def pushed(self, peer: str, set_id: SetId, point: tuple[int, int]) -> bool:
        """Tell whether the tree brings a peer the news of a set."""
        return self._core.takes_part(peer) and self._core.carries(set_id, point)

    def on_link(self, peer: str) -> None:
        """A main link is up."""
        self._perform(self._core.on_link(peer, self._now()))

    def on_link_lost(self, peer: str) -> None:
        """A main link is gone."""
        self._perform(self._core.on_link_lost(peer, self._now()))

    def on_place(self) -> None:
        """The topology has changed."""
        self._perform(self._core.on_place(self._now()))

    def on_frame(self, peer: str, body: Any) -> None:
        """A frame came."""
        self._perform(self._core.on_frame(peer, body, self._now()))

    def on_change(self, changes: Mapping[SetId, SignedHead | None]) -> None:
        """Something was committed here."""
        self._perform(self._core.on_change(changes, self._now()))

    def on_records(self, records: Sequence[bytes], origin: str) -> set[str]:
        """Records have changed our register; return the peers that have them or get them."""
        if len(records) > RECORDS_MAX or sum(map(len, records)) > RECORDS_BYTES:
            return set()
        effects = self._core.on_records(records, origin, self._now())
        told = {effect.peer for effect in effects if isinstance(effect, SendTo)}
        self._perform(effects)
        return {origin, *told}

    def _now(self) -> float:
        return self._member.fleet.now

    def _perform(self, effects: Sequence[Effect]) -> None:
        member = self._member
        for effect in effects:
            match effect:
                case SendTo(peer, message):
                    end = member.mains.get(peer)
                    if end is not None:
                        end.post("broadcast", body_of(message))
                case Take():
                    self._take(effect)
                case Read():
                    member._when_flushed(lambda e=effect: self._read(e))  # type: ignore[misc]
                case PullFrom(peer, heads):
                    link = member.links.get(peer)
                    if link is not None:
                        told = link.session.on_told(heads, self._now())
                        member.perform(peer, link, told)
                case MergeFrom(peer, records):
                    member.merge(records, origin=peer)
                case DropPeer(peer, reason):
                    member.dropped(peer, reason)
        at = self._core.deadline
        if at is not None and (self._timer_at is None or at < self._timer_at):
            self._timer_at = at
            member.timer(at, self._on_timer, at)

    def _on_timer(self, at: float) -> None:
        if self._timer_at == at:
            self._timer_at = None
            self._perform(self._core.on_timer(self._now()))

    def _take(self, effect: Take) -> None:
        member, deltas = self._member, effect.deltas

        def work(tx: Tx) -> Any:
            roster = member.roster
            return [take(member.replica, d, roster, tx.now_ms, effect.peer) for d in deltas]

        def done(outcomes: Any) -> None:
            self._perform(self._core.on_taken(effect.peer, deltas, outcomes, self._now()))

        member.submit(work, done)

    def _read(self, effect: Read) -> None:
        member = self._member
        asking = effect.peer or member.author
        parts = serve(member.disk, effect.wants, member.roster, asking)
        self._perform(self._core.on_read(effect.peer, parts, self._now()))
