"""The core of a link: HELLO, services, calls, streams with credit, time, and hostile peers."""

import random
from collections.abc import Callable

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.proto import link
from mesh.proto.frames import (
    Answer,
    Bye,
    Call,
    Credit,
    Data,
    End,
    Frame,
    Hello,
    Open,
    Ping,
    Pong,
    Refusal,
    Reset,
    Service,
    decode,
    encode,
    make_hello,
)
from mesh.proto.link import CALLS_MAX, FIRST_STREAM_ID, STREAMS_MAX, LinkCore
from mesh.proto.link_effects import (
    Answered,
    CallDropped,
    Called,
    CallRefused,
    Closed,
    Effect,
    Ended,
    Granted,
    Opened,
    Ready,
    Received,
    Send,
)

HELLO = make_hello("main", "test", b"session1")


class Pair:
    """Two cores and the wire between them; ``seen`` are the effects that are no Send."""

    def __init__(self, a: Hello = HELLO, b: Hello = HELLO) -> None:
        self.now = 100.0
        self.sides = {"a": LinkCore(a, dialled=True), "b": LinkCore(b, dialled=False)}
        self.wire: list[tuple[str, bytes]] = []
        self.seen: dict[str, list[Effect]] = {"a": [], "b": []}
        for side in ("a", "b"):
            self.do(side, self.sides[side].start(self.now))

    @property
    def a(self) -> LinkCore:
        return self.sides["a"]

    @property
    def b(self) -> LinkCore:
        return self.sides["b"]

    def do(self, side: str, effects: list[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Send):
                self.wire.append(("b" if side == "a" else "a", effect.message))
                self.sides[side].on_sent(self.now)
            else:
                self.seen[side].append(effect)

    def run(self) -> "Pair":
        while self.wire:
            to, message = self.wire.pop(0)
            self.do(to, self.sides[to].on_message(message, self.now))
        return self

    def take(self, side: str) -> list[Effect]:
        seen, self.seen[side] = self.seen[side], []
        return seen

    def frames(self) -> list[Frame | None]:
        found = [decode(message) for _, message in self.wire]
        self.wire.clear()
        return found


def ready() -> Pair:
    pair = Pair().run()
    assert [type(effect) for effect in pair.take("a") + pair.take("b")] == [Ready, Ready]
    return pair


def closed(pair: Pair, side: str) -> str:
    found = [effect for effect in pair.seen[side] if isinstance(effect, Closed)]
    assert len(found) == 1
    return found[0].reason


def test_the_acceptor_answers_with_the_diallers_kind():
    pair = Pair(make_hello("bulk", "x", b"a"), make_hello("main", "y", b"b")).run()
    assert pair.a.peer_hello is not None
    assert pair.b.peer_hello is not None
    assert (pair.a.peer_hello.kind, pair.b.peer_hello.kind) == ("bulk", "bulk")
    assert (pair.a.peer_hello.build, pair.b.peer_hello.build) == ("y", "x")


@pytest.mark.parametrize(
    ("ours", "theirs", "wire"),
    [((1, 3), (1, 1), 1), ((1, 3), (2, 5), 3), ((4, 6), (2, 4), 4), ((3, 5), (1, 2), None)],
)
def test_the_highest_common_wire_version_is_taken(
    ours: tuple[int, int], theirs: tuple[int, int], wire: int | None
):
    pair = Pair(Hello(*ours, "x", 1, "main", b"a"), Hello(*theirs, "y", 1, "main", b"b")).run()
    if wire is None:
        assert "no common wire version: 3 to 5" in closed(pair, "a") + closed(pair, "b")
        return
    for side in ("a", "b"):
        [effect] = pair.take(side)
        assert isinstance(effect, Ready)
        assert effect.wire == wire


def test_anything_before_hello_closes_the_link():
    for message in (
        encode(Ping(1)),
        b"garbage",
        encode(Service("sync", 1)),
        encode(Data(1, b"")),
    ):
        core = LinkCore(HELLO, dialled=False)
        core.start(0.0)
        assert isinstance(core.on_message(message, 0.0)[-1], Closed)


def test_a_peer_that_says_no_hello_is_closed_in_time():
    core = LinkCore(HELLO, dialled=False)
    core.start(5.0)
    assert core.deadline == 5.0 + link.HELLO_S
    assert core.on_timer(14.9) == []
    assert isinstance(core.on_timer(15.0)[-1], Closed)
    assert core.deadline is None


def test_a_service_message_arrives_and_is_paid_for():
    pair = ready()
    pair.do("a", pair.a.service("sync", {"x": 1}))
    pair.run()
    [effect] = pair.take("b")
    assert isinstance(effect, Received)
    assert (effect.flow, effect.body) == (1, {"x": 1})
    assert effect.charge > link.MESSAGE_OVERHEAD


def test_a_flow_without_credit_may_not_send_until_the_consumer_took():
    pair = ready()
    sent = 0
    while pair.a.may_send(1):
        pair.do("a", pair.a.service("sync", bytes(100_000)))
        sent += 1
    assert sent == -(-link.SERVICE_WINDOW // 100_070)
    pair.run()
    received = [effect for effect in pair.take("b") if isinstance(effect, Received)]
    assert len(received) == sent
    assert not pair.a.may_send(1)
    assert pair.a.may_send(2)  # another service is not held up
    for effect in received[: sent // 2 + 2]:
        pair.do("b", pair.b.taken(effect.flow, effect.charge))
    pair.run()
    assert Granted(1) in pair.take("a")
    assert pair.a.may_send(1)


def test_a_peer_that_overruns_its_credit_is_closed():
    pair = ready()
    message = encode(Service("sync", bytes(1 << 20)))
    for _ in range(5):
        pair.do("b", pair.b.on_message(message, pair.now))
    assert "overran" in closed(pair, "b")


def test_a_call_is_answered_refused_or_forgotten():
    pair = ready()
    first, effects = pair.a.call("one", [1], 5.0)
    pair.do("a", effects)
    second, effects = pair.a.call("two", [2], 5.0)
    pair.do("a", effects)
    third, effects = pair.a.call("three", [3], 5.0)
    pair.do("a", effects)
    pair.run()
    assert pair.take("b") == [
        Called(first, "one", 5.0, [1]),
        Called(second, "two", 5.0, [2]),
        Called(third, "three", 5.0, [3]),
    ]
    pair.do("b", pair.b.answer(first, "yes"))
    pair.do("b", pair.b.refuse(second, "no"))
    pair.do("a", pair.a.forget(third))
    pair.run()
    assert pair.take("a") == [Answered(first, "yes"), CallRefused(second, "no", failed=False)]
    assert pair.take("b") == [CallDropped(third)]
    assert pair.b.answer(third, "late") == []
    assert pair.b.answer(first, "twice") == []


def test_too_many_calls_or_call_bytes_are_refused_at_once():
    pair = ready()
    for number in range(1, CALLS_MAX + 2):
        pair.do("b", pair.b.on_message(encode(Call(number, "m", 1, None)), pair.now))
    assert pair.frames() == [Refusal(CALLS_MAX + 1, "too many calls at once", failed=False)]
    pair = ready()
    for number in range(1, 10):
        message = encode(Call(number, "m", 1, bytes(1 << 20)))
        pair.do("b", pair.b.on_message(message, pair.now))
    assert len(pair.frames()) == 2


def open_stream(pair: Pair) -> int:
    flow, effects = pair.a.open("console", "body")
    pair.do("a", effects)
    pair.run()
    assert pair.take("b") == [Opened(flow, "console", "body")]
    pair.do("b", pair.b.accept(flow))
    pair.run()
    assert pair.take("a") == [Granted(flow)]
    return flow


def test_a_stream_carries_data_both_ways_and_ends_when_both_have_ended():
    pair = ready()
    flow = open_stream(pair)
    pair.do("a", pair.a.send_data(flow, b"in"))
    pair.do("b", pair.b.send_data(flow, b"out"))
    pair.do("a", pair.a.end(flow))
    pair.run()
    assert [(e.flow, e.body) for e in pair.take("a") if isinstance(e, Received)] == [
        (flow, b"out")
    ]
    received, ended = pair.take("b")
    assert isinstance(received, Received)
    assert ended == Ended(flow, None)
    assert pair.b.may_send(flow)
    assert not pair.a.may_send(flow)
    pair.do("b", pair.b.end(flow))
    pair.run()
    assert pair.take("a") == [Ended(flow, None)]
    assert not pair.a.alive(flow)
    assert not pair.b.alive(flow)


def test_the_opener_may_send_only_once_the_acceptor_took_the_stream():
    pair = ready()
    flow, effects = pair.a.open("x", None)
    pair.do("a", effects)
    assert not pair.a.may_send(flow)


def test_a_broken_stream_is_over_for_both_and_late_data_is_counted():
    pair = ready()
    flow = open_stream(pair)
    pair.do("a", pair.a.send_data(flow, b"late"))
    pair.do("b", pair.b.reset(flow, "enough"))
    pair.run()
    assert pair.take("a") == [Ended(flow, "enough")]
    assert pair.take("b") == []
    assert pair.b.counters["late_data"] == 1
    assert pair.a.reset(flow, "again") == []


def test_streams_have_a_number_a_parity_and_an_order():
    pair = ready()
    first = FIRST_STREAM_ID + 1
    for number in range(STREAMS_MAX + 1):
        message = encode(Open(first + 2 * number, "x", 0, None))
        pair.do("b", pair.b.on_message(message, pair.now))
    assert pair.frames() == [Reset(first + 2 * STREAMS_MAX, "too many streams at once")]
    before = pair.b.counters["nonsense"]
    for wrong in (first, first + 1, 1, 2, first + 2 * STREAMS_MAX):
        pair.do("b", pair.b.on_message(encode(Open(wrong, "x", 0, None)), pair.now))
    assert pair.b.counters["nonsense"] == before + 5
    pair.do("b", pair.b.reset(first, "bye"))
    pair.frames()
    new = encode(Open(first + 2 * STREAMS_MAX + 2, "x", 0, None))
    pair.take("b")
    pair.do("b", pair.b.on_message(new, pair.now))
    assert isinstance(pair.take("b")[0], Opened)


def test_a_quiet_link_pings_and_measures_and_a_silent_peer_is_gone():
    pair = ready()
    pair.now += link.PING_S
    pair.do("a", pair.a.on_timer(pair.now))
    pair.now += 0.25
    pair.run()
    assert pair.a.round_trip_s == 0.25
    assert pair.a.deadline is not None
    while pair.a.closed is None:
        pair.now = pair.a.deadline or pair.now
        pair.do("a", pair.a.on_timer(pair.now))
    assert "silent" in closed(pair, "a")
    assert pair.now <= 100 + link.PING_S + 0.25 + link.SILENCE_S


def test_the_pings_of_the_dialler_do_for_both_sides_and_both_know_the_round_trip():
    pair = ready()
    dialler, other = pair.a, pair.b
    until = pair.now + 600.0
    while pair.now < until:
        pair.now = min(pair.a.deadline or until, pair.b.deadline or until)
        for name, side in pair.sides.items():
            pair.do(name, side.on_timer(pair.now))
        pair.run()
    assert pair.a.closed is None
    assert pair.b.closed is None
    assert 55 <= dialler._pings <= 61
    assert 9 <= other._pings <= 11
    assert dialler.round_trip_s is not None
    assert other.round_trip_s is not None


def test_bye_closes_with_the_peers_reason_and_nothing_happens_afterwards():
    pair = ready()
    pair.do("a", pair.a.close("restart"))
    pair.run()
    assert closed(pair, "a") == closed(pair, "b") == "restart"
    assert pair.a.on_message(encode(Ping(1)), 1.0) == []
    assert pair.a.on_timer(1e9) == []
    assert pair.a.close("again") == []
    assert pair.b.answer(1, None) == []
    assert pair.b.accept(17) == []


@pytest.mark.parametrize(
    "message",
    [b"\xc1", b"", encode(HELLO), encode(End(1)), encode(End(99)), msgpack.packb([4])],
)
def test_so_much_nonsense_closes_the_link(message: bytes):
    pair = ready()
    for _ in range(link.NONSENSE_MAX + 1):
        assert pair.b.closed is None
        pair.do("b", pair.b.on_message(message, pair.now))
    assert "nonsense" in closed(pair, "b")


def test_frames_of_a_newer_peer_are_dropped_and_counted_for_ever():
    pair = ready()
    for _ in range(1000):
        pair.do("b", pair.b.on_message(msgpack.packb([99, "new"]), pair.now))
    assert pair.b.closed is None
    assert pair.b.counters["unknown_frames"] == 1000


FRAMES: list[Callable[[random.Random], Frame]] = [
    lambda r: Call(r.randrange(4), "m", 1, None),
    lambda r: Answer(r.randrange(4), None),
    lambda r: Refusal(r.randrange(4), "no", failed=False),
    lambda r: Open(r.randrange(30), "n", r.randrange(100), None),
    lambda r: Data(r.randrange(30), b"x"),
    lambda r: Credit(r.randrange(30), r.randrange(1 << 30)),
    lambda r: End(r.randrange(30)),
    lambda r: Reset(r.randrange(30), "r"),
    lambda _: Ping(1),
    lambda _: Pong(1),
    lambda _: HELLO,
    lambda r: Service("sync", r.randrange(9)),
    lambda _: Bye("x"),
]


@given(st.integers(0, 2**32), st.booleans(), st.lists(st.binary(max_size=40), max_size=5))
def test_garbage_never_raises_whatever_the_order(seed: int, dialled: bool, noise: list[bytes]):
    rng = random.Random(seed)
    core = LinkCore(HELLO, dialled=dialled)
    core.start(0.0)
    if rng.random() < 0.9:
        core.on_message(encode(HELLO), 0.0)
        if core.peer_hello is not None:
            core.call("m", None, 1.0)
            core.open("n", None)
    for step in range(60):
        message = encode(rng.choice(FRAMES[:-1] if rng.random() < 0.99 else FRAMES)(rng))
        if noise and rng.random() < 0.2:
            message = rng.choice(noise)
        for effect in core.on_message(message, float(step)):
            match effect:
                case Called(call_id):
                    core.answer(call_id, None)
                case Opened(flow):
                    core.accept(flow)
                case Received(flow, _, charge):
                    core.taken(flow, charge)
                case _:
                    pass
        core.on_timer(float(step))
    assert core._their_bytes >= 0
    assert 0 <= core._peer_streams <= STREAMS_MAX


@pytest.mark.parametrize("seed", range(20))
def test_calls_and_streams_over_a_wire_of_random_delays(seed: int):
    """Each direction keeps its order (records do), but everything else is up to the seed."""
    rng = random.Random(seed)
    pair = ready()
    sent: dict[int, list[bytes]] = {}
    got: dict[int, list[bytes]] = {}
    answers = 0
    asked = 0
    for _ in range(600):
        roll = rng.random()
        if roll < 0.05 and len(sent) < 20:
            flow, effects = pair.a.open("n", None)
            sent[flow], got[flow] = [], []
            pair.do("a", effects)
        elif roll < 0.3 and sent:
            flow = rng.choice(list(sent))
            if pair.a.may_send(flow):
                data = rng.randbytes(rng.randrange(60_000))
                sent[flow].append(data)
                pair.do("a", pair.a.send_data(flow, data))
        elif roll < 0.4 and asked - answers < CALLS_MAX:
            asked += 1
            pair.do("a", pair.a.call("m", asked, 1.0)[1])
        elif pair.wire:
            side = rng.choice("ab")
            index = next((i for i, (to, _) in enumerate(pair.wire) if to == side), 0)
            to, message = pair.wire.pop(index)
            pair.do(to, pair.sides[to].on_message(message, pair.now))
        answers += settle(pair, got)
    while pair.wire:
        pair.run()
        answers += settle(pair, got)
    assert answers == asked
    assert sent == got
    assert not pair.a.counters
    assert not pair.b.counters


def settle(pair: Pair, got: dict[int, list[bytes]]) -> int:
    for effect in pair.take("b"):
        match effect:
            case Called(call_id, _, _, body):
                pair.do("b", pair.b.answer(call_id, body))
            case Opened(flow):
                pair.do("b", pair.b.accept(flow))
            case Received(flow, data, charge):
                got[flow].append(data)
                pair.do("b", pair.b.taken(flow, charge))
            case _:
                raise AssertionError(effect)
    return sum(isinstance(effect, Answered) for effect in pair.take("a"))
