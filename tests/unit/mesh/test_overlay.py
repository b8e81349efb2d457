"""Who is a gateway and whom it keeps: alike for all, whole in every schedule, bounded."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.proto.overlay import (
    FORGIVE_S,
    FULL_MESH_MAX,
    LARGE_SITE,
    NEAR_ON_RING,
    PATIENCE_S,
    PROBE_TRY_S,
    Overlay,
    Wanted,
    gateways_of,
)

KEY = bytes(range(20))


def fleet(sites: int, members: int) -> dict[str, list[str]]:
    return {f"s{s}": [f"s{s}n{n}" for n in range(members)] for s in range(sites)}


def overlay(me: str, members: dict[str, list[str]], seed: int = 1) -> Overlay:
    site = next(site for site, nodes in members.items() if me in nodes)
    made = Overlay(me, site, KEY, random.Random(f"{me}{seed}"))
    made.on_members(members, 0.0)
    return made


def site_of(node: str) -> str:
    return node.partition("n")[0]


def far(made: Overlay) -> set[str]:
    return {node for node in made.wanted if site_of(node) != made._site}


def settle(members: dict[str, list[str]], dead: frozenset[str] = frozenset()):
    """Let every overlay live for two minutes over links that one side wants."""
    made = {
        n: overlay(n, members) for nodes in members.values() for n in nodes if n not in dead
    }
    for now in range(0, 120, 10):
        for me, one in made.items():
            linked = {n for n in one.wanted if n not in dead}
            linked |= {n for n, other in made.items() if me in other.wanted}
            one.on_links(dict.fromkeys(linked, 30.0), float(now))
    return made


def reached(made: dict[str, Overlay]) -> set[str]:
    edges: dict[str, set[str]] = {node: set() for node in made}
    for me, one in made.items():
        for peer in one.wanted & made.keys():
            edges[me].add(peer)
            edges[peer].add(me)
    seen, todo = set(), [min(made)]
    while todo:
        node = todo.pop()
        if node not in seen:
            seen.add(node)
            todo += edges[node]
    return seen


def test_everybody_names_the_same_gateways_and_a_large_site_has_three():
    members = fleet(3, 5) | {"big": [f"b{n}" for n in range(LARGE_SITE + 1)]}
    one, two = overlay("s0n1", members), overlay("s2n4", members)
    assert one.gateways("s1") == two.gateways("s1")
    assert len(one.gateways("s1")) == 2
    assert len(one.gateways("big")) == 3
    assert one.gateways("nowhere") == []


def test_an_absent_gateway_is_replaced_by_the_next_and_all_absent_is_our_own_blindness():
    nodes = ["a", "b", "c", "d"]
    first, second = gateways_of(nodes, "x")
    assert gateways_of(nodes, "x", {first})[0] == second
    assert gateways_of(nodes, "x", nodes) == [first, second]


def test_a_member_that_is_no_gateway_wants_its_site_only():
    members = fleet(5, 6)
    plain = next(n for n in members["s0"] if n not in overlay(n, members).gateways("s0"))
    made = overlay(plain, members)
    assert not made.is_gateway
    assert made.wanted == set(members["s0"]) - {plain}


def test_a_hub_wants_nobody():
    made = Overlay("hub", "", KEY, random.Random(1))
    assert made.on_members(fleet(3, 3), 0.0) == []
    assert made.wanted == frozenset()
    assert not made.is_gateway
    assert len(made.gateways("s1")) == 2


def test_gateways_keep_ring_random_and_nearest_peers_and_the_fleet_is_one():
    made = settle(fleet(25, 3))
    assert reached(made) == set(made)
    degrees = [len(far(one)) for one in made.values() if one.is_gateway]
    assert min(degrees) >= 5
    assert max(degrees) <= 6  # a site that is probed now comes on top
    assert sum(one.is_gateway for one in made.values()) == 50


def test_ring_neighbours_want_each_other():
    members = fleet(12, 3)
    made = {n: overlay(n, members) for nodes in members.values() for n in nodes}
    gateways = [one for one in made.values() if one.is_gateway]
    for one in gateways:
        back = [peer for peer in far(one) if one._me in made[peer].wanted]
        assert len(back) >= 2


@pytest.mark.parametrize("seed", range(4))
def test_the_fleet_stays_one_when_a_fifth_of_the_sites_is_dead(seed):
    members = fleet(20, 2)
    gone = random.Random(seed).sample(sorted(members), 4)
    dead = frozenset(node for site in gone for node in members[site])
    made = settle(members, dead)
    assert reached(made) == set(made)


def test_a_far_peer_that_cannot_be_had_gives_way_and_comes_back_later():
    members = fleet(2, 3)
    me = overlay("s0n0", members).gateways("s0")[0]
    made = overlay(me, members)
    (first,) = far(made)
    assert made.on_timer(PATIENCE_S - 0.1) == []
    (effect,) = made.on_timer(PATIENCE_S)
    (second,) = far(made)
    assert isinstance(effect, Wanted)
    assert second != first
    made.on_links({second: 10.0}, PATIENCE_S + 1)
    assert far(made) == {second}
    made.on_timer(PATIENCE_S + FORGIVE_S)
    assert far(made) == {first, second}
    made.on_links({first: 10.0, second: 10.0}, PATIENCE_S + FORGIVE_S + 1)
    assert far(made) == {first}


def test_a_site_that_cannot_be_had_at_all_gives_way_to_the_next_on_the_ring():
    members = fleet(9, 2)
    me = overlay("s0n0", members).gateways("s0")[0]
    made = overlay(me, members)
    ring = made._ring
    after = ring[(ring.index("s0") + 1) % 9]
    for n in range(1, 5):
        linked = {p: 20.0 for p in made.wanted if site_of(p) != after}
        made.on_links(linked, n * PATIENCE_S)
    then = ring[(ring.index("s0") + 2) % 9]
    assert then in {site_of(p) for p in far(made)}
    assert after not in {site_of(p) for p in far(made)}


def test_a_nearer_site_is_found_by_probing_and_kept():
    members = fleet(30, 2)
    me = overlay("s0n0", members).gateways("s0")[0]
    made = overlay(me, members)
    trips = {
        s: 20.0 + 5 * n for n, s in enumerate(random.Random(3).sample(sorted(members), 30))
    }
    now, nears = 0.0, []
    for _ in range(400):
        made.on_links({p: trips[site_of(p)] for p in made.wanted}, now)
        now = max(now + 1.0, made.deadline or now)
        nears.append(trips[made._near] if made._near else 999.0)
    assert nears[-1] <= 30.0
    assert nears[-1] < nears[5]


def test_a_probed_site_that_never_shows_a_round_trip_is_let_go():
    members = fleet(30, 2)
    me = overlay("s0n0", members).gateways("s0")[0]
    made = overlay(me, members)
    assert made._probe is not None
    site = made._probe[0]
    made.on_links(dict.fromkeys(made.wanted), 1.0)
    made.on_timer(PROBE_TRY_S + 1)
    assert site not in {site_of(p) for p in far(made)}


def test_above_the_full_mesh_a_member_keeps_its_gateways_and_some_neighbours():
    members = {"big": [f"b{n}" for n in range(FULL_MESH_MAX + 36)]}
    made = {n: Overlay(n, "big", KEY, random.Random(1)) for n in members["big"]}
    for one in made.values():
        one.on_members(members, 0.0)
    plain = [one for one in made.values() if not one.is_gateway]
    for one in plain:
        assert set(one.gateways("big")) <= one.wanted
        assert len(one.wanted) <= 2 * NEAR_ON_RING + 3
        assert all(one._me in made[peer].wanted for peer in one.wanted)
    assert all(len(one.wanted) == 99 for one in made.values() if one.is_gateway)


events = st.lists(
    st.tuples(st.sampled_from(["members", "absent", "links", "time"]), st.integers(0, 1 << 30)),
    max_size=40,
)


@settings(max_examples=100)
@given(events)
def test_whatever_happens_the_choice_is_of_members_and_bounded(schedule):
    members = fleet(12, 3)
    everyone = sorted(node for nodes in members.values() for node in nodes)
    made = overlay("s0n0", members)
    now = 0.0
    for what, number in schedule:
        chance = random.Random(number)
        some = chance.sample(everyone, chance.randrange(len(everyone)))
        now += chance.choice([0.0, 1.0, 15.0, 300.0])
        if what == "members":
            members = {s: [n for n in nodes if n in some] for s, nodes in fleet(12, 3).items()}
            made.on_members(members, now)
        elif what == "absent":
            made.on_absent(some, now)
        elif what == "links":
            made.on_links({n: chance.choice([None, 5.0, 50.0]) for n in some}, now)
        else:
            made.on_timer(now)
        assert made.wanted <= {n for nodes in members.values() for n in nodes} - {"s0n0"}
        assert len(far(made)) <= 2 * 6
        assert made.deadline is None or made.deadline > now - 1
