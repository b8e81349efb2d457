"""A long file under a key: whole and in order, or not opened at all."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.errors import CodecError
from mesh.proto.sealed_stream import PIECE_BYTES, SEALED_BYTES, Opener, Sealer

KEY, CONTEXT = bytes(range(32)), b"test"


def sealed(plain: bytes, step: int = 50_000) -> bytes:
    sealer = Sealer(KEY, CONTEXT)
    out = [sealer.feed(plain[at : at + step]) for at in range(0, len(plain), step)]
    return b"".join([*out, sealer.finish()])


def opened(
    data: bytes, step: int = 70_001, key: bytes = KEY, context: bytes = CONTEXT
) -> bytes:
    opener = Opener(key, context)
    out = [opener.feed(data[at : at + step]) for at in range(0, len(data), step)]
    return b"".join([*out, opener.finish()])


@pytest.mark.parametrize("size", [0, 1, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, 200_000])
def test_what_was_sealed_opens_in_any_portions(size: int) -> None:
    plain = bytes(number % 251 for number in range(size))
    for step in (1000, SEALED_BYTES, 1 << 20):
        assert opened(sealed(plain, step), step) == plain


def test_pieces_cannot_be_cut_off_moved_changed_or_added() -> None:
    data = sealed(b"x" * (3 * PIECE_BYTES))
    first, second, rest = data[:SEALED_BYTES], data[SEALED_BYTES : 2 * SEALED_BYTES], data[
        2 * SEALED_BYTES :
    ]  # fmt: skip
    for wrong in (
        b"", first, first + second, second + first + rest, first + rest, data[:-1], data + b"x",
        data + data, bytes([data[0] ^ 1]) + data[1:], data[:-1] + bytes([data[-1] ^ 1]),
    ):  # fmt: skip
        with pytest.raises(CodecError):
            opened(wrong)
    with pytest.raises(CodecError):
        opened(data, key=bytes(32))
    with pytest.raises(CodecError):
        opened(data, context=b"other")


@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=200))
def test_garbage_never_raises_anything_else(data: bytes) -> None:
    with pytest.raises(CodecError):
        opened(data)
