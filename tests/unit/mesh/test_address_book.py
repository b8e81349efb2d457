"""Where peers may be dialled: sources, order, bounds, memory."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.proto.address_book import (
    PEERS_MAX,
    PLACES_MAX,
    REMEMBERED_MAX,
    SOURCE_MAX,
    AddressBookCore,
    Seed,
    listed_places,
    parse_seed,
)

OWN, A, B, C = ("o" * 32, "a" * 32, "b" * 32, "c" * 32)


def numbered(number: int) -> str:
    digits = "abcdefghijklmnopqrstuvwxyz234567"
    text = ""
    for _ in range(32):
        number, digit = divmod(number, 32)
        text += digits[digit]
    return text


def test_what_worked_last_comes_first_then_the_network_seeds_rows_and_hosts():
    book = AddressBookCore(OWN)
    book.set_rows(A, [("row", 1), ("row2", 1)])
    book.seen(A, "host")
    book.add_seed(Seed(A, ("seed", 2)))
    book.set_found(A, [("lan", 3)])
    book.worked(A, ("old", 4), 10)
    book.worked(A, ("new", 5), 20)
    assert book.table[A] == [
        ("new", 5), ("old", 4), ("lan", 3), ("seed", 2), ("row", 1), ("row2", 1), ("host", 1)
    ]  # fmt: skip
    book.worked(A, ("old", 4), 30)
    assert book.table[A][:2] == [("old", 4), ("new", 5)]


def test_an_address_from_two_sources_stands_once():
    book = AddressBookCore(OWN)
    book.set_rows(A, [("h", 1), ("g", 1)])
    book.worked(A, ("g", 1), 1)
    assert book.table[A] == [("g", 1), ("h", 1)]


def test_what_is_gone_from_its_source_is_gone():
    book = AddressBookCore(OWN)
    book.set_found(A, [("lan", 3)])
    book.set_rows(A, [("row", 1)])
    book.set_found(A, [])
    assert book.table[A] == [("row", 1)]
    book.set_rows(A, [])
    assert A not in book.table


def test_a_seed_without_an_id_is_tried_for_every_stranger_until_somebody_is_found_there():
    book = AddressBookCore(OWN)
    book.add_seed(parse_seed("somewhere:9"))
    assert book.set_strangers([A, B, OWN])
    assert not book.set_strangers([B, A])
    book.set_rows(B, [("row", 1)])
    assert book.table == {A: [("somewhere", 9)], B: [("row", 1), ("somewhere", 9)]}
    book.worked(A, ("somewhere", 9), 5)
    assert book.table == {A: [("somewhere", 9)], B: [("row", 1)]}


def test_a_seed_without_an_id_is_not_crowded_out_by_dead_rows():
    book = AddressBookCore(OWN)
    book.set_rows(A, [(f"row{n}", 1) for n in range(20)])
    book.add_seed(parse_seed("somewhere:9"))
    book.set_strangers([A])
    assert ("somewhere", 9) in book.table[A]
    assert len(book.table[A]) == PLACES_MAX


def test_no_source_crowds_out_another_and_the_number_of_peers_is_bounded():
    book = AddressBookCore(OWN)
    book.set_found(A, [(f"lan{n}", 1) for n in range(50)])
    book.set_rows(A, [("row", 1)])
    assert ("row", 1) in book.table[A]
    assert len([host for host, _ in book.table[A] if host != "row"]) == SOURCE_MAX
    for number in range(PEERS_MAX + 10):
        book.set_found(numbered(number), [("x", 1)])
    assert len(book.table) <= PEERS_MAX
    assert len(book.memory()["peers"]) == REMEMBERED_MAX


def test_we_are_never_in_our_own_book():
    book = AddressBookCore(OWN)
    book.set_rows(OWN, [("h", 1)])
    book.set_found(OWN, [("h", 1)])
    book.worked(OWN, ("h", 1), 1)
    book.add_seed(Seed(OWN, ("h", 1)))
    assert not book.table


def test_the_memory_survives_a_restart_and_what_worked_is_still_first():
    book = AddressBookCore(OWN)
    book.set_rows(A, [("row", 1)])
    book.worked(A, ("w", 2), 1000)
    book.worked(A, ("v", 2), 2000)
    book.set_found(B, [("lan", 3)])
    after = AddressBookCore(OWN)
    after.remember(json.loads(json.dumps(book.memory())))
    assert after.table == book.table
    after.set_rows(A, [("fresh", 1)])
    assert after.table[A] == [("v", 2), ("w", 2), ("fresh", 1), ("row", 1)]


@pytest.mark.parametrize("text", ["", "host", "host:", "host:0", "host:70000", "::1:5", ":5",
                                  "short@host:5", "@host:5", "ho\nst:5", "host:٣"])  # fmt: skip
def test_a_seed_that_is_none_is_refused(text: str):
    with pytest.raises(ValueError, match="peer"):
        parse_seed(text)


def test_seeds_are_read_with_and_without_an_id():
    assert parse_seed("rack:4770") == Seed(None, ("rack", 4770))
    assert parse_seed("[fd00::1]:4770") == Seed(None, ("fd00::1", 4770))
    assert parse_seed(f"{A}@10.0.0.1:1") == Seed(A, ("10.0.0.1", 1))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
entries = st.lists(st.tuples(st.text(max_size=3), st.integers(), st.integers()) | json_values)
memories = json_values | st.fixed_dictionaries(
    {"peers": json_values | st.dictionaries(st.sampled_from([A, B, OWN, "?"]), entries)}
)


@given(memories)
def test_garbage_never_raises(memory: object):
    book = AddressBookCore(OWN)
    book.remember(memory)
    listed_places({"addresses": memory})
    for node, places in book.table.items():
        assert node in {A, B}
        assert 0 < len(places) <= PLACES_MAX
        assert all(host and 0 < port < 65536 for host, port in places)
    assert AddressBookCore(OWN).remember(book.memory()) is None
