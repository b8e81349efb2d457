"""Heads and rows: their bytes are an agreement between builds."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.errors import CodecError, Refused
from mesh.proto.codec import pack, unpack
from mesh.proto.sets import (
    MARKER,
    PAST_MAX,
    ROW_BYTES_MAX,
    SET_ROWS_MAX,
    Entry,
    Head,
    check_own,
    key_hash,
    leaf_hash,
    pack_head,
    parse_entry,
    parse_head,
)

HEAD = Head("a" * 32, "site:lab", 1_700_000_000_000, 9, 3, bytes(range(16)), 77, 5, 1)


def test_the_hashes_of_a_row_are_these():
    assert key_hash("server", "s1").hex() == "473d85b6cdcca5d42c2762176a09f9c2"
    assert (
        leaf_hash(Entry("server", "s1", 5, 7, b"\x80")).hex()
        == "50fb30d5dbf69e6c931606d7f807fd91"
    )


def test_no_two_rows_that_differ_share_a_leaf():
    rows = [
        Entry("ab", "c", 1, 1, b"x"),
        Entry("a", "bc", 1, 1, b"x"),
        Entry("ab", "cx", 1, 1, b""),
        Entry("ab", "c", 1, 1, None),
        Entry("ab", "c", 1, 1, MARKER),
        Entry("ab", "c", 2, 1, b"x"),
        Entry("ab", "c", 1, 2, b"x"),
    ]
    assert len({leaf_hash(row) for row in rows}) == len(rows)
    assert key_hash("ab", "c") != key_hash("a", "bc")


def test_a_head_comes_back_as_it_was_and_unknown_fields_are_let_be():
    body = pack_head(HEAD)
    assert parse_head(body, b"s").head == HEAD
    more = pack({**unpack(body), "later": 1})
    assert parse_head(more, b"s").body == more


@pytest.mark.parametrize(
    "changed",
    [
        {"base": 10}, {"rows": 7}, {"seq": 0}, {"epoch": 0}, {"epoch": 1 << 63}, {"root": b"x"},
        {"author": "x" * 65}, {"floor": -1}, {"past": [[1]]}, {"past": [[1, 2]] * 17},
        {"seq": SET_ROWS_MAX * 2, "rows": SET_ROWS_MAX + 1},
    ],
)  # fmt: skip
def test_a_head_that_no_set_can_have_is_refused(changed):
    with pytest.raises(CodecError):
        parse_head(pack({**unpack(pack_head(HEAD)), **changed}), b"s")


def test_a_head_covers_its_own_past_and_not_a_lost_branch():
    head = replace(HEAD, epoch=50, seq=20, past=((40, 15), (30, 9)))
    assert parse_head(pack_head(head), b"s").head == head
    for point in ((50, 1), (50, 99), (60, 1), (40, 15), (30, 2)):
        assert head.covers(point)
    for point in ((40, 16), (30, 10), (45, 1), (20, 1)):
        assert not head.covers(point)
    full = replace(head, past=tuple((49 - n, 9) for n in range(PAST_MAX)))
    assert full.covers((1, 1))  # older than it can remember


@given(st.binary(max_size=300), st.binary(max_size=80))
def test_garbage_never_raises_anything_else(body, signature):
    with pytest.raises(CodecError):
        parse_head(body, signature)


@pytest.mark.parametrize(
    "value",
    [
        None, [], ["t", "k", 1, 1], ["", "k", 1, 1, None], ["t" * 65, "k", 1, 1, None],
        ["t", "\u00e9" * 129, 1, 1, None], ["t", "k", 0, 1, None], ["t", "k", True, 1, None],
        ["t", "k", 1, 1 << 63, None], ["t", "k", 1, 1, "text"],
        ["t", "k", 1, 1, bytes(ROW_BYTES_MAX + 1)],
    ],
)  # fmt: skip
def test_a_row_that_is_none_is_refused(value):
    with pytest.raises(CodecError):
        parse_entry(value)


def test_own_rows_are_held_to_the_same_limits():
    for scope, table, key in (("", "t", "k"), ("s", "t" * 65, "k"), ("s", "t", "k" * 257)):
        with pytest.raises(Refused):
            check_own(scope, table, key, b"")
