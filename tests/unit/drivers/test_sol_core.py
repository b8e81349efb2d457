"""Serial over LAN without I/O: what is acknowledged, what is repeated, what ends it."""

import random
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.proto import sol
from drivers.proto.ipmi import NotIpmi

SESSION = 0x01020304
OURS = SESSION.to_bytes(4, "little")


def channel(chunk: int = 20) -> sol.SolChannel:
    made = sol.SolChannel(chunk, SESSION)
    assert made.start(0.0) == []
    assert made.on_timer(0.0) == [sol.AskOwner()]
    assert made.on_owner(0, bytes(4), 0.0) == []  # it numbers sessions otherwise
    return made


def sent(effects: list[sol.Effect]) -> list[bytes]:
    return [effect.payload for effect in effects if isinstance(effect, sol.Send)]


def received(effects: list[sol.Effect]) -> bytes:
    return b"".join(effect.data for effect in effects if isinstance(effect, sol.Received))


def ended(effects: list[sol.Effect]) -> sol.Ended | None:
    return next((effect for effect in effects if isinstance(effect, sol.Ended)), None)


def test_what_the_server_writes_is_acknowledged_with_its_count() -> None:
    effects = channel().on_payload(b"\x03\0\0\0login: ", 1.0)
    assert effects == [sol.Send(b"\0\x03\x07\0"), sol.Received(b"login: ")]


def test_a_repetition_is_delivered_once_and_what_it_adds_too() -> None:
    open_ = channel()
    open_.on_payload(b"\x03\0\0\0abc", 1.0)
    again = open_.on_payload(b"\x03\0\0\0abc", 2.0)
    assert (sent(again), received(again)) == ([b"\0\x03\x03\0"], b"")
    more = open_.on_payload(b"\x03\0\0\0abcde", 3.0)
    assert (sent(more), received(more)) == ([b"\0\x03\x05\0"], b"de")


def test_one_packet_is_under_way_and_the_next_waits_for_its_acknowledgement() -> None:
    open_ = channel(4)
    assert sent(open_.send(b"abcdef", 0.0)) == [b"\x01\0\0\0abcd"]
    assert sent(open_.send(b"gh", 0.0)) == []
    assert sent(open_.on_payload(b"\0\x01\x04\0", 0.1)) == [b"\x02\0\0\0efgh"]
    assert sent(open_.on_payload(b"\0\x02\x04\0", 0.2)) == []
    assert open_.idle


def test_numbers_go_from_15_to_1() -> None:
    open_ = channel(1)
    numbers = [sent(open_.send(b"x" * 17, 0.0))[0][0]]
    for _ in range(16):
        ack = bytes((0, numbers[-1], 1, 0))
        numbers.append(sent(open_.on_payload(ack, 0.1))[0][0])
    assert numbers == [*range(1, 16), 1, 2]


def test_what_was_accepted_in_part_is_sent_on_under_a_new_number() -> None:
    open_ = channel()
    open_.send(b"abcdef", 0.0)
    assert sent(open_.on_payload(b"\0\x01\x02\x40", 0.1)) == [b"\x02\0\0\0cdef"]


def test_what_was_not_accepted_is_held_and_sent_again() -> None:
    open_ = channel()
    open_.send(b"abc", 0.0)
    assert sent(open_.on_payload(b"\0\x01\0\x40", 0.1)) == []
    assert open_.deadline == pytest.approx(0.1 + sol.HELD_RETRY_S)
    assert sent(open_.on_timer(0.7)) == [b"\x02\0\0\0abc"]
    assert sent(open_.on_payload(b"\0\x02\x03\0", 0.8)) == []
    assert open_.idle


def test_characters_for_a_server_without_power_are_dropped_with_a_notice() -> None:
    open_ = channel()
    open_.send(b"abc", 0.0)
    open_.send(b"def", 0.0)
    now, number, effects = 0.0, 1, list[sol.Effect]()
    while not any(isinstance(effect, sol.Notice) for effect in effects):
        effects = open_.on_payload(bytes((0, number, 0, 0x60)), now)
        assert now <= sol.HELD_S_MAX + 1
        now += sol.HELD_RETRY_S
        number = next((raw[0] for raw in sent(open_.on_timer(now))), number)
    assert "power is off" in str(effects)
    assert "6 were dropped" in str(effects)
    assert open_.idle


def test_a_lost_packet_is_repeated_unchanged_and_at_last_the_console_is_lost() -> None:
    open_ = channel()
    first = sent(open_.send(b"abc", 0.0))
    seen, now = list[bytes](), 0.0
    end: sol.Ended | None = None
    while end is None:
        assert open_.deadline is not None
        now = open_.deadline
        effects = open_.on_timer(now)
        seen += sent(effects)
        end = ended(effects)
    assert seen == first * (len(sol.RESEND_S) - 1)
    assert end.lost
    assert "has not answered for" in end.text
    assert open_.deadline is None
    assert open_.send(b"x", now) == []


def test_a_break_is_a_packet_of_its_own_in_its_place() -> None:
    open_ = channel()
    open_.send(b"a", 0.0)
    open_.send_break(0.0)
    open_.send_break(0.0)
    open_.send(b"b", 0.0)
    assert sent(open_.on_payload(b"\0\x01\x01\0", 0.1)) == [b"\x02\0\0\x10"]
    assert sent(open_.on_payload(b"\0\x02\0\0", 0.2)) == [b"\x03\0\0\0b"]


def test_a_console_taken_over_ends_and_is_not_called_lost() -> None:
    end = ended(channel().on_payload(b"\0\0\0\x10", 1.0))
    assert end is not None
    assert not end.lost
    assert "another client" in end.text


def test_a_silent_console_is_asked_for_a_sign_of_life_and_then_given_up() -> None:
    open_ = channel()
    now, asked, end = 0.0, 0, None
    for _ in range(3):
        assert open_.deadline == now + sol.KEEPALIVE_S
        now = open_.deadline
        assert open_.on_timer(now) == [sol.AskOwner()]
        assert open_.on_owner(0, OURS, now) == []
    while end is None:
        now = open_.deadline or 0.0
        effects = open_.on_timer(now)
        asked += effects == [sol.AskOwner()]
        end = ended(effects)
    assert (asked, end.lost) == (sol.KEEPALIVE_TRIES, True)


def test_what_is_not_acknowledged_makes_it_ask_whose_the_console_is() -> None:
    open_ = channel()
    open_.on_owner(0, OURS, 0.0)
    packet = sent(open_.send(b"x", 1.0))
    assert open_.on_timer(1.5) == [sol.Send(packet[0]), sol.AskOwner()]
    assert ended(open_.on_owner(0, b"\x09\0\0\0", 1.6)) is not None


def test_another_owner_counts_only_after_ours_was_named() -> None:
    open_ = channel()
    assert open_.on_owner(0, b"\x09\0\0\0", 1.0) == []
    assert open_.on_owner(0xC1, b"", 2.0) == []
    assert open_.on_owner(0, OURS, 3.0) == []
    end = ended(open_.on_owner(0, b"\x09\0\0\0", 4.0))
    assert end is not None
    assert not end.lost


def test_the_answer_to_activate_is_read_and_odd_sizes_make_small_packets() -> None:
    head = bytes(4)
    good = head + b"\x40\0\x40\0\x6f\x02\xff\xff"
    assert sol.parse_activated(good) == 60
    for odd in (b"\0\0", b"\xff\xff", b"\x03\0"):
        assert sol.parse_activated(head + odd + good[6:]) == sol.CHUNK_BYTES_SAFE
    with pytest.raises(NotIpmi):
        sol.parse_activated(good[:9])


def test_refusals_are_said_and_the_way_out_of_one_in_use() -> None:
    assert sol.why_refused(0) is None
    assert "--steal" in (sol.why_refused(0x80) or "")
    assert "0xff" in (sol.why_refused(0xFF) or "")


@given(st.lists(st.tuples(st.booleans(), st.binary(max_size=40)), max_size=40))
def test_garbage_never_raises(steps: list[tuple[bool, bytes]]) -> None:
    open_ = channel()
    now = 0.0
    for typed, data in steps:
        if typed:
            open_.send(data, now)
        else:
            open_.on_payload(data, now)
            open_.on_owner(len(data), data, now)
        now += 0.3
        open_.on_timer(now)


@dataclass
class Bmc:
    """The other end, as 15.9 has it: accepts at most ``takes`` characters of a packet."""

    takes: int
    out: bytearray
    got: bytearray = field(default_factory=bytearray)
    last: int = 0
    number: int = 1
    waiting: bytes = b""

    def on_payload(self, raw: bytes) -> bytes | None:
        number, ack = raw[0], raw[1]
        if ack and ack == self.number and self.waiting:
            assert raw[2] <= len(self.waiting)
            del self.out[: raw[2]]
            self.waiting, self.number = b"", self.number % 15 + 1
        if not number:
            return None
        data = raw[4 : 4 + self.takes]
        if number != self.last:
            self.got += data
            self.last = number
        return bytes((0, number, len(data), 0x40 if len(data) < len(raw) - 4 else 0))

    def write(self) -> bytes | None:
        if not self.waiting and self.out:
            self.waiting = bytes(self.out[:11])
        return bytes((self.number, 0, 0, 0)) + self.waiting if self.waiting else None


@pytest.mark.parametrize("seed", range(20))
def test_all_arrives_once_and_in_order_over_a_lossy_link(seed: int) -> None:
    rng = random.Random(seed)
    written, typed = rng.randbytes(300), rng.randbytes(300)
    bmc, open_ = Bmc(rng.randint(1, 20), bytearray(written)), channel(rng.randint(1, 30))
    now, heard, to_bmc, to_us = 0.0, bytearray(), list[bytes](), list[bytes]()
    effects = open_.send(typed, now)
    while not (open_.idle and bytes(heard) == written):
        assert ended(effects) is None
        heard += received(effects)
        to_bmc += [raw for raw in sent(effects) if rng.random() > 0.2]
        answers = [bmc.on_payload(raw) for raw in to_bmc]
        if rng.random() < 0.3:
            answers.append(bmc.write())
        to_bmc = []
        to_us = [raw for raw in answers if raw is not None and rng.random() > 0.2]
        now += 0.1
        assert now < 3000
        effects = [one for raw in to_us for one in open_.on_payload(raw, now)]
        if open_.deadline is not None and now >= open_.deadline:
            effects += open_.on_timer(now)
    assert (bytes(bmc.got), bytes(heard)) == (typed, written)
