import random

import pytest

from cache.proto.bitfield import Bitfield
from cache.proto.fetch_plan import IN_FLIGHT_MAX, PER_HOLDER_MAX, FetchPlan


def half() -> float:
    return 0.5


def test_the_first_chunks_are_spread_over_the_holders() -> None:
    plan = FetchPlan(Bitfield(100), half)
    plan.on_holders(["a", "b"])
    asks = plan.next(0.0)
    assert len(asks) == IN_FLIGHT_MAX
    assert {ask.node for ask in asks} == {"a", "b"}
    assert sum(ask.node == "a" for ask in asks) <= PER_HOLDER_MAX
    assert [ask.index for ask in asks] == list(range(IN_FLIGHT_MAX))


def test_a_corrupt_holder_is_never_asked_again() -> None:
    have = Bitfield(4)
    plan = FetchPlan(have, half)
    plan.on_holders(["bad"])
    asks = plan.next(0.0)
    plan.on_corrupt(asks[0])
    plan.on_holders(["bad"])
    assert plan.corrupt_holders == {"bad"}
    assert plan.next(1e9) == []
    plan.on_holders(["bad", "good"])
    assert {ask.node for ask in plan.next(1e9)} == {"good"}


def test_a_failing_holder_rests_longer_each_time() -> None:
    plan = FetchPlan(Bitfield(1), half)
    plan.on_holders(["a"])
    now, rests = 0.0, []
    for _ in range(5):
        (ask,) = plan.next(now)
        plan.on_failure(ask, now)
        assert plan.deadline is not None
        rests.append(plan.deadline - now)
        now = plan.deadline
    assert rests == sorted(rests) and rests[0] < rests[-1] <= 30.0


def test_a_chunk_that_a_reader_waits_for_goes_first() -> None:
    plan = FetchPlan(Bitfield(50), half)
    plan.on_holders(["a"])
    plan.on_wanted([40])
    assert plan.next(0.0)[0].index == 40


@pytest.mark.parametrize("seed", range(20))
def test_every_chunk_comes_with_lying_and_failing_holders(seed: int) -> None:
    rng = random.Random(seed)
    have = Bitfield(rng.randrange(1, 60))
    plan = FetchPlan(have, rng.random)
    now, pending, corrupt_asks = 0.0, [], 0
    for _ in range(5000):
        if plan.done:
            break
        plan.on_holders(["good", "liar", "flaky"])
        pending += plan.next(now)
        now += 0.1
        if not pending:
            continue
        ask = pending.pop(rng.randrange(len(pending)))
        if ask.node == "liar":
            corrupt_asks += 1
            plan.on_corrupt(ask)
        elif ask.node == "flaky" and rng.random() < 0.7:
            plan.on_failure(ask, now)
        else:
            have[ask.index] = True
            plan.on_chunk(ask)
    assert plan.done
    assert corrupt_asks <= PER_HOLDER_MAX
