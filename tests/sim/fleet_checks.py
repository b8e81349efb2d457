"""What must hold in a whole fleet; the checks of the replicated state are checks.py's.

They look at correct members only: what a rogue, a clone or a revoked member holds is its own
affair. Where each invariant of the mesh is checked, and what shows that the check can fail:

 1 head equality          Checks.on_commit       test_history: rows dropped silently
 2 prefix                 Checks.on_commit       test_history: rows dropped silently
 3 single author          on_commit, intake      test_intake; test_fleet: hostile peer dropped
 4 no resurrection        at_rest                test_history: a roster that forgets authors
 5 no lost write          at_rest                test_history: a disk that lies about flushes
 6 no equivocation        Checks.on_commit       test_history: a disk that lies about flushes
 7 order-independence     test_model             test_model: markers dropped early
 8 monotone               on_commit, on_register test_fleet: a register that goes back
 9 bound of stored rows   Checks.on_commit       test_history: at rest little more is stored
10 revoked keys           on_link, on_commit     test_fleet: lets the revoked in; test_datagram
11 signed membership      on_register            test_fleet: a register that believes anybody
12 work has one runner    tests/unit/work, tests/e2e/test_one_at_a_time (not simulated here)
13 scope                  Checks.on_commit       test_history: a roster that leaks scopes
14 unknown fields         rejoin (news), roots   test_fleet: rejoin without the news
15 bounded resources      sample                 test_fleet: queues that grow
16 convergence            Fleet.wait(equal)      test_fleet: members that dial nobody
17 rejoin                 rejoin_scenario        test_fleet: no fall back to XX
18 bytes of catching up   scripts/bench/catchup  the same
19 failure detection      on_verdict             test_fleet: observers in a hurry; detection
20 health of the tree     propagation, blackout  the same
21 no hub for 14 days     darkhub_scenario       test_fleet: sites without keys of their own
22 no storm               storm_scenario         test_fleet: a handshake that costs seconds
23 same seed, same trace  test_fleet             test_fleet: two seeds have two traces
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from mesh.proto.merge import is_merged, winner
from mesh.proto.register import HUB, KEY, ROSTER, TRUST
from mesh.proto.sets import SetId, SignedHead
from mesh.proto.sign import split_record
from mesh.proto.trust import REVOKED
from tests.sim.checks import Checks, Place

if TYPE_CHECKING:
    from tests.sim.fleet import Fleet
    from tests.sim.fleet_member import FleetMember
    from tests.sim.member import SimMember

SILENT_S: Final = 10.0
"""A member that was up, with a running loop, for so long was surely sending."""
MESSAGES_HELD_MAX: Final = 4096
"""Frames that wait on all links of a member together."""


class FleetChecks(Checks):
    """Watches one fleet."""

    def __init__(self, fleet: "Fleet") -> None:
        super().__init__(fleet)  # type: ignore[arg-type]
        self._fleet = fleet
        self._published: set[bytes] = set()
        self._books: dict[str, dict[tuple[str, str], tuple[int, int]]] = {}
        self._cloned: dict[str, None] = {}
        self._ended: dict[str, dict[str, tuple[int, int, bytes]]] = {}

    def wrote(
        self, author: str, scope: str, table: str, key: str, value: Any, hlc: int
    ) -> None:
        """A write was acknowledged; one of a member that is out promises nothing."""
        if self._correct(author) and author not in self._cloned:
            super().wrote(author, scope, table, key, value, hlc)

    # -- what happens ------------------------------------------------------------------------

    def on_published(self, records: Iterable[bytes]) -> None:
        """Somebody who may do so has signed these."""
        self._published.update(split_record(record).wire() for record in records)

    def on_rogue(self, member: "FleetMember") -> None:
        """What a member has written counts no longer: it may take everything back."""
        self._forget(member.author)

    def on_ended(
        self, member: "FleetMember", heads: Mapping[str, tuple[int, int, bytes]]
    ) -> None:
        """A member is revoked: what it wrote after its last accepted heads may be anywhere."""
        self._ended[member.author] = dict(heads)
        for place, truth in list(self.truth.items()):
            if truth.author != member.author:
                continue
            scope, table, _, key = place
            last = heads.get(scope)
            entry = member.disk.entry(SetId(member.author, scope), table, key)
            if not is_merged(table):
                del self.truth[place]
            elif last is None or entry is None or entry.seq > last[1]:
                self.tainted[place] = None

    def on_clone(self, member: "FleetMember") -> None:
        """A member runs twice: it signs two heads for one point, and any of them may stay."""
        self._cloned[member.author] = None
        self._forget(member.author)

    def noticed(self, author: str) -> int:
        """Return how often correct members saw that an author signs what it has not."""
        count = 0
        for member in self._fleet.members.values():
            sessions = [link.session.counters for link in member.links.values()]
            found = sum((Counter(one) for one in sessions), Counter(member.counters))
            names = ("taken back",) if member.author == author else ("fork", "forks", "untaken")
            count += sum(found[name] for name in names)
        return count

    def _forget(self, author: str) -> None:
        for place, truth in list(self.truth.items()):
            if truth.author == author:
                self.tainted[place] = None

    def on_restored_register(self, member: "FleetMember") -> None:
        """A member's register goes back with its disk."""
        self._books.pop(member.author, None)

    # -- while it runs -----------------------------------------------------------------------

    def _correct(self, name: str) -> bool:
        return name not in self._fleet.rogues and self._fleet.register.active(name)

    def on_commit(
        self, member: "SimMember", changes: Mapping[SetId, SignedHead | None]
    ) -> None:
        """Check every set that a commit of a correct member changed (1, 2, 3, 6, 8, 9, 13)."""
        if not self._correct(member.author) or member.author in self._cloned:
            return
        doubtful = {*self._fleet.rogues, *self._cloned}
        sound = {s: head for s, head in changes.items() if s.author not in doubtful}
        super().on_commit(member, sound)
        book = member.book  # type: ignore[attr-defined]
        for set_id, signed in changes.items():
            if signed is None or book.active(set_id.author):
                continue
            known = book.member(set_id.author)
            last = known.heads.get(set_id.scope) if known else None
            self._fleet.expect(
                last is not None and signed.head.point <= last[:2],
                f"{member.author} takes rows of {set_id}, which it knows to be revoked",
            )

    def on_register(self, member: "FleetMember") -> None:
        """Check a register that has changed (8, 11)."""
        if not self._correct(member.author) or member.author in self._cloned:
            return
        before = self._books.setdefault(member.author, {})
        book, expect, label = member.book, self._fleet.expect, member.plan.label
        trust = book.trust.version if book.trust else 0
        now = {(TRUST, ""): (trust, 0)}
        for one in book.members():
            revoked = one.status == REVOKED
            now[ROSTER, one.node_id] = (10**9 * revoked + one.trust_version, one.version)
            now[KEY, one.node_id] = (0, one.kem_epoch)
            wire = book.record(ROSTER, one.node_id)
            expect(wire in self._published, f"{label} believes a record that nobody signed")
        for place, version in now.items():
            old = before.get(place, (0, 0))
            expect(version >= old, f"{label} goes back from {old} to {version} of {place}")
        before.update(now)
        for kind, subject in ((TRUST, ""), *((HUB, hub.node_id) for hub in book.hubs())):
            wire = book.record(kind, subject)
            expect(wire in self._published, f"{label} believes a {kind} record of nobody")

    def on_link(self, member: "FleetMember", peer: str) -> None:
        """Check that nobody who is known to be out has a link (10)."""
        known = member.book.member(peer)
        self._fleet.expect(
            known is not None and known.status == "member",
            f"{member.plan.label} has a link with {peer}, which is no member",
        )

    def on_verdict(self, member: "FleetMember", down: tuple[str, ...]) -> None:
        """Check that nobody who was sending is given up (19)."""
        fleet = self._fleet
        for name in down:
            self.counters["verdicts"] += 1
            subject = fleet.members[name]
            fair = fleet.net.is_open(name, member.author) and name in member.mains
            sending = subject.up and fleet.now - subject.silent_until > SILENT_S
            honest = all(map(self._correct, (member.author, name)))
            honest = honest and not {member.author, name} & self._cloned.keys()
            honest = honest and not subject.old  # without a detector it sends no heartbeats
            fleet.expect(
                not (sending and fair and honest),
                f"{member.plan.label} gives up {subject.plan.label}, which was sending",
            )

    def sample(self) -> None:
        """Check what may pile up at a member (15)."""
        for member in self._fleet.active():
            held = sum(end.waiting() for end in member.mains.values())
            held += len(member.queue)
            self._fleet.expect(
                held <= MESSAGES_HELD_MAX, f"{member.plan.label} holds {held} frames"
            )
            few = len(member.ends) <= 4 * len(self._fleet.members)
            self._fleet.expect(few, f"{member.plan.label} has {len(member.ends)} connections")

    # -- at rest -----------------------------------------------------------------------------

    def at_rest(self) -> dict[str, Any]:
        """Compare every correct member with the truth (4, 5, 14); return figures."""
        fleet = self._fleet
        doubtful = {*fleet.rogues, *self._cloned}
        lost = resurrected = 0
        for place, truth in self.truth.items():
            if place in self.tainted:
                self.counters["tainted"] += 1
                continue
            for member in fleet.active():
                if not fleet.register.carries(member.author, place[0]):
                    continue
                wrong = self._shown(member, place) != truth.value
                if wrong and self._shown_author(member, place) in doubtful:
                    continue  # what a clone or a rogue wrote last is not known here
                if wrong:
                    fleet.note("wrong", member.plan.label, place, truth.value)
                    self.wrong = (member.plan.label, place, self._shown(member, place), truth)
                lost += wrong and truth.value is not None
                resurrected += wrong and truth.value is None
        return {"lost": lost, "resurrected": resurrected, "places": len(self.truth)}

    def _shown_author(self, member: "FleetMember", place: Place) -> str:
        scope, table, _, key = place
        found = winner(member.disk.keyed(scope, table, key))
        return found[0] if found is not None and is_merged(table) else ""

    wrong: tuple[Any, ...] = ()
    """One place that is not what it should be, for whoever looks for the reason."""
