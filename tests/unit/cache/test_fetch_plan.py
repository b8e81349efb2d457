"""One plan alone, and several sites' worth of plans against each other in virtual time."""

import heapq
import random
from collections import Counter

import pytest

from cache.proto.bitfield import Bitfield
from cache.proto.fetch_plan import (
    BEGIN_S,
    PER_FELLOW_MAX,
    PER_SOURCE_MAX,
    SOURCES_MAX,
    STALL_S,
    Ask,
    FetchPlan,
    Members,
)


def half() -> float:
    return 0.5


def plan_of(count: int, *sources: str, fellows: tuple[str, ...] = ("me",)) -> FetchPlan:
    plan = FetchPlan(Bitfield(count), half)
    plan.on_members(Members("me", sources, fellows, fellows))
    return plan


def test_alone_the_chunks_are_spread_over_the_sources() -> None:
    plan = plan_of(100, "a", "b")
    asks = plan.next(0.0)
    assert Counter(ask.node for ask in asks) == {"a": 1, "b": 1}
    for ask in asks:
        plan.on_chunk(ask, 0.1)
    asks = plan.next(0.2)
    assert len(asks) <= SOURCES_MAX
    assert all(count <= PER_SOURCE_MAX for count in Counter(a.node for a in asks).values())
    assert not any(ask.shared for ask in asks)


def test_each_fellow_takes_its_own_chunks_from_the_source_and_the_rest_from_the_others() -> (
    None
):
    plan = plan_of(30, "source", fellows=("me", "b", "c"))
    asks = plan.next(0.0)
    assert {ask.index % 3 for ask in asks if ask.node == "source"} == {0}
    assert {ask.index % 3 for ask in asks if ask.node == "b"} == {1}
    assert {ask.index % 3 for ask in asks if ask.node == "c"} == {2}
    assert {ask.node for ask in asks if ask.shared} == {"b", "c"}
    assert Counter(a.node for a in asks)["b"] == PER_FELLOW_MAX


def test_who_sent_wrong_bytes_is_never_asked_again() -> None:
    plan = plan_of(4, "bad")
    asks = plan.next(0.0)
    plan.on_corrupt(asks[0])
    assert plan.corrupt_holders == {"bad"}
    assert plan.next(1e9) == []
    plan.on_members(Members("me", ("bad", "good"), ("me",), ("me",)))
    assert {ask.node for ask in plan.next(1e9)} == {"good"}


def test_a_failing_source_rests_longer_each_time() -> None:
    plan = plan_of(1, "a")
    now, rests = 0.0, []
    for _ in range(5):
        (ask,) = plan.next(now)
        plan.on_failure(ask, now)
        until = plan.wake_at(now)
        assert until is not None
        rests.append(until - now)
        now = until
    assert rests == sorted(rests) and rests[0] < rests[-1] <= 30.0


def test_a_chunk_that_a_reader_waits_for_goes_first() -> None:
    plan = plan_of(50, "a")
    plan.on_wanted([40, 1_000])
    (first, *_) = plan.next(0.0)
    assert (first.index, first.first) == (40, True)


def test_a_source_that_is_slow_is_asked_for_one_chunk_at_a_time() -> None:
    plan = plan_of(50, "a")
    for ask in plan.next(0.0):
        plan.on_chunk(ask, 10.0)
    assert len(plan.next(10.0)) == 1


def test_a_source_without_the_chunk_is_not_asked_for_it_again_at_once() -> None:
    plan = plan_of(1, "a", "b")
    (ask,) = plan.next(0.0)
    plan.on_denied(ask, 0.0)
    (other,) = plan.next(0.0)
    assert {ask.node, other.node} == {"a", "b"}
    plan.on_denied(other, 0.0)
    assert plan.next(0.1) == []
    assert plan.wake_at(0.1) == 2.0
    assert len(plan.next(2.0)) == 1


@pytest.mark.parametrize(("have", "patience"), [(None, BEGIN_S), (3, STALL_S)])
def test_a_fellow_that_gets_nowhere_is_passed_over(have: int | None, patience: float) -> None:
    plan = plan_of(2, "source", fellows=("me", "b"))
    (mine, theirs) = plan.next(0.0)
    assert (mine.node, theirs.node) == ("source", "b")
    plan._have[mine.index] = True
    plan.on_chunk(mine, 0.0)
    plan.on_later(theirs, have, 5.0)
    (theirs,) = plan.next(5.0)
    plan.on_later(theirs, have, 4.0 + patience)
    (theirs,) = plan.next(4.0 + patience)
    assert theirs.node == "b"
    plan.on_later(theirs, have, 9.0 + patience)
    (taken,) = plan.next(9.0 + patience)
    assert (taken.node, taken.index, taken.shared) == ("source", 1, False)


def test_a_fellow_that_gets_on_is_waited_for_however_slow_it_is() -> None:
    plan = plan_of(2, "source", fellows=("me", "b"))
    theirs = plan.next(0.0)[1]
    for turn in range(1, 20):
        plan.on_later(theirs, turn, turn * (STALL_S - 1))
        (theirs,) = plan.next(turn * (STALL_S - 1))
        assert theirs.node == "b"


def test_a_fellow_that_has_no_room_for_calls_is_not_asked_again_at_once() -> None:
    plan = plan_of(2, "source", fellows=("me", "b"))
    theirs = plan.next(0.0)[1]
    plan.on_later(theirs, 1, 0.1)
    assert plan.next(0.2) == []
    (theirs,) = plan.next(1.2)
    assert theirs.node == "b"


def test_what_a_node_that_has_it_all_would_own_is_shared_by_the_others_alike() -> None:
    plan = FetchPlan(Bitfield(600), half)
    plan.on_members(Members("a", ("s",), ("a", "b", "c"), ("a", "b", "c", "s")))
    plan.next(0.0)
    owners = Counter(plan._owner(index) for index in range(600))
    assert owners == {"a": 200, "b": 200, "c": 200}


# -- several plans against each other ------------------------------------------------------


class Site:
    """Fellows that fetch from one source, whose nodes may be slow, lie, fail or die."""

    def __init__(self, seed: int, nodes: int, chunks: int, trouble: bool) -> None:
        self.rng = random.Random(seed)
        self.names = tuple(f"n{i}" for i in range(nodes))
        self.plans: dict[str, FetchPlan] = {}
        self.have = {name: Bitfield(chunks) for name in self.names}
        self.from_source: Counter[int] = Counter()
        self.trouble, self.dead = trouble, set[str]()
        self.events: list[tuple[float, int, str, str, Ask]] = []
        self.serial, self.now = 0, 0.0
        for name in self.names:
            self.plans[name] = FetchPlan(self.have[name], self.rng.random)
        self.told()

    def told(self) -> None:
        alive = tuple(name for name in self.names if name not in self.dead)
        for name in alive:
            self.plans[name].on_members(Members(name, ("source",), alive, self.names))

    def at(self, delay: float, what: str, who: str, ask: Ask) -> None:
        self.serial += 1
        heapq.heappush(self.events, (self.now + delay, self.serial, what, who, ask))

    def start(self, who: str) -> None:
        for ask in self.plans[who].next(self.now):
            if ask.node == "source":
                self.from_source[ask.index] += 1
            self.at(self.rng.uniform(0.01, 0.1), "served", who, ask)

    def served(self, who: str, ask: Ask) -> None:
        plan, other = self.plans[who], self.have.get(ask.node)
        if ask.node in self.dead:
            plan.on_failure(ask, self.now)
        elif other is not None and not other[ask.index]:
            if self.now - ask.at < 5.0:  # it keeps the call
                self.at(0.05, "served", who, ask)
            else:
                plan.on_later(ask, other.have, self.now)
        elif self.trouble and self.rng.random() < 0.05:
            plan.on_failure(ask, self.now)
        else:
            self.have[who][ask.index] = True
            plan.on_chunk(ask, self.now)

    def run(self, kill_at: float | None = None) -> None:
        alive = set(self.names)
        while any(not self.plans[name].done for name in alive - self.dead):
            for name in sorted(alive - self.dead):
                self.start(name)
            if self.events:
                self.now, _, _, who, ask = heapq.heappop(self.events)
                if who not in self.dead:
                    self.served(who, ask)
            else:
                ends = [self.plans[n].wake_at(self.now) for n in alive - self.dead]
                self.now = min(end for end in ends if end is not None)
            if kill_at is not None and self.now >= kill_at and not self.dead:
                self.dead.add(self.names[0])
                self.told()
            assert self.now < 3600.0, "they wait for each other"


@pytest.mark.parametrize("nodes", [1, 2, 5, 12])
def test_every_chunk_leaves_the_source_once(nodes: int) -> None:
    site = Site(1, nodes, 120, trouble=False)
    site.run()
    assert all(count == 1 for count in site.from_source.values())
    assert len(site.from_source) == 120


@pytest.mark.parametrize("seed", range(20))
def test_with_failures_and_a_death_everybody_ends_and_little_is_taken_twice(seed: int) -> None:
    site = Site(seed, 5, 200, trouble=True)
    site.run(kill_at=0.8)
    assert site.dead == {"n0"}
    assert site.from_source.total() < 200 * 1.3


@pytest.mark.parametrize("seed", range(20))
def test_every_chunk_comes_with_lying_and_failing_sources(seed: int) -> None:
    rng = random.Random(seed)
    have = Bitfield(rng.randrange(1, 60))
    plan = FetchPlan(have, rng.random)
    plan.on_members(Members("me", ("good", "liar", "weak"), ("me",), ("me",)))
    now = 0.0
    while not plan.done:
        asks = plan.next(now)
        for ask in asks:
            assert not have[ask.index]
            if ask.node == "liar":
                plan.on_corrupt(ask)
            elif rng.random() < 0.4 and ask.node == "weak":
                plan.on_failure(ask, now)
            else:
                have[ask.index] = True
                plan.on_chunk(ask, now)
        if not asks:
            until = plan.wake_at(now)
            assert until is not None
            now = until
    assert plan.in_flight == 0
