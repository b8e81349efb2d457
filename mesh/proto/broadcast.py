"""News of the sets that everybody carries, through a tree over the links (after Plumtree).

A core, one a member, shared by its links; it knows no socket and no disk. Rules: what is new is
pushed at once on *eager* links, after it is durable here, and only told of on *lazy* ones; who
gets what it has already prunes that link (``tree_links.py``); who was told of something that
does not come grafts (``awaited.py``). Whatever this misses, comparing digests (``sync.py``)
finds. What came by a pull is not pushed: it is announced and pulled on, in bulk.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from mesh.errors import CodecError
from mesh.proto.awaited import GRAFT_NEAR_S, GRAFT_S, SECOND_S, Awaited
from mesh.proto.broadcast_ports import (
    DropPeer,
    Effect,
    MergeFrom,
    Place,
    PullFrom,
    Read,
    SendTo,
    Take,
)
from mesh.proto.broadcast_wire import (
    PUSHED_BYTES,
    TOLD_MAX,
    Graft,
    Have,
    Here,
    Message,
    News,
    Prune,
    Push,
    parse,
)
from mesh.proto.flat_digest import known_of
from mesh.proto.intake import HOSTILE, Delta, Outcome, Roster
from mesh.proto.serve import HEAD_OVERHEAD_BYTES, size_of, visible_to
from mesh.proto.sets import SetId, SignedHead
from mesh.proto.sync_ports import GARBAGE_MAX, STRIKES_MAX, View
from mesh.proto.sync_wire import Known, Want
from mesh.proto.tables import FLEET
from mesh.proto.tree import EMPTY
from mesh.proto.tree_links import TreeLink, TreeLinks

SPACING_S: Final = 0.1
"""Our own news of one set go out at most so often; later rows go with them."""
RELAY_SPACING_S: Final = 0.05
"""The same for news that we pass on; below ``SPACING_S``, so that nobody's pace is broken."""
TELL_S: Final = 0.05
"""What lazy links are told is gathered so long."""
TELL_NEAR_S: Final = 0.02
"""The same in our own site."""
RECENT_MAX: Final = 512
"""Sets of which the last news are kept at hand for grafts."""
TOLD_LATER: Final = 4096
"""Sets that one lazy link waits to be told of."""
INCOMING_MAX: Final = 4096


@dataclass(slots=True)
class _Recent:
    """The last news of a set."""

    delta: Delta
    sent_s: float
    holders: set[str]


class Broadcast:
    """See the module."""

    def __init__(self, view: View, roster: Roster, place: Place) -> None:
        self.counters: Counter[str] = Counter()
        self._view, self._roster, self._place = view, roster, place
        self._links = TreeLinks(view.author, place)
        self._me = view.author
        self._recent: dict[SetId, _Recent] = {}
        self._incoming: dict[SetId, SignedHead] = {}
        self._awaited = Awaited()
        self._late: dict[SetId, float] = {}
        self._sent = {
            set_id: signed.head.point
            for set_id, signed in view.heads.items()
            if set_id.author == self._me
        }
        self._tell_at: float | None = None
        self._late_at: float | None = None

    # -- for the sessions ------------------------------------------------------------------

    def takes_part(self, peer: str) -> bool:
        """Tell whether a peer gets news this way."""
        return self._links.here(peer)

    def unwanted(self, peer: str) -> bool:
        """Tell whether neither side wants the link to a peer of another site."""
        return peer in self._links.all and self._links.unwanted(peer)

    def carries(self, set_id: SetId, point: tuple[int, int]) -> bool:
        """Tell whether news of a set up to a point go this way: nobody announces them."""
        if set_id.scope != FLEET:
            return False
        if set_id.author == self._me:
            return True
        coming, recent = self._incoming.get(set_id), self._recent.get(set_id)
        return (
            set_id in self._late
            or (coming is not None and coming.head.point >= point)
            or (recent is not None and recent.delta.signed.head.point >= point)
        )

    @property
    def deadline(self) -> float | None:
        """When ``on_timer`` wants to be called."""
        waits = (self._tell_at, self._awaited.deadline, self._late_at)
        return min((at for at in waits if at is not None), default=None)

    # -- links -----------------------------------------------------------------------------

    def on_link(self, peer: str, now: float) -> list[Effect]:
        """A link is up; whether it takes part its first frame says."""
        self._links.all[peer] = TreeLink()
        return self.on_place(now)

    def on_link_lost(self, peer: str, now: float) -> list[Effect]:
        """A link is gone."""
        self._links.all.pop(peer, None)
        return self.on_place(now)

    def on_place(self, now: float) -> list[Effect]:
        """The links or the topology have changed: see which link is what."""
        del now
        return [SendTo(name, Here(tree)) for name, tree in self._links.look()]

    # -- what happens here -----------------------------------------------------------------

    def on_change(self, changed: Mapping[SetId, SignedHead | None], now: float) -> list[Effect]:
        """Something was committed here; our own sets go out, pulled ones are not ours."""
        effects: list[Effect] = []
        for set_id, signed in changed.items():
            if signed is None or set_id.scope != FLEET or set_id.author != self._me:
                continue
            recent = self._recent.get(set_id)
            if recent is None or recent.sent_s + SPACING_S <= now:
                effects.append(self._read_own(set_id))
            else:
                self._delay(set_id, recent.sent_s + SPACING_S)
        return effects

    def _read_own(self, set_id: SetId) -> Read:
        return Read("", (Want(set_id, *self._sent.get(set_id, (0, 0))),))

    def on_records(self, records: Sequence[bytes], origin: str, now: float) -> list[Effect]:
        """Records have changed our register: tell everybody but where they came from."""
        del now
        news = News(tuple(records))
        names = [name for name, link in self._links.all.items() if link.here and name != origin]
        self.counters["records out"] += len(records) * len(names)
        return [SendTo(name, news) for name in names]

    def on_timer(self, now: float) -> list[Effect]:
        """Do what is due."""
        effects: list[Effect] = []
        if self._late_at is not None and self._late_at <= now:
            effects += self._send_late(now)
        if self._tell_at is not None and self._tell_at <= now:
            effects += self._tell(now)
        if self._awaited.deadline is not None and self._awaited.deadline <= now:
            effects += self._graft(now)
        return effects

    # -- what comes in ---------------------------------------------------------------------

    def on_frame(self, name: str, body: object, now: float) -> list[Effect]:
        """Take one ``broadcast`` frame, whatever it is."""
        link = self._links.all.get(name)
        if link is None:
            return []
        try:
            message = parse(body)
        except CodecError:
            link.garbage += 1
            self.counters["garbage"] += 1
            if link.garbage >= GARBAGE_MAX:
                return [DropPeer(name, "too many frames that are no messages")]
            return []
        return self.on_message(name, message, now)

    def on_message(self, name: str, message: Message, now: float) -> list[Effect]:
        """Take one message."""
        link = self._links.all.get(name)
        if link is None:
            return []
        if not self._roster.active(self._me) or not self._roster.active(name):
            self.counters["not a member"] += 1
            return []
        match message:
            case Push(parts):
                return self._on_push(name, parts, now)
            case Have(heads, pull):
                return self._on_have(name, heads, pull, now)
            case Graft(wants, keep):
                if keep:
                    self._links.graft(name)
                return self._on_graft(name, link, wants)
            case Prune():
                self._links.prune(name)
                self.counters["pruned"] += 1
                return []
            case Here(tree):
                link.here, link.wants_tree = True, tree
                return self.on_place(now)
            case News(records):
                return [MergeFrom(name, records)]

    def _on_push(self, name: str, parts: tuple[Delta, ...], now: float) -> list[Effect]:
        fresh: list[Delta] = []
        pulls: list[Known] = []
        again = 0
        for part in parts:
            set_id, signed = part.id, part.signed
            if set_id.scope != FLEET or not part.final:
                self.counters["not for pushing"] += 1
                continue
            held, coming = self._view.heads.get(set_id), self._incoming.get(set_id)
            self.counters["parts in"] += 1
            if set_id.author == self._me:  # somebody knows more of us than we do, or an echo
                if held is None or not held.head.covers(signed.head.point):
                    pulls.append(known_of(signed))
            elif (coming is not None and coming.body == signed.body) or (
                held is not None and held.head.point >= signed.head.point
            ):
                self._hold(set_id, signed.head.point, name)
                asked = self._awaited.refuted(set_id, signed.head.point, name)
                if asked:
                    self._links.was_late(asked, name)
                again += 1
            elif len(self._incoming) < INCOMING_MAX:
                self._incoming[set_id] = signed
                fresh.append(part)
        effects: list[Effect] = []
        if fresh:
            self._links.fed(len(fresh), now)
            effects.append(Take(name, tuple(fresh)))
        if pulls:
            effects.append(PullFrom(name, tuple(pulls)))
        return effects + self._again(name, again, now)

    def _again(self, name: str, count: int, now: float) -> list[Effect]:
        """Count duplicates of a link, and prune it when it is one too many."""
        self.counters["duplicates"] += count
        if not self._links.duplicate(name, count, now):
            return []
        self.counters["prunes"] += 1
        return [SendTo(name, Prune())]

    def on_taken(
        self, name: str, deltas: Sequence[Delta], outcomes: Sequence[Outcome], now: float
    ) -> list[Effect]:
        """The shell has taken over (or refused) the deltas of a Take."""
        good: list[Delta] = []
        pulls: list[Known] = []
        effects: list[Effect] = []
        link = self._links.all.get(name)
        for delta, outcome in zip(deltas, outcomes, strict=True):
            self._let_go(delta)
            self.counters[str(outcome)] += 1
            if outcome is Outcome.APPLIED:
                good.append(delta)
            elif outcome is Outcome.STALE and link is not None:
                effects += self._again(name, 1, now)
            elif outcome in HOSTILE and (outcome is not Outcome.ROOT or delta.since == 0):
                if link is not None:
                    link.strikes += 1
                    if link.strikes == STRIKES_MAX:
                        effects.append(DropPeer(name, "too many deltas that do not hold"))
            else:
                pulls.append(known_of(delta.signed))
        if pulls and link is not None:
            effects.append(PullFrom(name, tuple(pulls)))
        return effects + self._spread(good, name, now)

    def on_take_failed(self, deltas: Sequence[Delta]) -> None:
        """The shell could not take the deltas over (disk full); digests find them later."""
        for delta in deltas:
            self._let_go(delta)

    def _let_go(self, delta: Delta) -> None:
        if self._incoming.get(delta.id) is delta.signed:
            del self._incoming[delta.id]

    # -- passing on ------------------------------------------------------------------------

    def _spread(self, deltas: Iterable[Delta], origin: str, now: float) -> list[Effect]:
        """Push what is new on eager links at once, have lazy ones told; or do it later."""
        due: list[Delta] = []
        for delta in deltas:
            recent = self._recent.pop(delta.id, None)
            spaced = origin == "" or recent is None or recent.sent_s + RELAY_SPACING_S <= now
            if spaced or recent is None:
                self._recent[delta.id] = _Recent(delta, now, {origin})
                due.append(delta)
            else:  # its author is too quick: the newest rows go together
                self._recent[delta.id] = _Recent(recent.delta, recent.sent_s, {origin})
                self._delay(delta.id, recent.sent_s + RELAY_SPACING_S)
        while len(self._recent) > RECENT_MAX:
            del self._recent[next(iter(self._recent))]
        return self._push(due, origin, now) if due else []

    def _push(self, deltas: Sequence[Delta], origin: str, now: float) -> list[Effect]:
        effects: list[Effect] = []
        together: Push | None = None
        for name, link in self._links.all.items():
            if link.role == "silent" or name == origin:
                continue
            if not link.eager:
                self._will_tell(link, deltas, now)
                continue
            if len(deltas) > 1:
                parts = [d for d in deltas if name not in self._recent[d.id].holders]
                if parts:
                    effects.append(SendTo(name, Push(tuple(parts))))
            elif name not in self._recent[deltas[0].id].holders:
                together = together or Push(tuple(deltas))
                effects.append(SendTo(name, together))
        self.counters["pushes"] += len(effects)
        return effects

    def _will_tell(self, link: TreeLink, deltas: Sequence[Delta], now: float) -> None:
        """Note what a lazy link is told next; a plain member speaks of its own sets only."""
        own_only = link.role == "aside" and not self._place.is_gateway
        for delta in deltas:
            if (not own_only or delta.id.author == self._me) and len(link.told) < TOLD_LATER:
                link.told[delta.id] = delta.signed.head.point
        if link.told and link.tell_at is None:
            link.tell_at = now + (TELL_NEAR_S if link.role == "aside" else TELL_S)
            if self._tell_at is None or link.tell_at < self._tell_at:
                self._tell_at = link.tell_at

    def _tell(self, now: float) -> list[Effect]:
        self._tell_at = None
        effects: list[Effect] = []
        for name, link in self._links.all.items():
            if link.tell_at is None:
                continue
            if link.tell_at > now:
                self._tell_at = min(self._tell_at or link.tell_at, link.tell_at)
                continue
            heads: list[Known] = []
            for set_id, point in link.told.items():
                recent = self._recent.get(set_id)
                if recent is None or name not in recent.holders:
                    heads.append(Known(set_id, *point, EMPTY))
            link.told.clear()
            link.tell_at = None
            for at in range(0, len(heads), TOLD_MAX):
                some = tuple(heads[at : at + TOLD_MAX])
                effects.append(SendTo(name, Have(some, pull=False)))
        self.counters["tells"] += len(effects)
        return effects

    def _delay(self, set_id: SetId, at: float) -> None:
        self._late.setdefault(set_id, at)
        self._late_at = min(self._late.values())

    def _send_late(self, now: float) -> list[Effect]:
        """Read what has gathered since the last push of a set."""
        wants: list[Want] = []
        for set_id, at in list(self._late.items()):
            if at <= now:
                del self._late[set_id]
                recent = self._recent.get(set_id)
                if set_id.author == self._me:
                    wants.append(Want(set_id, *self._sent.get(set_id, (0, 0))))
                elif recent is not None:
                    wants.append(Want(set_id, *recent.delta.signed.head.point))
        self._late_at = min(self._late.values(), default=None)
        return [Read("", (want,)) for want in wants]

    def on_read(self, name: str, parts: Sequence[Delta], now: float) -> list[Effect]:
        """The shell has read the deltas of a Read."""
        small = [part for part in parts if part.final and _bytes(part) <= PUSHED_BYTES]
        large = tuple(known_of(part.signed) for part in parts if part not in small)
        if name:
            return self._on_read_for(name, small, large)
        for part in parts:
            if part.id.author == self._me:
                if self._sent.get(part.id, (0, 0)) >= part.signed.head.point:
                    small = [other for other in small if other is not part]
                self._sent[part.id] = part.signed.head.point
        effects = self._spread(small, "", now)
        if large:
            told = Have(large, pull=True)
            open_peers = [n for n, link in self._links.all.items() if link.role != "silent"]
            effects += [SendTo(n, told) for n in open_peers]
        return effects

    # -- lazy links ------------------------------------------------------------------------

    def _on_have(
        self, name: str, heads: tuple[Known, ...], pull: bool, now: float
    ) -> list[Effect]:
        pulls: list[Known] = []
        near = self._links.all[name].role in ("star", "aside")
        for known in heads:
            set_id = known.id
            if set_id.scope != FLEET:
                self.counters["not for pushing"] += 1
                continue
            held = self._view.heads.get(set_id)
            if held is not None and held.head.point >= known.point:
                self._hold(set_id, known.point, name)
            elif pull or set_id.author == self._me:
                pulls.append(known)
            else:
                self._awaited.add(name, known, now + self._patience_s(near, now))
        return [PullFrom(name, tuple(pulls))] if pulls else []

    def _patience_s(self, near: bool, now: float) -> float:
        if near:
            return GRAFT_NEAR_S
        return GRAFT_S + (SECOND_S if self._links.asks_second(now) else 0.0)

    def _hold(self, set_id: SetId, point: tuple[int, int], name: str) -> None:
        """Remember that a link has what we would push."""
        recent = self._recent.get(set_id)
        if recent is not None and recent.delta.signed.head.point <= point:
            recent.holders.add(name)

    def _graft(self, now: float) -> list[Effect]:
        """Ask for what has not come."""
        asks = self._awaited.due(self._view.heads, self._incoming, self._links.here, now)
        effects: list[Effect] = []
        for name, wants in asks.items():
            keep = self._links.asks(name, now)
            self.counters["grafts"] += 1
            for at in range(0, len(wants), TOLD_MAX):
                some = tuple(wants[at : at + TOLD_MAX])
                effects.append(SendTo(name, Graft(some, keep)))
        return effects

    def _on_graft(self, name: str, link: TreeLink, wants: tuple[Want, ...]) -> list[Effect]:
        allowed = [
            want
            for want in wants
            if want.id.scope == FLEET and visible_to(self._roster, name, want.id)
        ]
        self.counters["not for pushing"] += len(wants) - len(allowed)
        at_hand: list[Delta] = []
        for want in list(allowed):
            recent, held = self._recent.get(want.id), self._view.heads.get(want.id)
            if recent is None or held is None or recent.delta.signed.body != held.body:
                continue
            delta = recent.delta
            same = delta.signed.head.epoch == want.epoch and delta.since <= want.since
            if same or delta.since == 0:
                at_hand.append(delta)
                allowed.remove(want)
        effects: list[Effect] = []
        if at_hand:
            effects.append(SendTo(name, Push(tuple(at_hand))))
        if allowed and link.serving:
            self.counters["busy"] += 1
        elif allowed:
            link.serving = True
            effects.append(Read(name, tuple(allowed)))
        return effects

    def _on_read_for(
        self, name: str, small: Sequence[Delta], large: tuple[Known, ...]
    ) -> list[Effect]:
        link = self._links.all.get(name)
        if link is None:
            return []
        link.serving = False
        effects: list[Effect] = []
        if small:
            effects.append(SendTo(name, Push(tuple(small))))
        if large:
            effects.append(SendTo(name, Have(large[:TOLD_MAX], pull=True)))
        return effects


def _bytes(delta: Delta) -> int:
    return HEAD_OVERHEAD_BYTES + sum(map(size_of, delta.entries))
