"""The form of a bundle: what was written is read again, and anything else is one sentence."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.errors import CodecError
from mesh.proto import bundle as form
from mesh.proto.bundle import Index, Installer, Part
from mesh.proto.codec import pack, unpack_map
from mesh.proto.ids import node_id
from mesh.proto.sign import KeySigner

ROOT = b"r" * 20
SIGNER = KeySigner(b"s" * 32)
AT = form.HEAD_BYTES + 100
PARTS = (
    Part("b3:" + "0" * 64, ("debian-12", "debian"), 5_000, 2, AT, 3_000, 90),
    Part("b3:" + "1" * 64, ("kernel",), 0, 0, AT + 3_090, 0, 80),
)
INDEX = Index("0.1.0", 100, b"d" * 32, PARTS, Installer("0.1.0", AT + 3_170, 10_240, b"i" * 32))


def changed(**fields: Any) -> bytes:
    return pack(unpack_map(INDEX.dump()) | fields)


def part(**fields: Any) -> dict[str, Any]:
    return {**unpack_map(INDEX.dump())["parts"][0], **fields}


def test_an_index_is_read_as_it_was_written() -> None:
    assert form.read_index(INDEX.dump(), INDEX.end) == INDEX
    bare = Index("0.1.0", 100, b"d" * 32, ())
    assert form.read_index(bare.dump(), bare.end) == bare
    assert bare.end == AT


def test_the_end_of_a_file_says_how_long_index_and_seal_are() -> None:
    data = form.tail(b"index", b"seal")
    assert form.read_tail(data[-form.TAIL.size :], form.HEAD_BYTES + len(data)) == (5, 4)
    for wrong in (b"", data[:-1][-form.TAIL.size :], data[-form.TAIL.size :][:-1]):
        with pytest.raises(CodecError, match="cut short"):
            form.read_tail(wrong, 1000)
    with pytest.raises(CodecError, match="cut short"):
        form.read_tail(data[-form.TAIL.size :], form.HEAD_BYTES + len(data) - 1)


@pytest.mark.parametrize(
    "lengths", [(form.INDEX_BYTES_MAX + 1, 0), (0, form.SEAL_BYTES_MAX + 1)]
)
def test_oversized_lengths_are_refused_before_anything_is_read(
    lengths: tuple[int, int],
) -> None:
    with pytest.raises(CodecError, match="cut short"):
        form.read_tail(form.TAIL.pack(*lengths, form.END), 1 << 40)


@pytest.mark.parametrize(
    "wrong",
    [
        {"v": 2},
        {"state": 0},
        {"state": 1 << 60},
        {"state": True},
        {"state_digest": b"short"},
        {"parts": "x"},
        {"parts": ["x"]},
        {"parts": [part()] * 2},
        {"parts": [part()] * (form.ASSETS_MAX + 1)},
        {"parts": [part(asset="b3:no")]},
        {"parts": [part(names=[])]},
        {"parts": [part(names=["../x"])]},
        {"parts": [part(names=["x"] * 65)]},
        {"parts": [part(stored=5_001)]},
        {"parts": [part(stored=-1)]},
        {"parts": [part(core=form.CORE_BYTES_MAX + 1)]},
        {"parts": [part(chunks=1 << 40)]},
        {"installer": 7},
        {"installer": {"build": "x", "size": 0, "digest": b"i" * 32}},
        {"build": "x" * 65},
    ],
    ids=str,
)  # fmt: skip
def test_an_index_that_cannot_be_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(CodecError, match="list of contents"):
        form.read_index(changed(**wrong), INDEX.end)


def test_parts_fill_the_file_without_a_gap() -> None:
    for end in (INDEX.end - 1, INDEX.end + 1):
        with pytest.raises(CodecError, match="does not fit the file"):
            form.read_index(INDEX.dump(), end)


def test_the_seal_names_its_maker_and_covers_the_index() -> None:
    data = INDEX.dump()
    seal = form.make_seal(SIGNER, ROOT, form.digest_of(data), 1234)
    assert form.open_seal(seal, ROOT, data) == form.Seal(node_id(SIGNER.public), 1234)
    for index, root in ((changed(build="x"), ROOT), (data, b"o" * 20)):
        with pytest.raises(CodecError, match="signature"):
            form.open_seal(seal, root, index)


@given(st.binary(max_size=400), st.integers(0, 1 << 50))
def test_garbage_never_raises(data: bytes, size: int) -> None:
    for read in (
        lambda: form.read_head(data),
        lambda: form.read_tail(data[-form.TAIL.size :], size),
        lambda: form.read_index(data, size),
        lambda: form.open_seal(data, ROOT, b""),
    ):
        try:
            read()
        except CodecError:
            pass


@given(st.data())
def test_a_changed_index_is_refused_or_another_one(data: st.DataObject) -> None:
    good = bytearray(INDEX.dump())
    at = data.draw(st.integers(0, len(good) - 1))
    good[at] ^= data.draw(st.integers(1, 255))
    seal = form.make_seal(SIGNER, ROOT, form.digest_of(INDEX.dump()), 1)
    with pytest.raises(CodecError):
        form.open_seal(seal, ROOT, bytes(good))
    try:
        form.read_index(bytes(good), INDEX.end)
    except CodecError:
        pass


@given(st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 63), 1 << 63) | st.binary() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=8), inner), max_leaves=8,
), st.sampled_from(["v", "build", "state", "state_digest", "parts", "installer"]))  # fmt: skip
def test_odd_fields_never_raise_anything_else(value: Any, field: str) -> None:
    try:
        form.read_index(changed(**{field: value}), INDEX.end)
    except CodecError:
        pass
