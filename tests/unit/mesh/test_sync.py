"""The anti-entropy session: cheap when equal, bounded always, deaf to liars."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.errors import CodecError
from mesh.proto.codec import pack
from mesh.proto.intake import Delta, Outcome, take
from mesh.proto.receipts import Receipts
from mesh.proto.serve import serve
from mesh.proto.sets import SetId
from mesh.proto.sync import ANNOUNCE_S, EXCHANGE_S, REPLY_S, STRIKES_MAX, SyncSession
from mesh.proto.sync_ports import (
    RETRY_S,
    TWIN_CALM_S,
    TWIN_MAX_S,
    TWIN_S,
    Apply,
    Claims,
    Drop,
    Merge,
    Send,
    SendReceipt,
    Serve,
)
from mesh.proto.sync_wire import (
    Announce,
    Deltas,
    Heads,
    HeadsAsk,
    Known,
    Pull,
    Records,
    RecordsAsk,
    Root,
    RootAsk,
    Want,
    body_of,
    parse,
    parse_receipt,
)
from tests.support.sides import ROSTER, SCOPE, A, Side


class Member(Side):
    """A side that is also the view of its sessions."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.author = name
        self.version = 1
        self.claims = Claims()

    @property
    def heads(self):
        return self.replica.heads

    def stage(self, set_id):
        return self.disk.stage(set_id)

    @property
    def proofs(self):
        return self.replica.proofs

    def changes_since(self, version):
        return None

    def commit(self):
        self.version = getattr(self, "version", 0) + 1
        return super().commit()

    def session(self, peer: str) -> SyncSession:
        return SyncSession(peer, self, ROSTER, ROSTER.register, self.claims, lambda: 0.5)


class Wire:
    """Two members and what crossed between them."""

    def __init__(self, a: Member, b: Member) -> None:
        self.members = {a.name: a, b.name: b}
        self.sessions = {a.name: a.session(b.name), b.name: b.session(a.name)}
        self.now = 0.0
        self.sent: list[tuple[str, Any]] = []

    @property
    def bytes(self) -> int:
        return sum(len(pack(body)) for _, body in self.sent)

    def kinds(self, name: str) -> list[str]:
        return [body["t"] for sender, body in self.sent if sender == name]

    def perform(self, name: str, effects) -> None:
        session, member = self.sessions[name], self.members[name]
        (other,) = set(self.sessions) - {name}
        for effect in effects:
            match effect:
                case Send(body):
                    self.sent.append((name, body))
                    self.perform(other, self.sessions[other].on_frame(body, self.now))
                case Serve(n, wants):
                    parts = serve(member.disk, wants, ROSTER, other)
                    self.perform(name, session.on_served(n, parts, self.now))
                case Apply(deltas):
                    before = dict(member.heads)
                    done = [take(member.replica, d, ROSTER, member.now, other) for d in deltas]
                    member.commit()
                    new = {k: h for k, h in member.heads.items() if before.get(k) != h}
                    self.perform(name, session.on_change(new, self.now))
                    self.perform(name, session.on_applied(done, self.now))
                case Merge(_):
                    self.perform(name, session.on_merged(self.now))

    def start(self) -> None:
        for name, session in self.sessions.items():
            self.perform(name, session.start(self.now))


def test_equal_members_exchange_one_root_each_way():
    a, b = Member("a"), Member("b")
    a.put("k")
    b.pull(a, A)
    wire = Wire(a, b)
    wire.start()
    assert wire.kinds("a") == ["root?", "root"]
    assert wire.bytes < 150


def test_what_differs_is_pulled_both_ways_and_costs_what_changed():
    a, b = Member("a"), Member("b")
    a.put(*(f"k{n}" for n in range(2000)))
    b.pull(a, A)
    a.put("k5", "k6")
    b.put("other")
    wire = Wire(a, b)
    wire.start()
    assert a.heads == b.heads
    assert wire.bytes < 2500
    assert wire.sessions["b"].counters["rows in"] == 2


@pytest.mark.parametrize("first", ["a", "b"])
def test_of_two_that_compare_at_once_none_waits_for_what_it_lacks(first: str):
    a, b = Member("a"), Member("b")
    a.put("k")
    b.put("other")
    wire = Wire(a, b)
    begun = {name: session.start(0.0) for name, session in wire.sessions.items()}
    for name in sorted(begun, reverse=first == "b"):
        wire.perform(name, begun[name])
    wire.now = 2 * ANNOUNCE_S
    for name, session in wire.sessions.items():
        wire.perform(name, session.on_timer(wire.now))
    assert a.heads == b.heads


def test_an_author_that_has_lost_its_set_hears_of_it_though_only_the_peer_compares():
    a, b = Member("a"), Member("b")
    b.put("old")
    a.pull(b, SetId("b", SCOPE))
    lost = Member("b")
    lost.now = b.now + 1000
    lost.put("new")  # in a higher epoch: for the peer there is more than it has
    wire = Wire(a, lost)
    wire.perform("a", wire.sessions["a"].start(0.0))
    assert wire.sessions["a"].counters["untaken"] == 1
    while wire.now < RETRY_S + ANNOUNCE_S:
        wire.now += ANNOUNCE_S
        for name, session in wire.sessions.items():
            if session.deadline is not None and session.deadline <= wire.now and name == "a":
                wire.perform(name, session.on_timer(wire.now))
    assert lost.keys("b") == a.keys("b") == {"old", "new"}


def test_nobody_yields_twice_in_a_row():
    """A peer that asks again and again would keep us from ever comparing."""
    session = Member("b").session("a")
    for _ in range(2):
        session.start(0.0)
        session.on_frame(body_of(RootAsk(1, groups=True)), 0.0)
        root = Root(session._n, ROSTER.register.digest(), b"other" + bytes(11), groups=True)
        effects = session.on_frame(body_of(root), 0.0)
    assert session.counters["yielded"] == 1
    assert [e.body["t"] for e in effects] == ["groups?"]


def test_a_commit_is_announced_at_once_then_at_most_once_in_100_ms():
    a, b = Member("a"), Member("b")
    wire = Wire(a, b)
    wire.start()
    wire.sent.clear()
    for _ in range(5):
        a.put("k", body=b"\x81\xa1v" + bytes([a.version % 100]))
        wire.perform("a", wire.sessions["a"].on_change({A: a.heads[A]}, wire.now))
        wire.now += 0.01
    assert wire.kinds("a").count("announce") == 1
    assert wire.sessions["a"].deadline == pytest.approx(ANNOUNCE_S)
    wire.now = ANNOUNCE_S
    wire.perform("a", wire.sessions["a"].on_timer(wire.now))
    assert wire.kinds("a").count("announce") == 2
    assert a.heads == b.heads


def test_a_receipt_goes_to_the_author_after_the_commit():
    a, b = Member("a"), Member("b")
    a.put("k")
    b.pull(a, A)
    effects = b.session("a").start(0.0)
    receipts = Receipts("a")
    assert isinstance(effects[0], SendReceipt)
    assert receipts.on_frame("b", effects[0].body, a.heads)
    assert receipts.holder(SCOPE, a.heads[A].head.point, lambda node: True) == "b"
    assert receipts.holder(SCOPE, a.heads[A].head.point, lambda node: False) is None
    epoch, seq = a.heads[A].head.point
    assert receipts.holder(SCOPE, (epoch, seq + 1), lambda node: True) is None


def test_an_answer_that_does_not_come_is_asked_for_again():
    session = Member("a").session("b")
    session.start(0.0)
    assert session.deadline == REPLY_S
    assert session.on_timer(REPLY_S) == []
    retry = session.deadline
    assert retry is not None
    (ask,) = session.on_timer(retry)
    assert isinstance(ask, Send)
    assert ask.body["t"] == "root?"
    assert session.counters["timeouts"] == 1


def test_digests_are_compared_every_minute():
    a, b = Member("a"), Member("b")
    wire = Wire(a, b)
    wire.start()
    assert wire.sessions["a"].deadline == EXCHANGE_S


def test_answers_that_were_not_asked_for_are_dropped_and_counted():
    a, b = Member("a"), Member("b")
    b.put("k")
    set_id = SetId("b", SCOPE)
    session = a.session("b")
    session.start(0.0)
    delta = b.delta_for(a, set_id)
    for message in (
        Deltas(1, (delta,)), Heads(1, (), False), Records(1, (b"x",), False),
        Root(7, bytes(16), bytes(16)),
    ):  # fmt: skip
        body = body_of(message)
        assert session.on_frame(body, 0.0) == []
    assert session.counters["unexpected"] == 4
    assert a.heads == {}


def test_one_pull_is_served_at_a_time_and_only_what_the_peer_carries():
    a = Member("a")
    session = a.session("c")  # c is of another site
    pull = body_of(Pull(1, (Want(A, 0, 0), Want(SetId("a", "fleet"), 0, 0))))
    assert session.on_frame(pull, 0.0) == [Serve(1, (Want(SetId("a", "fleet"), 0, 0),))]
    assert session.on_frame(pull, 0.0) == []
    assert (session.counters["scope"], session.counters["busy"]) == (1, 1)
    a.put("k")
    assert session.on_served(1, [a.delta_for(Member("b"), A)], 0.0) == [
        Send(body_of(Deltas(1, ())))
    ]


def test_a_peer_that_is_no_member_gets_nothing():
    session = Member("a").session("stranger")
    assert session.on_frame(body_of(RootAsk(1)), 0.0) == []
    assert session.counters["not a member"] == 1


def test_a_peer_that_lies_about_heads_is_dropped():
    a = Member("a")
    session = a.session("b")
    known = [Known(SetId("b", SCOPE), 10**6 + n, 5, bytes(16)) for n in range(50)]
    liar = Side("b")
    liar.put("k")
    true = liar.delta_for(a, SetId("b", SCOPE))
    now, effects = 0.0, []
    for n in range(50):
        said = Announce(ROSTER.register.digest(), (known[n],), False)
        effects = session.on_frame(body_of(said), now)
        pulls = [e.body for e in effects if isinstance(e, Send)]
        if not pulls:
            break
        forged = Delta(true.signed._replace(signature=b"no"), 0, true.entries, True)
        (apply,) = session.on_frame(body_of(Deltas(pulls[0]["n"], (forged,))), now)
        assert isinstance(apply, Apply)
        effects = session.on_applied([Outcome.SIGNATURE], now)
        if any(isinstance(e, Drop) for e in effects):
            break
    assert [type(e) for e in effects] == [Drop]
    assert session.counters["strikes"] == STRIKES_MAX
    assert session.deadline is None


def test_a_set_that_is_taken_back_again_and_again_waits_longer_each_time():
    claims, now, times = Claims(), 0.0, 0
    while now < 600.0:
        if claims.take(A, "link", now):
            times += 1
            claims.taken_back(A, now)
        now += 0.1
    assert times < 20
    now += TWIN_MAX_S + TWIN_CALM_S + 1
    claims.taken_back(A, now)
    assert claims.take(A, "link", now + TWIN_S + 0.1)


def test_two_links_do_not_pull_one_set_twice():
    a, b, h = Member("a"), Member("b"), Member("h")
    b.put("k")
    set_id = SetId("b", SCOPE)
    h.pull(b, set_id)
    head = h.heads[set_id].head
    said = body_of(
        Announce(
            ROSTER.register.digest(), (Known(set_id, head.epoch, head.seq, head.root),), False
        )
    )
    one, two = a.session("b"), a.session("h")
    (asked,) = one.on_frame(said, 0.0)
    assert isinstance(asked, Send)
    assert asked.body["t"] == "pull"
    assert two.on_frame(said, 0.0) == []
    assert two.counters["claimed"] == 1
    one.close()
    assert two.deadline is not None
    (ask,) = two.on_timer(two.deadline)
    assert isinstance(ask, Send)


MESSAGES = [
    RootAsk(1), Root(1, bytes(16), bytes(16)), Root(1, bytes(16), bytes(16), True, 7),
    RecordsAsk(1, bytes(16)),
    Records(1, (b"r",), True), HeadsAsk(1, bytes(128)),
    Heads(1, (Known(A, 1, 2, bytes(16)),), False),
    Announce(bytes(16), (Known(A, 1, 2, bytes(16)),), False), Pull(1, (Want(A, 1, 2),)),
]  # fmt: skip


@pytest.mark.parametrize("message", MESSAGES, ids=lambda m: type(m).__name__)
def test_a_message_comes_back_as_it_was(message):
    assert parse(body_of(message)) == message


def test_a_delta_comes_back_as_it_was():
    a = Side("a")
    a.put("k", "l")
    a.put("l", body=None)
    message = Deltas(3, (a.delta_for(Side("b"), A),))
    assert parse(body_of(message)) == message


values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 1 << 65) | st.binary(max_size=40) | st.text(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)
FIELDS = ("t", "n", "g", "r", "have", "records", "more", "buckets", "heads", "wants", "parts")
frames = st.one_of(
    values,
    st.fixed_dictionaries(
        {"t": st.sampled_from(["root?", "root", "records?", "records", "heads?", "heads",
                               "announce", "pull", "delta"])},
        optional=dict.fromkeys(FIELDS[1:], values),
    ),
)  # fmt: skip


@settings(max_examples=300)
@given(st.lists(frames, max_size=8))
def test_garbage_never_raises(bodies):
    session = Member("a").session("b")
    session.start(0.0)
    for n, body in enumerate(bodies):
        session.on_frame(body, float(n))
    receipts = Receipts("a")
    for body in bodies:
        receipts.on_frame("b", body, {})


@settings(max_examples=200)
@given(st.sampled_from(MESSAGES), st.data())
def test_a_spoilt_message_is_refused_or_read_whole(message, data):
    body = body_of(message)
    body[data.draw(st.sampled_from(sorted(body)))] = data.draw(values)
    try:
        parse(body)
    except CodecError:
        pass
    with pytest.raises(CodecError):
        parse_receipt(data.draw(st.lists(values)))


def test_oversized_lists_are_refused():
    with pytest.raises(CodecError):
        parse({"t": "pull", "n": 1, "wants": [["a", SCOPE, 0, 0]] * 257})
    with pytest.raises(CodecError):
        parse({"t": "records", "n": 1, "records": [bytes(65_537)], "more": False})
    with pytest.raises(CodecError):
        parse({"t": "records?", "n": 1, "have": bytes(9)})
    with pytest.raises(CodecError):
        parse_receipt({"sets": [[SCOPE, 1, 1]] * 257})
