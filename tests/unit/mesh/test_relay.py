"""The relay's books: who is let through, how fast, and what garbage does."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.errors import CodecError
from mesh.proto.rate import Bucket
from mesh.proto.relay import (
    BURST_BYTES,
    BYTES_PER_S,
    MEMBER_SPLICES_MAX,
    SPLICES_MAX,
    Ask,
    RelayCore,
    Splice,
    announce,
    ask,
    read,
)


def opened(core: RelayCore, source: str, to: str, **more: object) -> Splice | str:
    ports: dict[str, object] = {"active": lambda _: True, "linked": lambda _: True}
    return core.open(source, Ask(to, bulk=bool(more.pop("bulk", False))), **(ports | more))  # type: ignore[arg-type]


def spliced(core: RelayCore, source: str, to: str) -> Splice:
    splice = opened(core, source, to)
    assert isinstance(splice, Splice)
    return splice


def test_bodies_say_where_to_or_from_whom():
    assert read(ask("n1", bulk=True)) == Ask("n1", bulk=True)
    assert read(announce("n2")) == "n2"


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text() | st.binary(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.just("to"), inner),
    )
)
def test_garbage_never_raises_anything_else(body: object):
    try:
        found = read(body)
    except CodecError:
        return
    assert isinstance(found, (Ask, str))


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ({"active": lambda node: node != "b"}, "not an active member"),
        ({"active": lambda node: node != "a"}, "not an active member"),
        ({"linked": lambda node: node != "b"}, "no link of its own"),
        ({"linked": lambda node: node != "a"}, "no link of its own"),
        ({"bulk": True}, "carries no bulk links"),
    ],
)
def test_what_is_not_allowed_is_refused_with_a_sentence(more: dict[str, object], sentence: str):
    refusal = opened(RelayCore(bulk=False), "a", "b", **more)
    assert isinstance(refusal, str)
    assert sentence in refusal


def test_bulk_is_carried_where_the_owner_allows_it_and_nobody_relays_to_himself():
    core = RelayCore(bulk=True)
    assert isinstance(opened(core, "a", "b", bulk=True), Splice)
    assert "no need of a relay" in str(opened(core, "a", "a"))


def test_splices_are_bounded_a_member_and_in_all_and_come_back():
    core = RelayCore(bulk=False)
    ours = [spliced(core, "a", f"n{n}") for n in range(MEMBER_SPLICES_MAX)]
    assert "as many links as it can" in str(opened(core, "a", "x"))
    assert "as many links as it can" in str(opened(core, "x", "a"))
    core.close(ours.pop())
    spliced(core, "x", "a")
    for n in range(SPLICES_MAX - MEMBER_SPLICES_MAX):
        spliced(core, f"s{n}", f"d{n}")
    assert "as many links as it can" in str(opened(core, "y", "z"))


def test_the_poorer_end_sets_the_pace_and_a_new_splice_brings_no_new_budget():
    core = RelayCore(bulk=False)
    first = spliced(core, "a", "b")
    assert core.carry(first, BURST_BYTES, 0.0) == 0
    assert core.carry(first, BYTES_PER_S, 0.0) == pytest.approx(1)
    core.close(first)
    second = spliced(core, "a", "c")
    assert core.carry(second, BYTES_PER_S, 0.0) == pytest.approx(2)
    third = spliced(core, "d", "c")
    assert core.carry(third, 1, 0.0) == 0  # c has had little yet
    assert core.carry(second, 1, 60.0) == 0


@pytest.mark.parametrize("seed", range(5))
def test_a_bucket_gives_its_rate_and_its_burst_and_no_more_by_seed(seed: int):
    rng = random.Random(seed)
    bucket = Bucket(1000, 5000, 0.0)
    now = taken = 0.0
    while now < 100:
        size = rng.randrange(1, 3000)
        now += bucket.take(size, now)
        taken += size
        assert taken <= 5000 + 1000 * now + 1e-6
        now += rng.random() * 0.1
    assert taken >= 1000 * 95


def test_a_bucket_does_not_mind_a_clock_that_stands_or_goes_back():
    bucket = Bucket(1000, 1000, 10.0)
    assert bucket.take(1000, 10.0) == 0
    assert bucket.take(500, 9.0) == pytest.approx(0.5)
    assert bucket.take(500, 10.0) == pytest.approx(1.0)
