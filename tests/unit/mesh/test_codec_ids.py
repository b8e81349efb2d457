import contextlib
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.errors import CodecError
from mesh.proto.codec import pack, unpack, unpack_map
from mesh.proto.ids import UUID_PATTERN, mac_text, node_id, parse_mac, uuid7

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(VALUES)
def test_a_value_survives(value: object) -> None:
    assert unpack(pack(value)) == value


def test_equal_maps_have_equal_bytes() -> None:
    assert pack({"b": 1, "a": {"y": 2, "x": 3}}) == pack({"a": {"x": 3, "y": 2}, "b": 1})


@given(st.binary(max_size=300))
def test_garbage_never_raises_anything_else(data: bytes) -> None:
    with contextlib.suppress(CodecError):
        unpack(data)
    with contextlib.suppress(CodecError):
        unpack_map(data)


@pytest.mark.parametrize(
    "data",
    [
        b"\xdd\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff",
        b"\x91" * 5000,
        b"\x01\x02",
        b"\x81\x01\x02",
    ],
)
def test_bombs_and_tails_are_refused(data: bytes) -> None:
    with pytest.raises(CodecError):
        unpack_map(data)


def test_what_is_too_long_is_not_looked_at() -> None:
    with pytest.raises(CodecError, match="limit of 10"):
        unpack(b"\x00" * 11, 10)


def test_a_uuid_is_of_version_7_and_ordered_by_time() -> None:
    early, late = uuid7(1_000, b"\xff" * 10), uuid7(1_001, b"\0" * 10)
    assert uuid.UUID(early).version == 7 and uuid.UUID(early).variant == uuid.RFC_4122
    assert early < late and UUID_PATTERN.match(early)


def test_a_node_id_is_32_letters() -> None:
    assert len(node_id(b"\1" * 32)) == 32


@pytest.mark.parametrize("text", ["52:54:00:AA:bb:01", "52-54-00-aa-bb-01", " 5254.00aa.bb01 "])
def test_a_mac_is_read_in_every_usual_spelling(text: str) -> None:
    assert parse_mac(text) == "52:54:00:aa:bb:01" == mac_text(bytes.fromhex("525400aabb01"))


@given(st.text(max_size=30))
def test_no_text_breaks_the_mac_parser(text: str) -> None:
    assert parse_mac(text) is None or len(parse_mac(text) or "") == 17
