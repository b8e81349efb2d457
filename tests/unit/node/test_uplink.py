"""Rates of the uplink by the hour."""

import pytest

from node.config import Cache
from node.proto.uplink import Hours, parse_hours, rate_at

DAY, NIGHT = parse_hours("08:00-18:00 2"), parse_hours("22:30-05:00 0")


def test_hours_are_read() -> None:
    assert Hours(480, 1080, 2.0) == DAY
    assert parse_hours("00:00-23:59 0.5") == Hours(0, 1439, 0.5)


BAD = (
    "", "8:00-18:00 2", "08:00-24:00 2", "08:00-18:60 2", "08:00-18:00", "x", "08:00-18:00 -2",
    "08:00-18:00 nan", "08:00-18:00 2 mbit", "08:00-18:00 99999999",
)  # fmt: skip


@pytest.mark.parametrize("text", BAD)
def test_what_is_no_span_of_hours_is_refused_with_a_sentence(text: str) -> None:
    with pytest.raises(ValueError, match="HH:MM-HH:MM MBIT"):
        parse_hours(text)
    with pytest.raises(ValueError, match="HH:MM-HH:MM MBIT"):
        Cache(uplink_hours=("08:00-18:00 2", text))


@pytest.mark.parametrize("mbit", [-1.0, float("nan"), float("inf"), 1e7])
def test_a_rate_that_cannot_be_is_refused(mbit: float) -> None:
    with pytest.raises(ValueError, match="uplink_mbit"):
        Cache(uplink_mbit=mbit)


@pytest.mark.parametrize(
    ("minute", "mbit"),
    [
        (0, 0),
        (299, 0),
        (300, 8),
        (479, 8),
        (480, 2),
        (1079, 2),
        (1080, 8),
        (1349, 8),
        (1350, 0),
    ],
)
def test_the_minute_of_the_day_decides(minute: int, mbit: float) -> None:
    assert rate_at(minute, 8, [DAY, NIGHT]) == mbit * 125_000


def test_the_first_span_counts_and_one_of_equal_ends_is_the_whole_day() -> None:
    assert rate_at(600, 8, [parse_hours("09:00-11:00 1"), DAY]) == 125_000
    whole = parse_hours("00:00-00:00 3")
    assert {rate_at(minute, 8, [whole]) for minute in range(0, 1440, 7)} == {375_000}
