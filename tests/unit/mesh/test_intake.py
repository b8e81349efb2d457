"""Own sets and taking over those of others: whole, proved, in any order, or not at all."""

import random
from dataclasses import replace

import pytest

from mesh.proto import replica as replica_module
from mesh.proto.hlc import Hlc
from mesh.proto.intake import Delta, Outcome, take
from mesh.proto.replica import Replica
from mesh.proto.serve import serve
from mesh.proto.sets import MARKER, SLACK_ROWS, Entry, SetId, SignedHead, leaves_of, pack_head
from mesh.proto.sync_wire import Want
from mesh.proto.tables import FLEET, HUB_WRITTEN, NODE, REFERENCE
from mesh.proto.tree import Tree
from mesh.store_tx import shown_rows
from tests.support.members import FakeMember, plain_sign
from tests.support.sides import BODY, NOW, ROSTER, SCOPE, A, Side, make_roster


def signed_as(delta: Delta, **changed) -> Delta:
    """Return a delta whose head says something else, signed by its author all the same."""
    head = replace(delta.signed.head, **changed)
    body = pack_head(head)
    return replace(delta, signed=SignedHead(head, body, plain_sign(head.author)(body)))


def test_a_delta_brings_what_changed_and_nothing_else():
    a, b = Side("a"), Side("b")
    a.put(*(f"k{n}" for n in range(50)))
    assert b.pull(a, A) is Outcome.APPLIED
    a.put("k3", body=BODY + b"")
    a.put("k4", body=None)
    delta = a.delta_for(b, A)
    assert {e.key for e in delta.entries} <= {"k3", "k4"}
    assert b.take(delta) is Outcome.APPLIED
    assert b.take(delta) is Outcome.STALE
    assert b.keys("a") == a.keys("a")
    assert b.replica.tree(A).root() == a.replica.tree(A).root()


def test_retracted_rows_go_and_a_replica_that_was_away_for_ever_agrees():
    a, b = Side("a"), Side("b")
    a.put("stays", "goes")
    b.pull(a, A)
    a.put("goes", body=None)
    for n in range(SLACK_ROWS + 1):
        a.put(f"more{n}")
        a.put(f"more{n}", body=None)
    a.put("stays", body=BODY)
    while a.replica.rest(SCOPE, a.now):
        a.commit()
    rows = list(a.disk.entries(A))
    assert [e.key for e in rows] == ["stays"]  # the tombstone is gone everywhere
    assert b.pull(a, A) is Outcome.APPLIED
    assert list(b.disk.entries(A)) == rows


def test_a_jump_is_what_many_changes_end_in():
    """``scripts/bench/catchup`` lets seq jump instead of writing a row again and again."""
    slow, quick = Side("a"), Side("a")
    for side in (slow, quick):
        side.put(*(f"k{n}" for n in range(20)))
    for n in range(500):
        slow.put(f"k{n % 4}", body=b"\x81\xa1v" + bytes([n % 100]))
    quick.now = slow.now - 4
    quick.replica.own(SCOPE).seq += 496
    for n in range(496, 500):
        quick.put(f"k{n % 4}", body=b"\x81\xa1v" + bytes([n % 100]))
    assert list(slow.disk.entries(A)) == list(quick.disk.entries(A))
    ours, theirs = (side.replica.heads[A].head for side in (slow, quick))
    assert (ours.seq, ours.base, ours.root) == (theirs.seq, theirs.base, theirs.root)


def test_stored_rows_stay_within_their_bound():
    a, rng = Side("a"), random.Random(7)
    for _ in range(600):
        a.put(f"k{rng.randrange(30)}", body=rng.choice([BODY, None]))
        rows = list(a.disk.entries(A))
        live = sum(e.body is not None for e in rows)
        assert len(rows) <= 2 * live + SLACK_ROWS
    rows = list(a.disk.entries(A))
    while a.replica.rest(SCOPE, a.now):
        a.commit()
    live = sum(e.body is not None for e in rows)
    assert len(list(a.disk.entries(A))) <= 1.1 * live


@pytest.mark.parametrize("seed", range(10))
def test_any_order_and_duplication_of_deliveries_gives_one_view_from_seed(seed):
    rng = random.Random(seed)
    writers = [Side("a"), Side("b"), Side("h")]
    deltas: list[Delta] = []
    fresh = Side("c")
    for _ in range(60):
        writer = rng.choice(writers)
        writer.now += rng.randrange(3)
        writer.put(f"k{rng.randrange(6)}", body=rng.choice([BODY, MARKER, None]))
        set_id = SetId(writer.name, SCOPE)
        if set_id in writer.replica.heads:
            (delta,) = serve(writer.disk, [Want(set_id, 0, 0)], ROSTER, "h")
            deltas.append(delta)
    views = []
    for _ in range(3):
        reader = Side("r")
        ROSTER.register.all["r"] = FakeMember("r", "lab")
        for delta in rng.choices(deltas, k=40) + rng.sample(deltas, len(deltas)):
            assert reader.take(delta) in (Outcome.APPLIED, Outcome.STALE)
        views.append(
            [(r.key, r.author, r.hlc) for r in shown_rows(reader.disk, SCOPE, "server")]
        )
    assert views[0] == views[1] == views[2]
    assert fresh.replica.heads == {}


def test_a_row_for_another_scope_or_author_is_refused():
    a, c = Side("a"), Side("c")
    a.put("k")
    delta = Side("b").put("k") and a.delta_for(Side("b"), A)
    assert isinstance(delta, Delta)
    assert c.take(delta) is Outcome.SCOPE
    liar = signed_as(delta, author="c")  # c may not write into lab
    assert Side("b").take(liar) is Outcome.SCOPE


def test_a_head_that_its_author_did_not_sign_is_refused():
    a, b = Side("a"), Side("b")
    a.put("k")
    delta = a.delta_for(b, A)
    forged = replace(delta, signed=delta.signed._replace(signature=b"x" * 32))
    assert b.take(forged) is Outcome.SIGNATURE
    assert b.replica.heads == {}


@pytest.mark.parametrize(
    "spoil",
    [
        lambda d: replace(d, entries=d.entries[1:]),
        lambda d: replace(d, entries=(*d.entries[:-1], d.entries[-1]._replace(body=b"\x80"))),
        lambda d: replace(d, entries=(*d.entries[:-1], d.entries[-1]._replace(hlc=1))),
        lambda d: signed_as(d, root=bytes(16)),
        lambda d: signed_as(d, base=1),
    ],
)
def test_rows_that_do_not_fit_the_root_change_nothing(spoil):
    a, b = Side("a"), Side("b")
    a.put("k1", "k2")
    b.pull(a, A)
    before = (list(b.disk.entries(A)), b.replica.tree(A).root())
    a.put("k3", "k4")
    assert b.take(spoil(a.delta_for(b, A))) in (Outcome.ROOT, Outcome.ROWS)
    assert (list(b.disk.entries(A)), b.replica.tree(A).root()) == before
    assert b.pull(a, A) is Outcome.APPLIED


@pytest.mark.parametrize(
    "entry",
    [
        Entry("server", "k9", 99, 0, BODY),  # past the head
        Entry("server", "k9", 2, (1 << 63) - 1, BODY),  # above the promised floor
        Entry("server", "k9", 2, 0, b"\xc1"),  # no map
        Entry("server", "k9", 1, 0, BODY),  # not in order
    ],
)
def test_rows_that_no_author_writes_are_refused(entry):
    a, b = Side("a"), Side("b")
    a.put("k1", "k2")
    delta = a.delta_for(b, A)
    assert b.take(replace(delta, entries=(delta.entries[0], entry))) is Outcome.ROWS


def test_a_rewound_promise_is_refused():
    a, b = Side("a"), Side("b")
    a.put("k1")
    b.pull(a, A)
    a.replica.touch(SCOPE, a.now)
    a.commit()
    assert b.take(signed_as(a.delta_for(b, A), floor=5)) is Outcome.REWIND
    assert b.pull(a, A) is Outcome.APPLIED


def test_two_heads_for_one_point_are_a_fork_and_ours_stays():
    a, b = Side("a"), Side("b")
    a.put("k1")
    b.pull(a, A)
    twin = Side("a")
    twin.now = a.now - 1
    twin.put("other")
    epoch = b.replica.heads[A].head.epoch
    delta = signed_as(twin.delta_for(Side("b"), A), epoch=epoch, floor=1 << 62)
    assert b.take(delta) is Outcome.FORK
    assert b.keys("a") == {"k1"}


def test_a_large_delta_counts_for_nothing_before_its_last_frame():
    a, b = Side("a"), Side("b")
    big = b"\xc5\xea\x60" + bytes(60_000)
    a.put(*(f"k{n}" for n in range(24)), body=b"\x81\xa1v" + big)
    want, outcomes = Want(A, 0, 0), []
    while not outcomes or outcomes[-1] is Outcome.STAGED:
        (delta,) = serve(a.disk, [want], ROSTER, "b")
        outcomes.append(b.take(delta))
        if outcomes[-1] is Outcome.STAGED:
            assert b.keys("a") == set()
            a.put("k0", body=BODY)  # the set moves while it is pulled
            stage = b.disk.stage(A)
            assert stage is not None
            want = Want(A, stage.epoch, stage.cursor)
    assert outcomes[-1] is Outcome.APPLIED
    assert len(outcomes) >= 3
    assert list(b.disk.entries(A)) == list(a.disk.entries(A))


def test_a_stage_cannot_grow_past_what_the_head_says():
    a, b = Side("a"), Side("b")
    a.put("k1")
    delta = a.delta_for(b, A)
    rows = tuple(Entry("server", f"x{n}", n + 1, 0, BODY) for n in range(5000))
    flood = signed_as(replace(delta, entries=rows, final=False), seq=9000)
    assert b.take(flood) is Outcome.ROWS
    assert b.disk.stage(A) is None


def test_a_gap_is_no_delta():
    a, b = Side("a"), Side("b")
    a.put("k1")
    a.put("k2")
    delta = replace(a.delta_for(b, A), since=1)
    assert b.take(replace(delta, entries=delta.entries[1:])) is Outcome.GAP


def test_an_author_takes_its_later_set_back_and_keeps_what_it_wrote_since():
    a, b = Side("a"), Side("b")
    a.put("old")
    backup = a.disk.copy()
    a.put("lost", "old2")
    a.put("old", body=None)
    b.pull(a, A)
    again = Side("a")
    again.disk = backup
    again.replica = Replica(backup, "a", plain_sign("a"), Hlc())
    assert again.replica.load(NOW) == []
    again.now = a.now + 5
    again.put("since")
    assert again.pull(b, A, full=True) is Outcome.TAKEN_BACK
    assert again.keys("a") == {"lost", "old2", "since"}
    assert again.replica.heads[A].head.epoch > a.replica.heads[A].head.epoch
    assert b.pull(again, A) is Outcome.APPLIED
    assert b.keys("a") == {"lost", "old2", "since"}


def restarted(side: Side, disk) -> Side:
    """Return an author that goes on from a disk as ``restore`` lets it, in a higher epoch."""
    again = Side(side.name)
    again.disk = disk
    again.replica = Replica(disk, side.name, plain_sign(side.name), Hlc())
    assert again.replica.load(NOW) == []
    again.replica.renew(side.now)
    again.commit()
    return again


def test_what_a_restored_author_writes_stays_though_the_lost_branch_had_later_stamps():
    a, b = Side("a"), Side("b")
    a.put("old", "gone")
    backup = a.disk.copy()
    a.now += 36_000_000  # it followed somebody's clock, ten hours ahead
    a.put("lost", "gone")
    a.put("gone", body=None)  # somebody else's row had overruled it
    b.now = a.now
    b.pull(a, A)
    again = restarted(a, backup)
    again.now = NOW + 100
    again.put("since", "gone")
    assert again.pull(b, A, full=True) is Outcome.TAKEN_BACK
    assert again.keys("a") == {"old", "lost", "since", "gone"}


def test_what_an_author_has_let_go_does_not_come_back_with_a_lost_branch():
    a, b = Side("a"), Side("b")
    a.put("old", "goes", "stays")
    backup = a.disk.copy()
    a.put("lost")
    b.pull(a, A)
    again = restarted(a, backup)
    again.now = a.now + 5
    again.put("goes", body=None)
    again.put("since")
    while again.replica.rest(SCOPE, again.now):
        again.commit()
    assert again.disk.entry(A, "server", "goes") is None
    assert again.pull(b, A, full=True) is Outcome.TAKEN_BACK
    assert again.keys("a") == {"old", "stays", "lost", "since"}
    assert b.pull(again, A) is Outcome.APPLIED
    assert b.keys("a") == {"old", "stays", "lost", "since"}


@pytest.mark.parametrize(
    ("one", "two", "shared"),
    [
        ([(5, 9)], [(5, 7)], None),  # in one epoch: somewhere
        ([(5, 9)], [(7, 12), (5, 6)], 6),  # the other began another epoch there
        ([(7, 12), (5, 6)], [(8, 20), (5, 9)], 6),
        ([(7, 12), (5, 6)], [(8, 20), (7, 11), (5, 6)], 11),
        ([(7, 12)], [(8, 20)], None),
    ],
)
def test_where_two_histories_part(one, two, shared):
    delta = Side("a")
    delta.put("k")
    head = delta.replica.heads[A].head
    ours, theirs = (
        replace(head, epoch=points[0][0], seq=points[0][1], past=tuple(points[1:]))
        for points in (one, two)
    )
    assert ours.fork(theirs) == theirs.fork(ours) == shared


@pytest.mark.parametrize("longer", [0, 1])
def test_two_processes_with_one_set_of_keys_keep_what_either_wrote(longer: int):
    """A folder that was copied: both go on from one head, and write under the same seqs."""
    a = Side("a")
    a.put("old", "goes")
    copy = Side("a")
    copy.disk = a.disk.copy()
    copy.replica = Replica(copy.disk, "a", plain_sign("a"), Hlc())
    assert copy.replica.load(NOW) == []
    copy.now = a.now
    copy.put("there")
    a.put("goes", body=None)
    a.put(*(f"here{n}" for n in range(longer)))
    assert copy.pull(a, A, full=True) is Outcome.TAKEN_BACK
    both = {"old", "there", *(f"here{n}" for n in range(longer))}
    assert copy.keys("a") == both, "what one has deleted does not come back"
    assert a.pull(copy, A, full=True) is Outcome.TAKEN_BACK
    assert a.keys("a") == both


@pytest.mark.parametrize("again", [False, True], ids=["running", "started again"])
def test_two_processes_that_began_new_epochs_on_their_own_keep_what_either_wrote(again: bool):
    """Each was convicted of the other's head: both say that they come from the same point."""
    one, two = Side("a"), Side("a")
    one.put("mine")
    two.now = one.now - 1
    two.put("yours")
    sides = []
    for side in (one, two):
        side.replica.renew(side.now + 1000)
        side.commit()
        sides.append(restarted(side, side.disk) if again else side)
    one, two = sides
    assert one.pull(two, A, full=True) is Outcome.TAKEN_BACK
    assert one.keys("a") == {"mine", "yours"}
    assert two.pull(one, A, full=True) is Outcome.TAKEN_BACK
    assert two.keys("a") == {"mine", "yours"}


def test_undo_leaves_no_trace_in_trees_and_counters():
    a = Side("a")
    a.put("k1", "k2")
    root, own = a.replica.tree(A).root(), a.replica.own(SCOPE).saved()
    mark, disk_mark = a.replica.mark(), a.disk.mark()
    a.replica.put(SCOPE, "server", "k1", None, NOW)
    a.replica.put(SCOPE, "server", "k3", BODY, NOW)
    a.disk.undo_to(disk_mark)
    a.replica.undo_to(mark)
    assert (a.replica.tree(A).root(), a.replica.own(SCOPE).saved()) == (root, own)
    a.put("k4")
    assert Side("b").pull(a, A) is Outcome.APPLIED


@pytest.mark.parametrize("packed_max", [0, 12, 1000])
def test_trees_that_make_room_for_others_come_back_as_they_were(monkeypatch, packed_max: int):
    monkeypatch.setattr(replica_module, "LEAVES_KEPT", 8)
    monkeypatch.setattr(replica_module, "PACKED_KEPT", packed_max)
    rng = random.Random(packed_max)
    a, b = Side("a"), Side("b")
    for _ in range(60):
        scope = rng.choice([SCOPE, FLEET])
        keys = [f"k{rng.randrange(12)}" for _ in range(3)]
        a.put(*keys, scope=scope, body=bytes([0x81, 0xA1, 0x76, rng.randrange(99)]))
        mark = b.replica.mark()
        b.replica.put(
            SCOPE, "server", "mine", bytes([0x81, 0xA1, 0x76, rng.randrange(99)]), NOW
        )
        if rng.random() < 0.5:
            b.disk.undo_to(0)
            b.replica.undo_to(mark)
        b.commit()
        b.pull(a, SetId("a", scope))
    for side in (a, b):
        for set_id, signed in side.replica.heads.items():
            assert side.replica.tree(set_id).root() == signed.head.root
            assert Tree(leaves_of(side.disk.entries(set_id))).root() == signed.head.root


def test_a_damaged_set_is_found_at_load():
    a = Side("a")
    a.put("k1")
    a.disk.save_entries(A, [next(a.disk.entries(A))._replace(body=b"\x80")])
    assert Replica(a.disk, "a", plain_sign("a"), Hlc()).load(NOW) == [A]


def test_the_set_of_a_left_author_holds_up_to_its_last_accepted_head():
    roster = make_roster()
    a, b = Side("a"), Side("b")
    accepted = a.put("k1")
    assert accepted is not None
    first = a.delta_for(b, A)
    a.put("k2")
    second = a.delta_for(b, A)
    roster.register.all["a"].status = "revoked"
    roster.register.all["a"].heads = {SCOPE: (*accepted.head.point, b"")}
    assert take(b.replica, second, roster, NOW) is Outcome.SCOPE
    assert take(b.replica, first, roster, NOW) is Outcome.APPLIED


@pytest.mark.parametrize("table", sorted(HUB_WRITTEN))
def test_what_hubs_write_is_not_taken_from_a_node(table):
    hub, node, other = Side("h"), Side("a"), Side("c")
    hub.put("img", table=table, scope=FLEET)
    assert other.pull(hub, SetId("h", FLEET)) is Outcome.APPLIED
    node.put("a", table=NODE, scope=FLEET)
    assert other.pull(node, SetId("a", FLEET)) is Outcome.APPLIED
    node.put("img", "more", table=table, scope=FLEET, above=1 << 62)
    assert other.pull(node, SetId("a", FLEET)) is Outcome.ROWS
    assert Side("b").pull(node, SetId("a", FLEET)) is Outcome.ROWS
    assert [row.author for row in shown_rows(other.disk, FLEET, table)] == ["h"]
    assert [row.author for row in shown_rows(other.disk, FLEET, NODE)] == ["a"]
    node.put("img", "more", table=table, scope=FLEET, body=None)
    assert other.pull(node, SetId("a", FLEET)) is Outcome.APPLIED, "taken back, no harm is left"


def test_the_rows_of_a_hub_that_left_still_count():
    hub, node = Side("h"), Side("a")
    hub.put("img", table=REFERENCE, scope=FLEET)
    set_id = SetId("h", FLEET)
    epoch, seq = hub.replica.heads[set_id].head.point
    roster = make_roster()
    roster.register.all["h"] = FakeMember(
        "h", "", frozenset({"hub"}), "left", {FLEET: (epoch, seq, b"")}
    )
    delta = hub.delta_for(node, set_id)
    assert take(node.replica, delta, roster, NOW) is Outcome.APPLIED
