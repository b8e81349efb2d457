"""What dead authors leave: taken over by one heir as it was, and by nobody twice."""

from mesh.proto.collect import Collector
from mesh.proto.intake import Outcome, take
from mesh.proto.merge import inherited
from mesh.proto.sets import MARKER, Entry, SetId
from mesh.proto.tables import SIGHTING
from mesh.store_tx import shown_rows
from tests.support.sides import BODY, NOW, SCOPE, A, Side, make_roster

B, H = SetId("b", SCOPE), SetId("h", SCOPE)


class Lab:
    """Authors a (who dies), b (the heir) and the hub h, who hear only what they are told."""

    def __init__(self) -> None:
        self.roster = make_roster()
        self.a, self.b, self.h = Side("a"), Side("b"), Side("h")
        self.collectors = {side.name: Collector(side.replica) for side in (self.b, self.h)}
        self.heir = "b"

    def end(self, side: Side) -> None:
        """Revoke an author with all that it wrote accepted."""
        member = self.roster.register.all[side.name]
        member.status = "revoked"
        member.heads = {
            set_id.scope: (*signed.head.point, signed.head.root)
            for set_id, signed in side.replica.heads.items()
            if set_id.author == side.name
        }

    def collect(self, side: Side, rounds: int = 1) -> None:
        for _ in range(rounds):
            side.now += 1000
            self.collectors[side.name].round(
                self.roster, lambda author, scope: side.name == self.heir, side.now
            )
            side.commit()

    def tell(self, side: Side, other: Side) -> None:
        """Give one's own set to the other."""
        for set_id, signed in side.replica.heads.items():
            if set_id.author == side.name and other.replica.heads.get(set_id) != signed:
                delta = side.delta_for(other, set_id)
                take(other.replica, delta, self.roster, other.now)
                other.commit()

    def entry(self, side: Side, set_id: SetId, key: str) -> Entry | None:
        return side.disk.entry(set_id, "server", key)

    def shown(self, side: Side) -> set[str]:
        return {row.key for row in shown_rows(side.disk, SCOPE, "server")}


def test_the_heir_takes_rows_over_with_their_stamps():
    lab = Lab()
    lab.a.put("s1", "s2")
    lab.a.put("m", table=SIGHTING)
    lab.tell(lab.a, lab.b)
    stamp = lab.entry(lab.b, A, "s1").hlc
    lab.end(lab.a)
    lab.collect(lab.b)
    assert A not in lab.b.replica.heads
    assert lab.entry(lab.b, B, "s1").hlc == stamp
    assert lab.shown(lab.b) == {"s1", "s2"}
    assert list(shown_rows(lab.b.disk, SCOPE, SIGHTING)) == [], "what it saw goes with it"


def test_a_deletion_that_the_heir_has_not_seen_holds():
    lab = Lab()
    lab.a.put("s1", "s2")
    lab.tell(lab.a, lab.b)
    lab.tell(lab.a, lab.h)
    lab.end(lab.a)
    lab.h.put("s1", body=MARKER, above=lab.entry(lab.h, A, "s1").hlc)
    lab.b.now += 3_600_000  # it writes later, by its clock, than the deletion was
    lab.collect(lab.b)
    lab.tell(lab.b, lab.h)
    lab.tell(lab.h, lab.b)
    assert lab.shown(lab.b) == lab.shown(lab.h) == {"s2"}


def test_no_marker_goes_before_the_heir_has_read_what_was_left():
    lab = Lab()
    lab.a.put("s1")
    lab.tell(lab.a, lab.b)  # the hub has never seen it
    lab.h.now += 10
    lab.h.put("s1", body=MARKER)
    lab.b.replica.touch(SCOPE, lab.b.now + 5000)
    lab.b.commit()
    lab.tell(lab.b, lab.h)
    lab.end(lab.a)
    lab.collect(lab.h, rounds=3)
    assert lab.entry(lab.h, H, "s1").body == MARKER, "b may still take it over"
    lab.collect(lab.b)
    for _ in range(3):
        lab.tell(lab.b, lab.h)
        lab.tell(lab.h, lab.b)
        lab.collect(lab.b)
        lab.collect(lab.h)
    assert lab.shown(lab.b) == lab.shown(lab.h) == set()
    held = lab.entry(lab.h, H, "s1")
    assert held is None or held.body is None


def test_a_marker_waits_for_a_suspended_author_that_may_come_back():
    """It was away when the key was deleted, and has an older row that nobody has seen."""
    lab = Lab()
    lab.end(lab.a)  # no set of its own: nothing to take over
    lab.b.put("other")
    lab.tell(lab.b, lab.h)
    lab.b.put("s1")  # told to nobody yet
    lab.h.now = lab.b.now + 10
    lab.h.put("s1", body=MARKER)
    lab.roster.register.all["b"].status = "suspended"
    lab.collect(lab.h, rounds=3)
    assert lab.entry(lab.h, H, "s1").body == MARKER
    lab.roster.register.all["b"].status = "member"
    for _ in range(3):
        lab.tell(lab.b, lab.h)
        lab.tell(lab.h, lab.b)
        lab.collect(lab.b)
        lab.collect(lab.h)
    assert lab.shown(lab.b) == lab.shown(lab.h) == {"other"}


def test_the_others_keep_the_set_until_the_heir_has_it_and_refuse_it_then():
    lab = Lab()
    lab.a.put("s1")
    late = lab.a.delta_for(lab.h, A)
    lab.tell(lab.a, lab.b)
    lab.tell(lab.a, lab.h)
    lab.end(lab.a)
    lab.collect(lab.h, rounds=3)
    assert A in lab.h.replica.heads
    lab.collect(lab.b)
    lab.tell(lab.b, lab.h)
    lab.collect(lab.h)
    assert A not in lab.h.replica.heads
    assert lab.shown(lab.h) == {"s1"}
    again = Side("h")  # started again: only its rows say what was taken over
    again.disk, again.replica.storage = lab.h.disk, lab.h.disk
    again.replica.load(NOW)
    assert take(again.replica, late, lab.roster, NOW) is Outcome.STALE


def test_an_heir_that_dies_has_an_heir():
    lab = Lab()
    lab.a.put("s1")
    lab.tell(lab.a, lab.b)
    lab.tell(lab.a, lab.h)
    point = lab.a.replica.heads[A].head.point
    lab.end(lab.a)
    lab.collect(lab.b)
    lab.tell(lab.b, lab.h)  # h holds the row twice now, under one stamp
    lab.end(lab.b)
    lab.heir = "h"
    lab.collect(lab.h)
    assert set(lab.h.replica.heads) == {H}
    assert lab.shown(lab.h) == {"s1"}
    assert inherited(lab.h.disk, A) == point
    lab.collect(lab.h, rounds=3)
    assert lab.shown(lab.h) == {"s1"}


def test_a_stamp_that_nobody_follows_is_not_copied():
    lab = Lab()
    lab.a.now += 315_360_000_000
    lab.a.put("s1")
    lab.tell(lab.a, lab.b)
    lab.end(lab.a)
    lab.collect(lab.b)
    assert lab.shown(lab.b) == {"s1"}
    other = Side("h")
    assert other.take(lab.b.delta_for(other, B)) is Outcome.APPLIED, "its head covers the row"
    assert lab.entry(other, B, "s1").body == BODY
