"""The tree broadcast: pushed once, told otherwise, repaired when late, deaf to liars."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.errors import CodecError
from mesh.proto.awaited import GRAFT_NEAR_S, GRAFT_S, REGRAFT_S, SECOND_S
from mesh.proto.broadcast import (
    GARBAGE_MAX,
    SPACING_S,
    STRIKES_MAX,
    TELL_NEAR_S,
    TELL_S,
    Broadcast,
)
from mesh.proto.broadcast_ports import DropPeer, MergeFrom, PullFrom, Read, SendTo, Take
from mesh.proto.broadcast_wire import (
    Graft,
    Have,
    Here,
    News,
    Prune,
    Push,
    body_of,
    parse,
)
from mesh.proto.intake import Delta, Outcome
from mesh.proto.sets import SetId
from mesh.proto.sync_wire import Known, Want
from mesh.proto.tree import EMPTY
from mesh.proto.tree_links import EAGER_MAX, FLOW_PARTS, PRUNE_AFTER, PRUNE_EACH_S
from tests.support.members import FakeMember, FakeRegister, PlainRoster
from tests.support.sides import Side

HUB = frozenset({"hub"})
LAB = ["g1", "g2", "m1", "m2"]
FAR = [f"f{n}" for n in range(20)]
ROSTER = PlainRoster(
    FakeRegister(
        [*(FakeMember(n, "lab") for n in LAB), *(FakeMember(n, n) for n in FAR),
         FakeMember("h", "", HUB)]
    )
)  # fmt: skip
AUTHOR = SetId("f19", "fleet")


class Member(Side):
    """A side that stands somewhere: its own view, its own place."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.author, self.version = name, 1
        self.heads: dict[SetId, Any] = {}
        self.far: set[str] = set(FAR)
        self.cast = Broadcast(self, ROSTER, self)

    def stage(self, set_id):
        return None

    @property
    def is_gateway(self) -> bool:
        return self.name in ("g1", "g2", *FAR)

    def wanted(self):
        return self.far

    def gateways(self, site):
        return ["g1", "g2"] if site == "lab" else [site]

    def site_of(self, node):
        return "lab" if node in LAB else "" if node == "h" else node

    def join(self, *peers: str, tree: bool = True) -> None:
        for peer in peers:
            self.cast.on_link(peer, 0.0)
            self.cast.on_frame(peer, body_of(Here(tree)), 0.0)

    def get(self, peer: str, delta: Delta, now: float = 0.0, outcome=Outcome.APPLIED):
        """Let a push come, and what it brings be taken over."""
        effects = self.cast.on_frame(peer, body_of(Push((delta,))), now)
        out = [e for e in effects if not isinstance(e, Take)]
        for effect in effects:
            if isinstance(effect, Take):
                if outcome is Outcome.APPLIED:
                    self.heads[delta.id] = delta.signed
                outcomes = [outcome] * len(effect.deltas)
                out += self.cast.on_taken(peer, effect.deltas, outcomes, now)
        return out


class Source(Side):
    """A far author, and the deltas of its set."""

    def __init__(self) -> None:
        super().__init__(AUTHOR.author)
        self.seq = (0, 0)

    def delta(self, size: int = 1) -> Delta:
        body = b"\x81\xa1v" + b"\xc5" + size.to_bytes(2, "big") + bytes(size)
        signed = self.put("k", body=body, scope="fleet", table="node")
        entries = [e for e in self.disk.entries(AUTHOR) if e.seq > self.seq[1]]
        made = Delta(signed, self.seq[1], tuple(entries), True)
        self.seq = signed.head.point
        return made


def sent(effects, kind=None) -> list[str]:
    return sorted(
        e.peer for e in effects if isinstance(e, SendTo) and isinstance(e.message, kind)
    )


def known(delta: Delta) -> Known:
    head = delta.signed.head
    return Known(head.id, head.epoch, head.seq, EMPTY)


def test_a_peer_that_has_not_said_that_it_takes_part_is_sent_nothing_else():
    g1 = Member("g1")
    effects = g1.cast.on_link("m1", 0.0)
    assert [e.message for e in effects] == [Here(False)]
    assert not g1.cast.takes_part("m1")
    assert g1.get("f1", Source().delta()) == []
    assert g1.cast.on_records([b"r"], "", 0.0) == []


def test_the_centre_feeds_its_site_and_the_tree_but_not_where_it_came_from():
    g1 = Member("g1")
    g1.join("g2", "m1", "m2", "f1", "f2", "h")
    effects = g1.get("f1", Source().delta())
    assert sent(effects, Push) == ["f2", "g2", "h", "m1", "m2"]


def test_the_second_gateway_tells_and_the_plain_member_passes_nothing_on():
    g2, m1, source = Member("g2"), Member("m1"), Source()
    g2.join("g1", "m1", "m2")
    m1.join("g1", "g2", "m2")
    delta = source.delta()
    assert g2.get("g1", delta) == []
    told = g2.cast.on_timer(TELL_NEAR_S)
    assert sent(told, Have) == ["m1", "m2"]
    assert m1.get("g1", delta) == []
    assert m1.cast.deadline is None


def test_without_the_centre_the_next_gateway_is_one():
    g2 = Member("g2")
    g2.join("g1", "m1", "f1")
    g2.cast.on_link_lost("g1", 0.0)
    assert sent(g2.get("f1", Source().delta()), Push) == ["m1"]


def test_own_news_are_spaced_and_go_to_the_centre_and_are_told_to_the_other_gateway():
    m1 = Member("m1")
    m1.join("g1", "g2", "m2")
    own = SetId("m1", "fleet")
    signed = m1.put("k", scope="fleet", table="node")
    (read,) = m1.cast.on_change({own: signed}, 1.0)
    assert read == Read("", (Want(own, 0, 0),))
    m1.heads[own] = signed
    delta = Delta(signed, 0, tuple(m1.disk.entries(own)), True)
    assert sent(m1.cast.on_read("", [delta], 1.0), Push) == ["g1"]
    assert sent(m1.cast.on_timer(1.0 + TELL_NEAR_S), Have) == ["g2"]
    later = m1.put("k2", scope="fleet", table="node")
    assert m1.cast.on_change({own: later}, 1.05) == []
    assert m1.cast.on_change({own: later}, 1.06) == []
    assert m1.cast.deadline == pytest.approx(1.0 + SPACING_S)
    assert m1.cast.on_timer(1.0 + SPACING_S) == [Read("", (Want(own, *signed.head.point),))]
    assert m1.cast.carries(own, later.head.point)


def test_a_link_of_duplicates_is_pruned_and_told_from_then_on():
    g1, source = Member("g1"), Source()
    g1.join("f1", "f2", "f3")
    pruned: list[str] = []
    for n in range(PRUNE_AFTER):
        delta = source.delta()
        g1.get("f1", delta, float(n))
        pruned += sent(g1.get("f2", delta, float(n)), Prune)
    assert pruned == ["f2"]
    effects = g1.get("f1", source.delta(), 9.0)
    assert sent(effects, Push) == ["f3"]
    assert "f2" in sent(g1.cast.on_timer(9.0 + TELL_S), Have)


def test_the_last_two_eager_links_of_a_lone_gateway_are_not_pruned():
    f0, source = Member("f0"), Source()
    f0.join("f1", "f2")
    for n in range(3 * PRUNE_AFTER):
        delta = source.delta()
        f0.get("f1", delta, float(n))
        assert sent(f0.get("f2", delta, float(n)), Prune) == []


def test_what_was_told_of_and_does_not_come_is_asked_for_once_more_of_the_next():
    g1, source = Member("g1"), Source()
    g1.join("f1", "f2")
    delta = source.delta()
    for peer in ("f1", "f2"):
        assert g1.cast.on_frame(peer, body_of(Have((known(delta),), False)), 0.0) == []
    assert g1.cast.on_timer(GRAFT_S - 0.01) == []
    (ask,) = g1.cast.on_timer(GRAFT_S)
    want = Want(AUTHOR, 0, 0)
    assert (ask.peer, ask.message) == ("f1", Graft((want,), keep=True))
    (ask,) = g1.cast.on_timer(GRAFT_S + REGRAFT_S)
    assert (ask.peer, ask.message) == ("f2", Graft((want,), keep=True))
    assert g1.cast.on_timer(9.0) == []
    assert g1.cast.deadline is None


def test_what_came_meanwhile_is_not_asked_for():
    g1, source = Member("g1"), Source()
    g1.join("f1", "f2")
    delta = source.delta()
    g1.cast.on_frame("f2", body_of(Have((known(delta),), False)), 0.0)
    g1.get("f1", delta, 0.1)
    assert sent(g1.cast.on_timer(GRAFT_S), Graft) == []


def test_in_a_site_the_second_lost_push_in_a_row_makes_the_other_gateway_feed():
    m1, source = Member("m1"), Source()
    m1.join("g1", "g2")
    keeps = []
    for n in range(2):
        told = body_of(Have((known(source.delta()),), False))
        m1.cast.on_frame("g2", told, 10.0 * n)
        (ask,) = m1.cast.on_timer(10.0 * n + GRAFT_NEAR_S)
        keeps.append(ask.message.keep)
        m1.cast.on_timer(10.0 * n + 5)
    assert keeps == [False, True]


def flow(member: Member, peer: str, source: Source, now: float) -> None:
    """Let so much news come over a link that it counts as a flow."""
    for n in range(FLOW_PARTS):
        member.get(peer, source.delta(), now + n / 1000)


def grafts(effects: list[Any]) -> list[SendTo]:
    return [e for e in effects if isinstance(e, SendTo) and isinstance(e.message, Graft)]


def ask(member: Member, peer: str, delta: Delta, now: float) -> Graft:
    """Have a member told of what does not come, and return what it asks then."""
    member.cast.on_timer(now)
    member.cast.on_frame(peer, body_of(Have((known(delta),), False)), now)
    (found,) = grafts(member.cast.on_timer(now + GRAFT_S))
    assert found.peer == peer
    return found.message


def test_in_a_flow_a_link_is_kept_only_when_what_was_asked_for_does_not_come_by_itself():
    f0 = Member("f0")
    f0.join("f1", "f2", "f3")
    source = Source()
    flow(f0, "f1", source, 10.0)
    late = source.delta()
    assert not ask(f0, "f2", late, 10.1).keep
    f0.get("f2", late, 10.3)
    f0.get("f1", late, 10.31)  # it was late: f1 lives
    lost = source.delta()
    assert not ask(f0, "f2", lost, 10.7).keep
    f0.get("f2", lost, 10.9)
    assert ask(f0, "f2", source.delta(), 11.3).keep


def test_in_a_flow_the_second_gateway_asks_later_and_keeps_no_link():
    g2 = Member("g2")
    g2.join("g1", "f1")
    source = Source()
    for n in range(3):
        flow(g2, "g1", source, 10.0 + n)
        at = 10.1 + n
        g2.cast.on_timer(at)
        g2.cast.on_frame("f1", body_of(Have((known(source.delta()),), False)), at)
        assert sent(g2.cast.on_timer(at + GRAFT_S), Graft) == []
        (found,) = grafts(g2.cast.on_timer(at + GRAFT_S + SECOND_S))
        assert not found.message.keep


def test_two_links_are_not_pruned_at_once():
    f0, source = Member("f0"), Source()
    f0.join("f1", "f2", "f3", "f4", "f5")
    pruned = []
    for n in range(2 * PRUNE_AFTER):
        delta, at = source.delta(), 10.0 + n / 100
        f0.get("f1", delta, at)
        for peer in ("f2", "f3"):
            pruned += sent(f0.get(peer, delta, at), Prune)
    assert pruned == ["f2"]
    delta = source.delta()
    f0.get("f1", delta, 10.1 + PRUNE_EACH_S)
    assert sent(f0.get("f3", delta, 10.1 + PRUNE_EACH_S), Prune) == ["f3"]


def test_a_graft_is_answered_from_what_is_at_hand_or_from_the_store():
    g1, source = Member("g1"), Source()
    g1.join("f1", "f2")
    first, second = source.delta(), source.delta()
    g1.get("f1", first, 0.0)
    g1.get("f1", second, 1.0)
    at_hand = body_of(Graft((Want(AUTHOR, *first.signed.head.point),), True))
    assert [e.message for e in g1.cast.on_frame("f2", at_hand, 1.0)] == [Push((second,))]
    older = (Want(AUTHOR, 0, 0),)
    assert g1.cast.on_frame("f2", body_of(Graft(older, True)), 1.0) == [Read("f2", older)]
    assert g1.cast.on_frame("f2", body_of(Graft(older, True)), 1.0) == []
    assert g1.cast.counters["busy"] == 1
    whole = Delta(second.signed, 0, second.entries, True)
    (answer,) = g1.cast.on_read("f2", [whole], 1.0)
    assert answer == SendTo("f2", Push((whole,)))


def test_what_is_too_large_to_push_is_told_of_to_be_pulled():
    m1 = Member("m1")
    m1.join("g1")
    own = SetId("m1", "fleet")
    body = b"\x81\xa1v\xc5" + (20_000).to_bytes(2, "big") + bytes(20_000)
    signed = m1.put("k", body=body, scope="fleet", table="node")
    delta = Delta(signed, 0, tuple(m1.disk.entries(own)), True)
    (told,) = m1.cast.on_read("", [delta], 0.0)
    assert told.message.pull
    g1 = Member("g1")
    g1.join("m1")
    (pull,) = g1.cast.on_frame("m1", body_of(told.message), 0.0)
    assert isinstance(pull, PullFrom)
    assert pull.heads[0].point == signed.head.point


@pytest.mark.parametrize("outcome", [Outcome.GAP, Outcome.UNTAKEN, Outcome.REWIND])
def test_what_does_not_follow_is_pulled(outcome):
    g1 = Member("g1")
    g1.join("f1", "f2")
    (pull,) = g1.get("f1", Source().delta(), outcome=outcome)
    assert isinstance(pull, PullFrom)
    assert g1.cast.counters["strikes"] == 0


def test_hostile_pushes_end_the_link():
    g1, source = Member("g1"), Source()
    g1.join("f1", "f2")
    effects: list[Any] = []
    for n in range(STRIKES_MAX):
        effects += g1.get("f1", source.delta(), float(n), outcome=Outcome.SIGNATURE)
    assert effects == [DropPeer("f1", "too many deltas that do not hold")]
    assert g1.heads == {}


def test_a_forged_head_does_not_keep_the_true_one_out():
    g1, source = Member("g1"), Source()
    g1.join("f1", "f2")
    true = source.delta()
    forged = Delta(true.signed._replace(body=true.signed.body[:-1] + b"\x09"), 0, (), True)
    with pytest.raises(CodecError):
        parse(body_of(Push((Delta(true.signed._replace(body=b"x"), 0, (), True),))))
    (take,) = g1.cast.on_message("f1", Push((forged,)), 0.0)
    assert isinstance(take, Take)
    (take,) = g1.cast.on_message("f2", Push((true,)), 0.0)
    assert take.deltas == (true,)


def test_only_the_scope_of_everybody_is_pushed():
    g1 = Member("g1")
    g1.join("m1")
    side = Side("m1")
    signed = side.put("k", scope="site:lab")
    delta = Delta(signed, 0, tuple(side.disk.entries(SetId("m1", "site:lab"))), True)
    assert g1.get("m1", delta) == []
    assert g1.cast.counters["not for pushing"] == 1
    assert not g1.cast.carries(delta.id, signed.head.point)


def test_somebody_who_knows_more_of_our_own_set_than_we_do_is_pulled_from():
    late = Member("f19")
    late.join("f1", "f2")
    (pull,) = late.get("f1", Source().delta())
    assert isinstance(pull, PullFrom)


def test_too_quick_an_author_is_passed_on_at_our_pace():
    g1, source = Member("g1"), Source()
    g1.join("f1", "f2")
    first = source.delta()
    g1.get("f1", first, 0.0)
    assert sent(g1.get("f1", source.delta(), 0.01), Push) == []
    assert sent(g1.get("f1", source.delta(), 0.02), Push) == []
    assert g1.cast.on_timer(0.05) == [Read("", (Want(AUTHOR, *first.signed.head.point),))]


def test_eager_links_outside_the_site_are_bounded():
    g1 = Member("g1")
    g1.join(*FAR)
    source = Source()
    assert len(sent(g1.get("f0", source.delta()), Push)) == EAGER_MAX - 1
    g1.cast.on_frame("f18", body_of(Graft((), True)), 0.0)
    assert len(sent(g1.get("f0", source.delta(), 1.0), Push)) == EAGER_MAX - 1


def test_records_go_to_everybody_but_where_they_came_from():
    g1 = Member("g1")
    g1.join("g2", "m1", "f1", tree=False)
    assert g1.cast.on_frame("m1", body_of(News((b"r",))), 0.0) == [MergeFrom("m1", (b"r",))]
    assert sent(g1.cast.on_records([b"r"], "m1", 0.0), News) == ["f1", "g2"]


def test_a_link_that_neither_side_wants_in_the_tree_is_unwanted():
    m1 = Member("m1")
    m1.join("g1", "m2", "h", "f1", tree=False)
    assert [peer for peer in ("g1", "m2", "h", "f1", "f2") if m1.cast.unwanted(peer)] == ["f1"]
    m1.cast.on_frame("f1", body_of(Here(True)), 0.0)
    assert not m1.cast.unwanted("f1")


MESSAGES = [
    Here(True), Prune(), News((b"r", b"s")), Graft((Want(AUTHOR, 1, 2),), False),
    Have((Known(AUTHOR, 1, 2, EMPTY),), True), Push((Source().delta(),)),
]  # fmt: skip


@pytest.mark.parametrize("message", MESSAGES, ids=lambda m: type(m).__name__)
def test_a_message_comes_back_as_it_was(message):
    assert parse(body_of(message)) == message


def test_too_much_garbage_ends_the_link():
    g1 = Member("g1")
    g1.join("f1")
    effects: list[Any] = []
    for _ in range(GARBAGE_MAX):
        effects += g1.cast.on_frame("f1", {"t": "what"}, 0.0)
    assert [type(e) for e in effects] == [DropPeer]
    assert g1.cast.on_frame("nobody", {"t": "prune"}, 0.0) == []


values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 1 << 65) | st.binary(max_size=40) | st.text(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)
frames = st.one_of(
    values,
    st.fixed_dictionaries(
        {"t": st.sampled_from(["here", "push", "have", "graft", "prune", "news"])},
        optional=dict.fromkeys(("tree", "z", "heads", "pull", "wants", "keep"), values)
        | {"records": values},
    ),
    st.sampled_from([body_of(message) for message in MESSAGES]),
)


@settings(max_examples=300)
@given(st.lists(st.tuples(st.sampled_from(["g2", "m1", "f1", "h"]), frames), max_size=20))
def test_garbage_never_raises(bodies):
    g1 = Member("g1")
    for peer in ("g2", "m1", "f1", "h"):
        g1.cast.on_link(peer, 0.0)
    for n, (peer, body) in enumerate(bodies):
        for effect in g1.cast.on_frame(peer, body, float(n)):
            if isinstance(effect, Take):
                outcomes = [Outcome.APPLIED] * len(effect.deltas)
                g1.cast.on_taken(peer, effect.deltas, outcomes, float(n))
        g1.cast.on_timer(n + 0.5)
