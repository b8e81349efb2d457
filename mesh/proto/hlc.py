"""Hybrid logical clock: one integer, Unix milliseconds << 16 | counter, that never goes back.

It knows no wall clock; ``now_ms`` is handed in. Rules: what we issue is above all that we
issued and above what we knowingly overrule; what others show moves us forward, but at most
``DRIFT_MS_MAX`` past the best time we know, so a clock that runs ahead cannot drag the fleet;
a counter that overflows carries into the milliseconds, which is harmless (one integer).
"""

from typing import Final

COUNTER_BITS: Final = 16
DRIFT_MS_MAX: Final = 5 * 60 * 1000
"""How far past the best-known fleet time a stamp of somebody else may move us."""
HLC_MAX: Final = (1 << 63) - 1
"""Stamps are stored as signed 64-bit integers."""


class Hlc:
    """The clock of one author."""

    __slots__ = ("last",)

    def __init__(self, last: int = 0) -> None:
        assert 0 <= last <= HLC_MAX
        self.last = last

    def tick(self, now_ms: int, above: int = 0) -> int:
        """Issue a stamp above all issued ones and above ``above``, which it overrules."""
        self.last = max(self.last + 1, now_ms << COUNTER_BITS, above + 1)
        assert self.last <= HLC_MAX
        return self.last

    def floor(self, now_ms: int) -> int:
        """Promise to issue nothing at or below the returned stamp from here on."""
        self.last = max(self.last, now_ms << COUNTER_BITS)
        return self.last

    def observe(self, seen: int, now_ms: int, fleet_ms: int = 0) -> bool:
        """Move up to a stamp of somebody else; False when it was too far ahead and was cut.

        ``fleet_ms`` is what the middle of the fleet takes for the time: it lets a node whose
        own clock stands at 1970 follow the others.
        """
        limit = (max(now_ms, fleet_ms) + DRIFT_MS_MAX) << COUNTER_BITS
        self.last = max(self.last, min(seen, limit))
        return seen <= limit


def milliseconds(stamp: int) -> int:
    """Return the physical part of a stamp, Unix milliseconds."""
    return stamp >> COUNTER_BITS
