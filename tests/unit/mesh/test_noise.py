"""Noise IK and XX: the published vectors, then everything that must not decrypt."""

import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from mesh.proto.noise import MESSAGE_BYTES_MAX, Handshake, NoiseError, Pattern, nonce

GOLDEN = Path(__file__).parents[2] / "golden" / "noise"
VECTORS = {
    f"{source}/{vector['name']}": vector
    for source in ("cacophony", "noise-c")
    for vector in json.loads((GOLDEN / f"{source}.json").read_text())["vectors"]
}
A, B, EA, EB = (bytes([value]) * 32 for value in (1, 2, 3, 4))


def public(private: bytes) -> bytes:
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


def pair(
    pattern: Pattern, prologues: tuple[bytes, bytes] = (b"p", b"p")
) -> tuple[Handshake, Handshake]:
    first = Handshake(
        pattern,
        initiator=True,
        static_private=A,
        ephemeral_private=EA,
        remote_static=public(B) if pattern == "IK" else None,
        prologue=prologues[0],
    )
    second = Handshake(
        pattern,
        initiator=False,
        static_private=B,
        ephemeral_private=EB,
        prologue=prologues[1],
    )
    return first, second


@pytest.mark.parametrize("name", sorted(VECTORS))
def test_the_published_vector_holds(name: str):
    vector = VECTORS[name]
    pattern: Pattern = "IK" if "_IK_" in name else "XX"
    names = [name for name in vector if name.startswith(("init_", "resp_"))]
    value = {name: bytes.fromhex(vector[name]) for name in names}
    sides = (
        Handshake(
            pattern,
            initiator=True,
            static_private=value["init_static"],
            ephemeral_private=value["init_ephemeral"],
            remote_static=value.get("init_remote_static"),
            prologue=value["init_prologue"],
        ),
        Handshake(
            pattern,
            initiator=False,
            static_private=value["resp_static"],
            ephemeral_private=value["resp_ephemeral"],
            prologue=value["resp_prologue"],
        ),
    )
    counters = [0, 0]
    for index, message in enumerate(vector["messages"]):
        payload = bytes.fromhex(message["payload"])
        sealed = bytes.fromhex(message["ciphertext"])
        turn = index % 2
        if not sides[0].finished:
            assert sides[turn].write(payload) == sealed
            assert sides[1 - turn].read(sealed) == payload
            continue
        assert sides[0].split() == sides[1].split()
        key = sides[0].split()[turn]
        assert AESGCM(key).encrypt(nonce(counters[turn]), payload, b"") == sealed
        counters[turn] += 1
    assert sum(counters) >= 3
    assert sides[0].hash == sides[1].hash
    assert vector.get("handshake_hash", sides[0].hash.hex()) == sides[0].hash.hex()
    assert sides[0].remote_static == public(value["resp_static"])
    assert sides[1].remote_static == public(value["init_static"])


def run(first: Handshake, second: Handshake) -> list[bytes]:
    messages: list[bytes] = []
    turn = 0
    while not first.finished:
        writer, reader = ((first, second), (second, first))[turn]
        messages.append(writer.write(b"payload %d" % turn))
        assert reader.read(messages[-1]) == b"payload %d" % turn
        turn = 1 - turn
    return messages


@pytest.mark.parametrize("pattern", ["IK", "XX"])
def test_both_sides_come_to_the_same_secret(pattern: Pattern):
    first, second = pair(pattern)
    messages = run(first, second)
    assert len(messages) == (2 if pattern == "IK" else 3)
    assert second.finished
    assert first.chaining_key == second.chaining_key
    assert first.hash == second.hash


@pytest.mark.parametrize("pattern", ["IK", "XX"])
def test_another_prologue_does_not_meet(pattern: Pattern):
    first, second = pair(pattern, (b"rackmesh/1", b"rackmesh/2"))
    with pytest.raises(NoiseError):
        run(first, second)


@pytest.mark.parametrize("pattern", ["IK", "XX"])
def test_every_flipped_bit_of_every_message_is_noticed_before_the_end(pattern: Pattern):
    lengths = [len(message) for message in run(*pair(pattern))]
    for number, size in enumerate(lengths):
        for position in range(size):
            with pytest.raises(NoiseError):
                run_with_a_flip(pattern, len(lengths), number, position)


def run_with_a_flip(pattern: Pattern, count: int, number: int, position: int) -> None:
    sides = pair(pattern)
    for index in range(count):
        message = bytearray(sides[index % 2].write(b"payload %d" % (index % 2)))
        if index == number:
            message[position] ^= 1 << position % 8
        sides[1 - index % 2].read(bytes(message))


@pytest.mark.parametrize("pattern", ["IK", "XX"])
def test_every_truncation_is_an_error(pattern: Pattern):
    first, second = pair(pattern)
    message = first.write(b"")
    for size in range(len(message)):
        reader = pair(pattern)[1]
        with pytest.raises(NoiseError):
            reader.read(message[:size])
    second.read(message)


def test_a_stale_static_key_does_not_decrypt():
    first = Handshake(
        "IK", initiator=True, static_private=A, ephemeral_private=EA, remote_static=public(A)
    )
    _, second = pair("IK")
    with pytest.raises(NoiseError):
        second.read(first.write(b"hello"))


@pytest.mark.parametrize("point", [bytes(32), b"\x01" + bytes(31)])
def test_a_point_of_small_order_is_an_error(point: bytes):
    _, second = pair("XX")
    second.read(point)
    with pytest.raises(NoiseError):
        second.write(b"")


def test_a_dead_or_finished_handshake_is_our_own_mistake():
    first, second = pair("XX")
    with pytest.raises(AssertionError):
        first.read(b"")
    with pytest.raises(NoiseError):
        second.read(b"short")
    with pytest.raises(AssertionError):
        second.read(first.write(b""))
    assert not second.finished
    done = pair("IK")
    run(*done)
    with pytest.raises(AssertionError):
        done[0].write(b"")


@given(st.sampled_from(["IK", "XX"]), st.binary(max_size=300))
def test_garbage_never_raises_anything_but_noise_error(pattern: Pattern, data: bytes):
    try:
        pair(pattern)[1].read(data)
    except NoiseError:
        pass


def test_a_message_above_the_limit_is_an_error():
    with pytest.raises(NoiseError):
        pair("XX")[1].read(bytes(MESSAGE_BYTES_MAX + 1))
