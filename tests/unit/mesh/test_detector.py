"""The failure detector's core: crashes, groups, liars, floods; sites without loss."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.errors import CodecError
from mesh.proto import detector_wire as wire
from mesh.proto.detector import (
    HEAR_S,
    LATE_S,
    OPINIONS_A_BEAT_MAX,
    PROBE_S,
    REFUSED_S,
    SILENCE_S,
    STABLE_S,
    Detector,
)
from mesh.proto.detector_effects import Changed, Send
from mesh.proto.detector_wire import BEAT, HEARD, PING, PONG, SUSPECT, Opinion, encode_opinion
from mesh.proto.observers import OBSERVERS, Ring
from mesh.proto.suspicion import MISSED_S, Suspicion
from tests.sim.detection import Node, Site
from tests.sim.weather import Weather

QUIET_S = 10.0


def quiet(size: int, udp: bool = True, make: Callable[..., Detector] = Detector) -> Site:
    """Return a site without loss and stalls, at rest."""
    site = Site(7, Weather(7, size, loss=0.0, stalled=0.0), udp=udp, make=make)
    site.run_until(QUIET_S)
    assert not any(node.core.unreachable for node in site.nodes)
    return site


def alive(site: Site) -> list[Node]:
    return [node for node in site.nodes if node.died_at is None]


def missing(site: Site) -> list[set[str]]:
    return [set(node.core.unreachable) for node in alive(site)]


@pytest.mark.parametrize("udp", [True, False], ids=["udp", "link alone"])
@pytest.mark.parametrize("size", [2, 3, 4, 7, 20])
def test_a_machine_that_loses_power_is_seen_by_all_within_five_seconds(size: int, udp: bool):
    site = quiet(size, udp)
    site.crash(site.nodes[1], power=True, back_s=100.0)
    site.run_until(QUIET_S + SILENCE_S - 1)
    assert missing(site) == [set()] * (size - 1)
    site.run_until(QUIET_S + 5)
    assert missing(site) == [{"n001"}] * (size - 1)
    assert max(site.seen_s) <= SILENCE_S + STABLE_S + 0.1


@pytest.mark.parametrize("size", [2, 3, 4, 20])
def test_a_process_whose_machine_refuses_us_is_seen_sooner(size: int):
    site = quiet(size)
    site.crash(site.nodes[1], power=False, back_s=100.0)
    site.run_until(QUIET_S + 5)
    assert missing(site) == [{"n001"}] * (size - 1)
    assert max(site.seen_s) <= REFUSED_S + STABLE_S + 0.5


@pytest.mark.parametrize("size", [2, 3, 20])
def test_a_node_that_comes_back_is_reachable_at_its_first_word(size: int):
    site = quiet(size)
    site.crash(site.nodes[1], power=False, back_s=20.0)
    site.run_until(QUIET_S + 19.9)
    assert missing(site) == [{"n001"}] * (size - 1)
    site.run_until(QUIET_S + 20.6)
    assert missing(site) == [set()] * size


def test_nodes_that_fall_together_are_one_event():
    site = quiet(20)
    for number in (3, 8, 9, 15, 16):
        site.crash(site.nodes[number], power=True, back_s=100.0)
    site.run_until(QUIET_S + 6)
    assert missing(site) == [{"n003", "n008", "n009", "n015", "n016"}] * 15
    assert site.counters["falls"] <= 2 * 15  # heartbeats differ by up to a second


def test_half_a_site_that_falls_is_seen_by_the_other_half():
    site = quiet(20)
    gone = {f"n{number:03d}" for number in range(10)}
    for number in range(10):
        site.crash(site.nodes[number], power=True, back_s=100.0)
    site.run_until(QUIET_S + 15)
    assert missing(site) == [gone] * 10


def test_a_newcomer_learns_from_the_others_who_has_been_gone_for_long():
    site = quiet(8)
    site.crash(site.nodes[1], power=True, back_s=1e6)
    site.run_until(QUIET_S + 30)
    for round_, number in enumerate([0, 2, 3, 4, 5, 6, 7]):  # each one starts anew meanwhile
        site.crash(site.nodes[number], power=False, back_s=10.0)
        site.run_until(QUIET_S + 30 + 20 * (round_ + 1))
        assert missing(site) == [{"n001"}] * 7


def test_an_observer_that_was_stalled_accuses_nobody():
    site = quiet(5)
    stalled = site.nodes[2]
    site._stall(stalled)
    site.run_until(QUIET_S + 8)
    assert missing(site)[0] == {"n002"}
    site._wake(stalled)
    site.run_until(QUIET_S + 8.1)
    assert missing(site) == [set()] * 5
    site.run_until(QUIET_S + 20)
    assert stalled.core.counters["woke"] == 1
    assert stalled.core.counters["given_up"] == 0


def test_who_is_missed_itself_cannot_keep_an_old_accusation_alive():
    """It said so, stalled, and could not take it back: others had heard the member since."""
    case = Suspicion("n007")
    case.opinions = {"n001": (SUSPECT, 10.0), "n002": (SUSPECT, 10.0), "n003": (HEARD, 12.0)}
    observers = ["n001", "n002", "n003", "n004"]
    assert case.tally(observers, {}, 30.0) == (2, [])
    assert case.tally(observers, {"n001"}, 30.0) == (1, [])
    assert case.tally(observers, {"n001", "n002"}, 10.0 + MISSED_S - 0.1)[0] == 2
    assert case.tally(observers, {"n001", "n002"}, 10.0 + MISSED_S)[0] == 0


@pytest.mark.parametrize("speaks", [True, False])
def test_no_verdict_falls_on_a_late_timer_before_what_waits_was_heard(speaks: bool):
    core = Detector("a", b"site", lambda: 0.5)
    core.start(0.0)
    core.set_members(["a", "b"], 0.0)
    core.on_datagram("b", BEAT, 1.0)
    due, now = 1.0 + SILENCE_S + STABLE_S, 1.0
    while core.deadline is not None and core.deadline < due:
        now = core.deadline
        core.on_timer(now)
    late = due + LATE_S - 0.1  # too short to count as a stall of ours
    assert not any(isinstance(one, Changed) for one in core.on_timer(late))
    if speaks:
        core.on_datagram("b", BEAT, late + 0.01)
    fell: list[Changed] = []
    while core.deadline is not None and core.deadline < late + 2 * HEAR_S:
        fell += [one for one in core.on_timer(core.deadline) if isinstance(one, Changed)]
    assert [one.down for one in fell] == ([] if speaks else [("b",)])


class Liar(Detector):
    """Says of ``n001`` what it is told to say, to everybody, all the time."""

    claim = SUSPECT

    def on_timer(self, now: float) -> list[Send | Changed]:
        effects = super().on_timer(now)
        lie = encode_opinion(Opinion("n001", self.claim, 60.0 if self.claim == SUSPECT else 0))
        return [*effects, Send(self._others, lie, "link")]


class Denier(Liar):
    """Says that it hears ``n001``."""

    claim = HEARD


def with_liar(size: int, liar: type[Detector]) -> Site:
    return quiet(size, make=lambda me, *rest: (liar if me == "n000" else Detector)(me, *rest))


@pytest.mark.parametrize("size", [2, 3, 4, 5, 20])
def test_one_liar_makes_nobody_unreachable(size: int):
    site = with_liar(size, Liar)
    site.run_until(QUIET_S + 60)
    assert not any(node.core.unreachable for node in site.nodes[1:])


@pytest.mark.parametrize("size", [4, 5, 20])
def test_one_liar_keeps_no_dead_node_alive(size: int):
    site = with_liar(size, Denier)
    site.crash(site.nodes[1], power=True, back_s=100.0)
    site.run_until(QUIET_S + 5)
    assert [set(node.core.unreachable) for node in site.nodes[2:]] == [{"n001"}] * (size - 2)
    site.run_until(QUIET_S + 60)
    assert [set(node.core.unreachable) for node in site.nodes[2:]] == [{"n001"}] * (size - 2)


def one(*members: str) -> Detector:
    core = Detector("me", b"site", lambda: 0.5)
    core.start(100.0)
    core.set_members(["me", *members], 100.0)
    return core


def test_who_does_not_belong_is_not_heard():
    core = one("a", "b")
    core.on_datagram("x", BEAT, 100.1)
    core.on_frame("x", encode_opinion(Opinion("a", SUSPECT, 9.0)), 100.1)
    core.on_frame("a", encode_opinion(Opinion("x", SUSPECT, 9.0)), 100.1)
    core.on_frame("a", encode_opinion(Opinion("a", SUSPECT, 9.0)), 100.1)
    assert core.counters["strangers"] == 4
    assert not core._cases


def test_an_opinion_over_udp_and_a_flood_of_opinions_are_dropped():
    core = one("a", "b")
    opinion = encode_opinion(Opinion("b", SUSPECT, 9.0))
    core.on_datagram("a", opinion, 100.1)
    assert core.counters["misplaced"] == 1
    assert not core._cases
    for _ in range(OPINIONS_A_BEAT_MAX + 5):
        core.on_frame("a", opinion, 100.2)
    assert core.counters["flood"] == 6


def test_pings_are_answered_on_their_own_way_and_not_without_end():
    core = one("a")
    assert core.on_datagram("a", PING, 100.1) == [Send(("a",), PONG, "cheap")]
    assert core.on_frame("a", PING, 100.1) == [Send(("a",), PONG, "link")]
    assert core.on_datagram("a", PING, 100.11) == []


def test_who_is_suspected_and_lives_says_so():
    core = one("a", "b")
    said = core.on_frame("a", encode_opinion(Opinion("me", SUSPECT, 3.0)), 100.1)
    assert said == [Send(("a",), BEAT, "every")]


def test_a_member_that_leaves_is_forgotten():
    core = one("a", "b", "c")
    core.unreachable["a"] = 100.0
    core._cases["a"] = core._case("a")
    core._cases["a"].settled = True
    assert Changed((), ("a",)) in core.set_members(["me", "b", "c"], 101.0)
    assert not core.unreachable
    assert not core._cases
    core.on_datagram("a", BEAT, 101.1)
    assert core.counters["strangers"] == 1


def test_a_timer_never_comes_due_without_moving_on():
    core, now = one("a", "b"), 100.0
    core.on_datagram("a", BEAT, 100.3)
    for _ in range(400):
        assert core.deadline is not None
        now = max(now, core.deadline)
        core.on_timer(now)
        assert core.deadline > now or core.deadline == now == core._wake_at
    assert now > 100 + 20


MESSAGES = st.binary(max_size=300) | st.builds(
    lambda of, state, age: encode_opinion(Opinion(of, state, age)),
    st.sampled_from(["a", "b", "c", "me", "x"]),
    st.sampled_from([0, 1, 2]),
    st.floats(0, 1e9),
) | st.sampled_from([BEAT, PING, PONG])  # fmt: skip


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["datagram", "frame", "timer", "up", "refused"]),
            st.sampled_from(["a", "b", "c", "me", "x"]),
            MESSAGES | st.none() | st.integers() | st.lists(st.integers()),
            st.floats(0, 6),
        ),
        max_size=40,
    )
)
def test_garbage_never_raises(events: list[tuple[str, str, object, float]]):
    core, now = one("a", "b", "c"), 100.0
    for kind, peer, data, step in events:
        now += step
        if kind == "datagram" and isinstance(data, bytes):
            core.on_datagram(peer, data, now)
        elif kind == "frame":
            core.on_frame(peer, data, now)
        elif kind == "up":
            core.on_link_up(peer, now)
        elif kind == "refused":
            core.on_refused(peer, now)
        core.on_timer(now)
        assert core.deadline is not None
        assert len(core._cases) <= 3
        assert core.unreachable.keys() <= {"a", "b", "c"}


@given(st.binary(max_size=300))
def test_a_message_comes_back_or_is_a_codec_error(data: bytes):
    try:
        message = wire.decode(data)
    except CodecError:
        return
    if isinstance(message, Opinion):
        assert wire.decode(encode_opinion(message)) == message


@pytest.mark.parametrize("data", [b"", b"\x00", b"\x05", b"\x04", b"\x04\x03\0\0\0\0a",
                                  b"\x04\x01\0\0\0\0", b"\x01" * 257, b"\x04\x01\0\0\0\0\xff",
                                  None, 1, "x", bytearray(b"\x01")])  # fmt: skip
def test_malformed_messages_are_refused(data: object):
    with pytest.raises(CodecError):
        wire.decode(data)


def test_everybody_finds_the_same_ring_and_each_member_its_observers():
    members = [f"m{number}" for number in range(30)]
    a, b = Ring(b"k", members), Ring(b"k", reversed(members))
    for member in members:
        seats = a.observers(member, ())
        assert seats == b.observers(member, ())
        assert len(seats) == OBSERVERS
        assert member not in seats
        assert all(member in a.before(seat, ()) for seat in seats)
    assert Ring(b"other", members).observers("m0", ()) != a.observers("m0", ())


def test_unreachable_members_are_passed_over_but_still_observed():
    members = [f"m{number}" for number in range(10)]
    ring = Ring(b"k", members)
    gone = set(ring.observers("m0", ())[:3])
    assert not gone & set(ring.observers("m0", gone))
    assert len(ring.observers("m0", gone)) == OBSERVERS
    assert gone <= set(ring.after("m0", gone))
    for member in gone:
        for seat in ring.observers(member, gone):
            assert member in ring.before(seat, gone)


def test_the_limits_fit_each_other():
    assert SILENCE_S + STABLE_S < 5
    assert MISSED_S > SILENCE_S + STABLE_S
    assert PROBE_S < REFUSED_S + 0.25 < SILENCE_S
