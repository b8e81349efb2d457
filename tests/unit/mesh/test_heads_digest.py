"""Comparing heads: equal is 16 bytes, a change costs its group, and old peers still can."""

import random
import zlib
from dataclasses import replace

import pytest

from mesh.errors import CodecError
from mesh.proto import delta_pack
from mesh.proto.codec import pack
from mesh.proto.heads_digest import HeadsDigest
from mesh.proto.sets import Head, SetId, SignedHead, pack_head
from mesh.proto.sync_ports import Send
from mesh.proto.sync_wire import Deltas, Ref, Want, body_of, packed_body, parse
from tests.support.members import FakeMember, FakeRegister, PlainRoster
from tests.support.sides import SCOPE, A, Side
from tests.unit.mesh.test_sync import Member, Wire

SITES = 6


def signed(set_id: SetId, seq: int, epoch: int = 7) -> SignedHead:
    head = Head(*set_id, epoch, seq, 0, seq.to_bytes(16, "big"), 5, 1, 1)
    return SignedHead(head, pack_head(head), b"s" * 32)


class Heads:
    """A member's committed heads, with what changed."""

    def __init__(self, author: str) -> None:
        self.author, self.version = author, 1
        self.heads: dict[SetId, SignedHead] = {}
        self.log: list[tuple[int, SetId, SignedHead | None]] = []
        self.asked = 0

    def put(self, set_id: SetId, head: SignedHead | None) -> None:
        self.version += 1
        self.log.append((self.version, set_id, head))
        if head is None:
            self.heads.pop(set_id, None)
        else:
            self.heads[set_id] = head

    def changes_since(self, version: int):
        self.asked += 1
        return None if version < 1 else {s: h for at, s, h in self.log if at > version}


NODES = [FakeMember(f"n{n}", f"s{n % SITES}") for n in range(40)]
HUBS = [FakeMember(name, "", frozenset({"hub"})) for name in ("h1", "h2")]
ROSTER = PlainRoster(FakeRegister([*NODES, *HUBS], [b"r"]))


def digest_of(view: Heads) -> HeadsDigest:
    return HeadsDigest(view, ROSTER, ROSTER.register)


def places(rng: random.Random) -> SetId:
    member = rng.choice([*NODES, *HUBS])
    scope = rng.choice(["fleet", f"site:{member.site or 's1'}"])
    return SetId(member.node_id, scope)


@pytest.mark.parametrize("seed", range(5))
def test_changes_one_by_one_give_what_a_fresh_digest_gives_from_seed(seed):
    rng = random.Random(seed)
    one = Heads("h1")
    digest = digest_of(one)
    for _ in range(300):
        set_id = places(rng)
        gone = rng.random() < 0.1
        one.put(
            set_id, None if gone else signed(set_id, rng.randrange(1, 50), rng.choice((7, 8)))
        )
        if rng.random() < 0.3:
            digest.shared("n1").root()
    fresh = Heads("h1")
    for set_id in sorted(one.heads):
        fresh.put(set_id, one.heads[set_id])
    for peer in ("n1", "n2", "h2"):
        grown, made = digest.shared(peer), digest_of(fresh).shared(peer)
        assert grown.root() == made.root()
        assert grown.marks() == made.marks()
        assert grown.flat().root() == made.flat().root()


def pair_of_hubs(seed: int) -> tuple[Heads, Heads]:
    rng = random.Random(seed)
    one, two = Heads("h1"), Heads("h2")
    for _ in range(200):
        set_id = places(rng)
        head = signed(set_id, rng.randrange(1, 50))
        one.put(set_id, head)
        two.put(set_id, head)
    return one, two


def test_one_change_makes_one_group_differ_and_names_what_is_newer():
    one, two = pair_of_hubs(1)
    changed = SetId("n4", "site:s4")
    two.put(changed, signed(changed, 99))
    ours, theirs = digest_of(one).shared("h2"), digest_of(two).shared("h1")
    assert ours.root() != theirs.root()
    points = theirs.points(ours.marks())
    assert len(points) == 1
    known, unclear = ours.compare(points)
    assert [(k.id, k.seq) for k in known] == [(changed, 99)]
    assert unclear == b""


def test_other_sets_epochs_or_a_fork_ask_for_the_whole_group():
    one, two = pair_of_hubs(2)
    new = SetId("n3", "pair:n3")
    for set_id, head in (
        (new, signed(new, 1)),  # only there
        (renewed := SetId("n4", "site:s4"), signed(renewed, 5, epoch=9)),  # another epoch
    ):
        two.put(set_id, head)
    fork = SetId("n5", "fleet")
    one.put(fork, signed(fork, 30))
    other = replace(signed(fork, 30).head, root=b"x" * 16)
    two.put(fork, SignedHead(other, pack_head(other), b"s" * 32))
    ours, theirs = digest_of(one).shared("h2"), digest_of(two).shared("h1")
    known, unclear = ours.compare(theirs.points(ours.marks()))
    assert known == []
    listed = theirs.listed(1, unclear).heads
    assert {renewed, fork} <= {k.id for k in listed}
    assert len(unclear) == 24


def test_a_set_is_found_by_its_place_only_while_the_groups_are_alike():
    one, two = pair_of_hubs(3)
    set_id = next(iter(one.heads))
    digest = digest_of(one)
    (ref,) = digest.refs([Want(set_id, 7, 4)])
    theirs = digest_of(two).shared("h1")
    assert [(w.id, w.since) for w in theirs.resolve(ref)] == [(set_id, 4)]
    assert list(theirs.resolve(Ref(ref.key, b"otherone", ref.wants))) == []
    assert list(theirs.resolve(Ref(ref.key, ref.mark, ((9999, 1),)))) == []


def test_what_does_not_change_is_not_hashed_again():
    one, _ = pair_of_hubs(4)
    digest = digest_of(one)
    shared = digest.shared("h2")
    shared.root()
    asked = one.asked
    assert digest.shared("h2") is shared
    assert one.asked == asked
    kept = {key: group._hash for key, group in shared.groups.items()}
    set_id = next(iter(one.heads))
    one.put(set_id, signed(set_id, 77))
    again = digest.shared("h2")
    again.root()
    new = [key for key, group in again.groups.items() if group._hash is not kept[key]]
    assert len(new) == 1


class OldWire(Wire):
    """``b`` is a peer of the first release: it says no version and reads none."""

    def perform(self, name, effects):
        for effect in effects:
            body = getattr(effect, "body", None)
            if isinstance(body, dict) and "t" in body:
                body.pop("v", None)
                assert "z" not in body
                assert "refs" not in body
                assert body["t"] not in ("groups?", "groups", "heads of")
        super().perform(name, effects)


def test_a_peer_of_the_first_release_still_gets_and_gives_everything():
    a, b = Member("a"), Member("b")
    a.put(*(f"k{n}" for n in range(300)))
    b.put("other")
    wire = OldWire(a, b)
    wire.start()
    assert a.heads == b.heads
    assert "heads?" in wire.kinds("a")


class QueuedWire(Wire):
    """Frames cross on their way."""

    def __init__(self, a: Member, b: Member) -> None:
        super().__init__(a, b)
        self.queue: list[tuple[str, object]] = []

    def perform(self, name, effects):
        for effect in effects:
            if isinstance(effect, Send):
                self.sent.append((name, effect.body))
                (other,) = set(self.sessions) - {name}
                self.queue.append((other, effect.body))
            else:
                super().perform(name, [effect])

    def run(self) -> None:
        while self.queue:
            name, body = self.queue.pop(0)
            self.perform(name, self.sessions[name].on_frame(body, self.now))


def behind_and_ahead() -> Wire:
    """Return a wire on which ``a`` lacks what ``b`` has just written."""
    a, b = Member("a"), Member("b")
    b.put("k")
    a.pull(b, SetId("b", SCOPE))
    b.put("l")
    return Wire(a, b)


def test_members_of_this_release_compare_groups():
    wire = behind_and_ahead()
    wire.start()
    assert wire.members["a"].heads == wire.members["b"].heads
    pull = next(body for _, body in wire.sent if body["t"] == "pull")
    assert pull["wants"] == []
    assert len(pull["refs"]) == 1
    assert any("z" in body for _, body in wire.sent)


@pytest.mark.parametrize("more", ["a", "b"])
def test_who_has_more_yields_and_hears_what_is_newer_from_the_other(more: str):
    less = {"a": "b", "b": "a"}[more]
    sides = {name: Member(name) for name in "ab"}
    sides[more].put("k")
    sides[less].pull(sides[more], SetId(more, SCOPE))
    sides[more].put("l")
    wire = QueuedWire(sides["a"], sides["b"])
    wire.start()
    wire.run()
    assert sides["a"].heads == sides["b"].heads
    assert wire.sessions[more].counters["yielded"] == 1
    assert wire.kinds(less).count("groups?") == 1
    assert "groups?" not in wire.kinds(more)


def test_a_place_that_leads_nowhere_is_asked_for_by_name():
    wire = behind_and_ahead()
    session = wire.sessions["a"]
    refs = session._digest.refs
    session._digest.refs = lambda wants: tuple(  # type: ignore[method-assign]
        Ref(r.key, b"changed.", r.wants) for r in refs(wants)
    )
    wire.start()
    assert wire.members["a"].heads == wire.members["b"].heads


def test_packed_deltas_come_back_as_they_were_and_are_shorter():
    a = Side("a")
    a.put(*(f"k{n}\u00e9" for n in range(200)))
    a.put("k0\u00e9", body=None)
    message = Deltas(3, (a.delta_for(Side("b"), A),))
    assert parse(packed_body(message)) == message
    assert len(pack(packed_body(message))) < len(pack(body_of(message))) / 2


def test_what_is_wrong_with_packed_deltas_is_a_codec_error():
    a = Side("a")
    a.put(*(f"key-{n}" for n in range(40)))
    good = delta_pack.pack_parts([a.delta_for(Side("b"), A)])
    bomb = delta_pack.DEFLATED + zlib.compress(bytes(3 << 20), 9)
    for bad in (b"", b"\x02abc", good[:-3], good + b"x", b"\x00\xc1", bomb, b"\x00\x91\x95"):
        with pytest.raises(CodecError):
            delta_pack.unpack_parts(bad)
    signed_head = a.replica.heads[A]
    long = "\u00e9" * 200  # 200 characters, 400 bytes

    def part(*row):
        listed = [(signed_head.body, signed_head.signature, 0, [row], True)]
        return delta_pack.PLAIN + pack(listed)

    delta_pack.unpack_parts(part("t", "k", 1, 1, None))
    for row in (("t", long, 1, 1, None), ("", "k", 1, 1, None), ("t", "k", 0, 1, None),
                ("t", "k", 1, 1 << 63, None), ("t", "k", True, 1, None),
                ("t", "k", 1, 1, "text"), ("t", "k", 1, 1)):  # fmt: skip
        with pytest.raises(CodecError):
            delta_pack.unpack_parts(part(*row))
