"""Rendezvous hashing and the rules of crossing dials."""

import itertools
import random
from collections import Counter

import pytest

from mesh.proto.crossing import (
    COURTESY_S_MAX,
    CROSSING_S,
    REDIAL_FIRST_S,
    REDIAL_MAX_S,
    STEADY_S,
    Redial,
    courtesy_s,
    newer_stays,
)
from mesh.proto.rendezvous import owner, ranked

MEMBERS = [f"node{number}" for number in range(10)]


def test_nobody_owns_nothing():
    assert owner([], "key") is None
    assert owner(MEMBERS, "key", weight=lambda _: 0.0) is None


def test_the_order_of_the_members_does_not_matter():
    assert owner(MEMBERS, "key") == owner(reversed(MEMBERS), b"key")
    assert sorted(ranked(MEMBERS, "key")) == MEMBERS


def test_the_owner_of_a_key_is_fixed_for_ever():
    assert owner(MEMBERS, "02:00:00:00:00:01") == "node8"
    assert ranked(MEMBERS[:4], "job") == ["node2", "node0", "node1", "node3"]


def test_a_member_that_goes_moves_only_its_own_keys():
    for number in range(300):
        before = ranked(MEMBERS, f"key{number}")
        after = ranked(MEMBERS[1:], f"key{number}")
        assert after == [member for member in before if member != MEMBERS[0]]


def test_keys_spread_evenly_and_by_weight():
    count = dict.fromkeys(MEMBERS, 0)
    for number in range(5000):
        count[str(owner(MEMBERS, f"key{number}"))] += 1
    assert all(400 < value < 600 for value in count.values())
    heavy = 0
    for number in range(5000):
        heavy += owner(["a", "b"], f"key{number}", lambda m: 3.0 if m == "a" else 1.0) == "a"
    assert 3600 < heavy < 3900


def test_both_sides_keep_the_same_of_two_crossing_links():
    for restarted, age in itertools.product((False, True), (0.0, CROSSING_S + 1)):
        for order in itertools.permutations((True, False)):
            old, new = order
            stays = newer_stays(
                lower_dialled_old=old,
                lower_dialled_new=new,
                restarted=restarted,
                old_age_s=age,
            )
            assert stays == (restarted or age > CROSSING_S or new)


def test_a_second_dial_of_the_same_side_replaces_the_first():
    for lower in (True, False):
        assert newer_stays(
            lower_dialled_old=lower, lower_dialled_new=lower, restarted=False, old_age_s=0.0
        )


def test_redials_spread_out_up_to_a_cap_and_start_again_after_a_steady_link():
    redial = Redial(lambda: 0.999)
    waits = [redial.wait_s() for _ in range(40)]
    assert waits == sorted(waits)
    assert REDIAL_MAX_S * 0.99 < waits[-1] < REDIAL_MAX_S
    redial.succeeded(STEADY_S - 1)
    assert redial.wait_s() > 1
    redial.succeeded(STEADY_S)
    assert redial.wait_s() < 1


def test_a_fleet_spreads_its_dials_to_a_hub_that_comes_back():
    assert courtesy_s(members=3, hubs=1) == REDIAL_FIRST_S
    assert courtesy_s(members=1000, hubs=1) == 5.0
    assert courtesy_s(members=1000, hubs=2) == 2.5
    assert courtesy_s(members=100_000, hubs=1) == COURTESY_S_MAX
    assert courtesy_s(members=0, hubs=0) == REDIAL_FIRST_S


@pytest.mark.parametrize("seed", range(5))
def test_a_thousand_nodes_never_dial_a_hub_much_faster_than_it_takes(seed: int):
    """A hub is away for 20 s: those that failed meanwhile come later, not all at once."""
    dice = random.Random(seed)
    spread_s, dials = courtesy_s(1000, 1), []
    for _ in range(1000):
        redial, now = Redial(dice.random), 0.0
        while now < 20.0:
            now += redial.wait_s(spread_s)
        dials.append(now)
    by_second = Counter(int(at) for at in dials)
    assert max(by_second.values()) <= 200
    assert max(dials) <= 20.0 + REDIAL_MAX_S


def test_a_small_spread_is_for_the_first_wait_only():
    redial = Redial(lambda: 0.999)
    assert redial.wait_s(0.01) < 0.01
    assert redial.wait_s(0.01) > 0.5
