"""Time goes on steadily when the wall clock jumps, and follows it while it may be right."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.proto.steady_time import AWAY_MS, FOLLOW_MS, WRITTEN_MS, SteadyTime

NOW = WRITTEN_MS + 330 * 86_400_000
HOUR = 3_600_000
YEARS = 3652 * 86_400_000


def test_a_clock_that_is_slewed_or_stepped_a_little_is_followed() -> None:
    time = SteadyTime(NOW, 1000)
    assert time.now(NOW + 500, 1500) == NOW + 500
    assert time.now(NOW + 900, 1600) == NOW + 900, "a step of a second"
    assert time.now(NOW - 14 * HOUR, 1700) == NOW - 14 * HOUR, "the zone was wrong"
    assert time.off_ms == 0


@pytest.mark.parametrize("jump", [YEARS, -YEARS, FOLLOW_MS + 1, -FOLLOW_MS - 1])
def test_a_jump_is_not_believed_and_said_until_the_clock_is_back(jump: int) -> None:
    time = SteadyTime(NOW, 0)
    assert time.now(NOW + 10 + jump, 10) == NOW + 10
    assert time.off_ms == jump
    assert time.now(NOW + HOUR + jump, HOUR) == NOW + HOUR, "time goes on"
    assert time.now(NOW + 2 * HOUR + 5, 2 * HOUR) == NOW + 2 * HOUR + 5
    assert time.off_ms == 0


@pytest.mark.parametrize("wall", [0, NOW - YEARS, NOW + YEARS, NOW + AWAY_MS + HOUR])
def test_a_start_far_from_what_was_promised_goes_on_from_there(wall: int) -> None:
    time = SteadyTime(wall, 0)
    time.begin(NOW, wall, 0)
    assert time.now(wall + 7, 7) == NOW + 7
    assert time.off_ms == wall - NOW
    right = NOW + 40 * 86_400_000  # it was switched off for weeks
    assert time.now(right, 9) == right
    assert time.off_ms == 0
    assert time.now(right + YEARS, 10) == right + 1, "and from here on it is known"


@pytest.mark.parametrize("away", [-HOUR, 0, 90 * 86_400_000, AWAY_MS])
def test_a_start_after_a_while_follows_the_clock(away: int) -> None:
    time = SteadyTime(NOW + away, 0)
    time.begin(NOW, NOW + away, 0)
    assert (time.now(NOW + away + 1, 1), time.off_ms) == (NOW + away + 1, 0)


def test_a_first_start_with_a_dead_clock_follows_it_until_it_is_set() -> None:
    time = SteadyTime(5, 0)
    time.begin(0, 5, 0)
    assert time.now(10, 5) == 10
    assert time.now(NOW, 6) == NOW
    assert time.now(NOW + YEARS, 7) == NOW + 1


def test_what_was_promised_by_a_dead_clock_counts_for_nothing() -> None:
    time = SteadyTime(NOW, 0)
    time.begin(1000, NOW, 0)
    assert (time.now(NOW, 0), time.off_ms) == (NOW, 0)


@given(
    walls=st.lists(st.integers(-(2**62), 2**62), max_size=20),
    promised=st.integers(0, 2**62),
)
def test_any_wall_clock_gives_a_time_and_never_raises(walls: list[int], promised: int) -> None:
    time = SteadyTime(NOW, 0)
    time.begin(promised, NOW, 0)
    for step, wall in enumerate(walls):
        now = time.now(wall, step)
        assert time.off_ms == (0 if now == wall else wall - now)
