"""Which of the ways to one peer starts when."""

from hypothesis import given
from hypothesis import strategies as st

from mesh.proto.race import LATE_S, STAGGER_S, Begin, Lost, Race


def test_the_best_way_starts_first_and_the_next_after_the_stagger():
    race = Race(3, 0)
    assert race.start(10.0) == [Begin(0)]
    assert race.deadline == 10.0 + STAGGER_S
    assert race.on_timer(10.1) == []
    assert race.on_timer(10.25) == [Begin(1)]
    assert race.on_timer(10.5) == [Begin(2)]
    assert race.deadline is None


def test_a_failure_starts_the_next_at_once_and_the_last_failure_loses():
    race = Race(2, 0)
    race.start(0.0)
    assert race.on_failed(0, 0.01) == [Begin(1)]
    assert race.on_failed(1, 0.02) == [Lost()]


def test_a_failure_while_another_runs_does_not_lose():
    race = Race(2, 0)
    race.start(0.0)
    race.on_timer(STAGGER_S)
    assert race.on_failed(1, 0.3) == []
    assert race.on_failed(0, 9.0) == [Lost()]


def test_relays_wait_for_the_direct_ways():
    race = Race(2, 2)
    race.start(0.0)
    assert race.on_timer(STAGGER_S) == [Begin(1)]
    assert race.deadline == LATE_S
    assert race.on_failed(0, 0.3) == []  # the other direct way still runs
    assert race.on_timer(LATE_S) == [Begin(2)]
    assert race.on_timer(LATE_S + STAGGER_S) == [Begin(3)]


def test_relays_start_at_once_when_no_direct_way_is_left():
    assert Race(0, 1).start(5.0) == [Begin(0)]
    race = Race(1, 1)
    race.start(0.0)
    assert race.on_failed(0, 0.01) == [Begin(1)]


def test_no_way_at_all_is_lost_at_once():
    assert Race(0, 0).start(0.0) == [Lost()]


@given(st.integers(0, 8), st.integers(0, 4), st.randoms(use_true_random=False))
def test_every_way_begins_once_and_all_failures_end_it(direct: int, late: int, dice):
    race, now = Race(direct, late), 0.0
    begun: list[int] = []
    running: list[int] = []
    effects = race.start(now)
    while Lost() not in effects:
        for effect in effects:
            assert isinstance(effect, Begin)
            if effect.way >= direct > 0:
                assert now >= LATE_S or not set(range(direct)) & set(running)
            begun.append(effect.way)
            running.append(effect.way)
        if race.deadline is not None and (not running or dice.random() < 0.5):
            now = max(now, race.deadline)
            effects = race.on_timer(now)
        else:
            now += dice.random()
            effects = race.on_failed(running.pop(dice.randrange(len(running))), now)
    assert begun == list(range(direct + late))
    assert not running
