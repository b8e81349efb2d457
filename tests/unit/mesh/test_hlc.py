"""The hybrid logical clock."""

from mesh.proto.hlc import DRIFT_MS_MAX, Hlc, milliseconds

NOW = 1_700_000_000_000


def test_stamps_only_grow_when_the_wall_clock_goes_back():
    clock = Hlc()
    stamps = [clock.tick(NOW), clock.tick(NOW), clock.tick(NOW - 10_000), clock.tick(NOW + 1)]
    assert stamps == sorted(set(stamps))
    assert milliseconds(stamps[-1]) == NOW + 1


def test_a_stamp_is_above_what_it_overrules_however_far_ahead():
    clock = Hlc()
    ahead = (NOW + 10**9) << 16
    assert clock.tick(NOW, above=ahead) == ahead + 1


def test_others_move_us_at_most_the_drift_past_the_best_known_time():
    clock = Hlc()
    assert clock.observe((NOW + 1000) << 16, NOW)
    assert milliseconds(clock.last) == NOW + 1000
    assert not clock.observe((NOW + 10**9) << 16, NOW)
    assert milliseconds(clock.last) == NOW + DRIFT_MS_MAX


def test_a_node_whose_clock_stands_at_1970_follows_the_fleet():
    clock = Hlc()
    assert clock.observe(NOW << 16, 5, fleet_ms=NOW)
    assert clock.tick(6) == (NOW << 16) + 1


def test_a_floor_is_a_promise():
    clock = Hlc()
    floor = clock.floor(NOW)
    assert clock.tick(NOW - 1) > floor
