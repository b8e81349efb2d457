"""What copies of assets may use of a site's uplink: one rate, and others at hours of the day.

It knows no clock. Rules: the first span of hours that covers a minute decides, else the rate
that counts otherwise; 0 means no cap.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

_TIME: Final = r"([01][0-9]|2[0-3]):([0-5][0-9])"
_HOURS: Final = re.compile(_TIME + "-" + _TIME + r" +([0-9]{1,6}(?:\.[0-9]{1,3})?)")


@dataclass(frozen=True, slots=True)
class Hours:
    """A rate from one minute of the day until before another, over midnight if that is less."""

    begin: int
    end: int
    mbit: float


def parse_hours(text: str) -> Hours:
    """Read ``HH:MM-HH:MM MBIT``; raises ValueError with one sentence."""
    found = _HOURS.fullmatch(text)
    if found is None:
        raise ValueError(f"uplink_hours takes HH:MM-HH:MM MBIT, not {text!r}")
    begin, end = (int(found[at]) * 60 + int(found[at + 1]) for at in (1, 3))
    return Hours(begin, end, float(found[5]))


def rate_at(minute: int, mbit: float, hours: Sequence[Hours]) -> float:
    """Return bytes a second at a minute of the day; 0: no cap."""
    for span in hours:
        over_midnight = span.end <= span.begin
        inside = minute >= span.begin, minute < span.end
        if any(inside) if over_midnight else all(inside):
            return span.mbit * 125_000
    return mbit * 125_000
