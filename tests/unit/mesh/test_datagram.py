"""Sealed datagrams: any order, any loss, nothing twice, no key before the last one."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.proto import datagram
from mesh.proto.datagram import (
    DATAGRAM_BYTES_MAX,
    HEADER,
    HEARTBEAT,
    OVERHEAD_BYTES,
    PAYLOAD_BYTES_MAX,
    STEP_BITS,
    STEPS_AHEAD_MAX,
    WINDOW,
    DatagramSession,
    peek_receiver,
)
from mesh.proto.record import REKEY_S, session_keys


def pair(secret: bytes = bytes(64)) -> tuple[DatagramSession, DatagramSession]:
    keys = session_keys(secret, "udp")
    return DatagramSession(keys, 0.0, dialled=True), DatagramSession(keys, 0.0, dialled=False)


def counter_of(data: bytes) -> int:
    return HEADER.unpack_from(data)[1]


def opened(session: DatagramSession, data: bytes) -> bytes | None:
    found = session.open(data)
    return None if found is None else found.payload


def test_the_limits_are_those_of_the_architecture():
    assert WINDOW == 2_048
    assert DATAGRAM_BYTES_MAX == 1_200
    assert OVERHEAD_BYTES == 33


def test_both_sides_talk_and_the_ids_are_the_receivers():
    a, b = pair()
    data = a.seal(HEARTBEAT, b"alive", 0.0)
    assert peek_receiver(data) == b.receiver != a.receiver
    assert b.open(data) == datagram.Opened(HEARTBEAT, b"alive", newest=True)
    assert opened(a, b.seal(2, bytes(PAYLOAD_BYTES_MAX), 0.0)) == bytes(PAYLOAD_BYTES_MAX)
    assert len(b.seal(2, bytes(PAYLOAD_BYTES_MAX), 0.0)) == DATAGRAM_BYTES_MAX


def test_a_datagram_is_no_good_for_its_own_sender_or_for_another_session():
    a, b = pair()
    _, other = pair(b"x" * 64)
    data = a.seal(HEARTBEAT, b"", 0.0)
    assert a.open(data) is None
    assert other.open(data) is None
    assert opened(b, data) == b""


def test_late_ones_are_taken_once_within_the_window_and_none_beyond_it():
    a, b = pair()
    sent = [a.seal(HEARTBEAT, str(n).encode(), 0.0) for n in range(WINDOW + 1)]
    assert opened(b, sent[-1]) == str(WINDOW).encode()
    assert b.open(sent[0]) is None  # just too old
    late = b.open(sent[1])
    assert late is not None
    assert not late.newest
    assert b.open(sent[1]) is None
    assert b.counters == {"udp_replayed": 2}


def test_every_flipped_bit_is_refused_and_changes_nothing():
    a, b = pair()
    data = a.seal(HEARTBEAT, b"alive", 0.0)
    for bit in range(8 * len(data)):
        forged = bytearray(data)
        forged[bit // 8] ^= 1 << bit % 8
        assert b.open(bytes(forged)) is None
    for cut in range(len(data)):
        assert b.open(data[:cut]) is None
    assert opened(b, data) == b"alive"


def test_the_key_changes_by_time_and_stragglers_of_one_old_key_are_taken():
    a, b = pair()
    assert opened(a, b.seal(HEARTBEAT, b"", 0.0)) == b""
    old = [a.seal(HEARTBEAT, b"old", 0.0) for _ in range(3)]
    new = a.seal(HEARTBEAT, b"new", REKEY_S)
    assert counter_of(new) == 1 << STEP_BITS
    assert opened(b, new) == b"new"
    assert opened(b, old[1]) == b"old"
    assert b.open(old[1]) is None
    assert opened(a, b.seal(HEARTBEAT, b"", REKEY_S)) == b""
    third = a.seal(HEARTBEAT, b"third", 2 * REKEY_S)
    assert opened(b, third) == b"third"
    assert b.open(old[0]) is None
    assert b.counters["udp_wrong_step"] == 1


def test_a_sender_that_hears_nothing_keeps_its_key_so_that_the_receiver_can_follow():
    a, b = pair()
    for day in range(14):
        lost = a.seal(HEARTBEAT, b"", day * 86_400.0)
        assert counter_of(lost) == day
    assert opened(b, a.seal(HEARTBEAT, b"here", 15 * 86_400.0)) == b"here"


def test_the_key_changes_by_count_whether_heard_or_not(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(datagram, "STEP_COUNTERS", 4)
    a, b = pair()
    sent = [a.seal(HEARTBEAT, bytes([n]), 0.0) for n in range(12)]
    assert [counter_of(one) >> STEP_BITS for one in sent] == [0] * 4 + [1] * 4 + [2] * 4
    monkeypatch.undo()
    assert [opened(b, one) for one in sent] == [bytes([n]) for n in range(12)]


def test_missed_key_changes_are_caught_up_to_a_limit():
    for steps, works in ((STEPS_AHEAD_MAX, True), (STEPS_AHEAD_MAX + 1, False)):
        a, b = pair()
        last = b""
        for step in range(steps + 1):
            a._heard = True
            last = a.seal(HEARTBEAT, b"last", REKEY_S * step)
        assert counter_of(last) >> STEP_BITS == steps
        assert (opened(b, last) == b"last") is works


@given(st.binary(max_size=DATAGRAM_BYTES_MAX + 50), st.booleans())
def test_garbage_never_raises(data: bytes, addressed: bool):
    _, b = pair()
    if addressed:
        data = b.receiver.to_bytes(8, "big") + data
    peek_receiver(data)
    assert b.open(data) is None
    assert sum(b.counters.values()) == 1


@settings(max_examples=50)
@given(st.integers(0, 2**32), st.integers(1, 9), st.integers(2, 2_500))
def test_no_datagram_is_taken_twice_in_any_order_with_any_loss(seed: int, steps: int, far: int):
    """Against a model: taken iff new, of one of the last two keys, within the window."""
    rng = random.Random(seed)
    a, b = pair()
    sent: list[bytes] = []
    now = 0.0
    for _ in range(steps):
        if rng.random() < 0.3:
            now += REKEY_S
            a._heard = True
        sent += [a.seal(HEARTBEAT, b"", now) for _ in range(rng.randrange(1, far))][-60:]
    arriving = [one for one in sent * 2 if rng.random() < 0.8]
    rng.shuffle(arriving)
    if rng.random() < 0.5:  # nearly in order
        arriving.sort(key=lambda one: counter_of(one) + rng.randrange(50))
    taken: set[int] = set()
    newest: dict[int, int] = {0: -1}
    top = 0
    kept = {0}
    for one in arriving:
        counter = counter_of(one)
        step, count = counter >> STEP_BITS, counter & (1 << STEP_BITS) - 1
        good = (
            counter not in taken
            and (step in kept or step > top)
            and count > newest.get(step, -1) - WINDOW
        )
        assert (b.open(one) is not None) is good
        if good:
            taken.add(counter)
            newest[step] = max(newest.get(step, -1), count)
            if step > top:
                top, kept = step, {step, step - 1}
