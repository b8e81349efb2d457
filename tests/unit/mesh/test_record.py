"""Transport records: whole, byte by byte, and every way of being wrong."""

import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.proto import record
from mesh.proto.record import (
    DATA,
    HEADER_BYTES,
    MESSAGE_BYTES_MAX,
    PART,
    PLAINTEXT_BYTES_MAX,
    RECORD_BYTES_MAX,
    REKEY,
    REKEY_S,
    Opener,
    RecordBuffer,
    RecordError,
    Sealer,
    handshake_record,
    next_key,
    parse_record,
    session_keys,
)

KEY = bytes(range(32))


def open_all(opener: Opener, records: list[bytes]) -> list[bytes]:
    found = [opener.open(*parse_record(one)) for one in records]
    return [bytes(message) for message in found if message is not None]


def seal(sealer: Sealer, message: bytes, now: float = 0.0) -> list[bytes]:
    return [bytes(one) for one in sealer.seal(message, now)]


def test_the_limits_are_those_of_the_architecture():
    assert PLAINTEXT_BYTES_MAX == 65_519
    assert record.REKEY_S == 600
    assert record.REKEY_RECORDS == 2**30


def test_the_four_keys_of_a_session_differ_and_follow_rfc_5869():
    secret = bytes(64)
    tcp, udp = session_keys(secret, "tcp"), session_keys(secret, "udp")
    assert len({tcp.initiator, tcp.responder, udp.initiator, udp.responder}) == 4
    extracted = hmac.new(secret, b"", hashlib.blake2b).digest()
    expanded = hmac.new(extracted, b"rackmesh/1 responder tcp\x01", hashlib.blake2b).digest()
    assert tcp.responder == expanded[:32]


def test_the_next_key_is_blake2b_keyed_by_the_last_over_rekey():
    assert next_key(KEY) == hashlib.blake2b(b"rekey", key=KEY, digest_size=32).digest()


@pytest.mark.parametrize(
    "size", [0, 1, PLAINTEXT_BYTES_MAX, PLAINTEXT_BYTES_MAX + 1, 1 << 20, MESSAGE_BYTES_MAX]
)
def test_a_message_of_any_allowed_size_arrives(size: int):
    message = bytes(size)
    records = seal(Sealer(KEY, 0.0), message)
    assert all(len(one) <= RECORD_BYTES_MAX for one in records)
    assert open_all(Opener(KEY), records) == [message]


def test_a_longer_message_is_our_own_mistake():
    with pytest.raises(AssertionError):
        seal(Sealer(KEY, 0.0), bytes(MESSAGE_BYTES_MAX + 1))


def test_keys_change_after_ten_minutes_and_old_records_no_longer_open():
    sealer, opener = Sealer(KEY, 0.0), Opener(KEY)
    first = seal(sealer, b"one", REKEY_S - 1)
    second = seal(sealer, b"two", REKEY_S)
    assert [one[0] for one in second] == [REKEY, DATA]
    assert open_all(opener, first + second) == [b"one", b"two"]
    assert (sealer.steps, opener.steps) == (1, 1)
    with pytest.raises(RecordError):
        open_all(opener, first)
    third = seal(sealer, b"three", 2 * REKEY_S)
    assert open_all(opener, third) == [b"three"]
    assert opener.steps == 2


def test_keys_change_after_so_many_records(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(record, "REKEY_RECORDS", 3)
    sealer, opener = Sealer(KEY, 0.0), Opener(KEY)
    for number in range(10):
        assert open_all(opener, seal(sealer, b"%d" % number)) == [b"%d" % number]
    assert sealer.steps == opener.steps == 3


def test_replayed_reordered_lost_and_reflected_records_do_not_open():
    sealer = Sealer(KEY, 0.0)
    one, two, three = (seal(sealer, bytes([n]))[0] for n in range(3))
    for wrong in ([one, one], [two], [one, three], [one, two, one]):
        with pytest.raises(RecordError):
            open_all(Opener(KEY), list(wrong))
    keys = session_keys(bytes(64), "tcp")
    own = seal(Sealer(keys.initiator, 0.0), b"x")
    with pytest.raises(RecordError):
        open_all(Opener(keys.responder), own)


def test_every_flipped_bit_of_a_record_is_noticed():
    [whole] = seal(Sealer(KEY, 0.0), b"payload")
    for position in range(len(whole)):
        for bit in range(8):
            changed = bytearray(whole)
            changed[position] ^= 1 << bit
            with pytest.raises(RecordError):
                Opener(KEY).open(*parse_record(changed))


def test_parts_must_be_full_and_few():
    sealer = Sealer(KEY, 0.0)
    with pytest.raises(RecordError, match="wrong parts"):
        Opener(KEY).open(*parse_record(bytes(sealer._record(PART, b"short"))))
    sealer, opener = Sealer(KEY, 0.0), Opener(KEY)
    full = bytes(PLAINTEXT_BYTES_MAX)
    for _ in range(record.PARTS_MAX - 1):
        assert opener.open(*parse_record(bytes(sealer._record(PART, full)))) is None
    with pytest.raises(RecordError, match="wrong parts"):
        opener.open(*parse_record(bytes(sealer._record(PART, full))))


def test_a_key_change_with_a_body_or_a_handshake_record_is_an_error():
    sealer = Sealer(KEY, 0.0)
    with pytest.raises(RecordError, match="body"):
        Opener(KEY).open(*parse_record(bytes(sealer._record(REKEY, b"x"))))
    with pytest.raises(RecordError, match="handshake"):
        Opener(KEY).open(*parse_record(handshake_record(record.IK, b"x")))


@pytest.mark.parametrize("step", [1, 2, 3, 1000, 70_000])
def test_a_byte_stream_is_cut_into_records_whatever_arrives_together(step: int):
    sealer, opener = Sealer(KEY, 0.0), Opener(KEY)
    messages = [b"", b"a" * 10, bytes(3000), b"end"]
    if step > 3:
        messages += [bytes(70_000), bytes(200_000)]
    wire = b"".join(b"".join(seal(sealer, message)) for message in messages)
    assert cut(wire, step, opener) == messages


def cut(wire: bytes, step: int, opener: Opener) -> list[bytes]:
    buffer = RecordBuffer()
    found: list[bytes] = []
    for start in range(0, len(wire), step):
        rest = wire[start : start + step]
        while rest:
            room = buffer.writable()
            count = min(len(room), len(rest))
            assert count
            room[:count] = rest[:count]
            buffer.wrote(count)
            rest = rest[count:]
            while (one := buffer.next()) is not None:
                message = opener.open(*one)
                if message is not None:
                    found.append(bytes(message))
    return found


@given(st.binary(max_size=400), st.integers(1, 50))
def test_garbage_never_raises_anything_but_record_error(data: bytes, step: int):
    try:
        parse_record(data)
    except RecordError:
        pass
    try:
        cut(data, step, Opener(KEY))
    except RecordError:
        pass


@given(st.lists(st.integers(0, 140_000), max_size=6), st.integers(1, 200_000), st.booleans())
def test_any_messages_in_any_pieces_arrive(sizes: list[int], step: int, scratch: bool):
    sealer, opener = Sealer(KEY, 0.0), Opener(KEY)
    if scratch:
        sealer.keep_scratch()
        opener.keep_scratch()
    messages = [bytes([index]) * size for index, size in enumerate(sizes)]
    wire = b"".join(b"".join(seal(sealer, message)) for message in messages)
    assert cut(wire, max(step, 500), opener) == messages


def test_a_header_alone_does_not_make_room_grow():
    buffer = RecordBuffer()
    room = buffer.writable()
    room[:HEADER_BYTES] = b"\x03\xff\xff"
    buffer.wrote(HEADER_BYTES)
    assert buffer.next() is None
    assert 0 < len(buffer.writable()) < 65_535


def test_room_grows_with_what_arrives_and_is_never_empty():
    buffer = RecordBuffer(3 * record.RECORD_BYTES_MAX)
    buffer.writable()[:HEADER_BYTES] = b"\x03\xff\xff"
    buffer.wrote(HEADER_BYTES)
    arrived = 0
    while buffer.next() is None:
        room = buffer.writable()
        assert room
        assert len(room) <= 3 * record.RECORD_BYTES_MAX
        arrived += len(room)
        buffer.wrote(len(room))
    assert arrived >= 65_535
