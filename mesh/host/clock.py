"""The wall clock as a port: shells are given one, cores are given numbers.

Rule: nothing else in the product reads the wall clock, so a test can hand out any time.
"""

import time
from typing import Protocol


class Clock(Protocol):
    """Unix time for shells."""

    def now_ms(self) -> int:
        """Return Unix milliseconds."""
        ...


class SystemClock:
    """The machine's clock."""

    def now_ms(self) -> int:
        """Return Unix milliseconds."""
        return time.time_ns() // 1_000_000


class FixedClock:
    """A clock that stands until it is moved; for tests and replays."""

    def __init__(self, now_ms: int = 1_700_000_000_000) -> None:
        self.value_ms = now_ms

    def now_ms(self) -> int:
        """Return the set time, Unix milliseconds."""
        return self.value_ms

    def advance(self, ms: int) -> None:
        """Move the clock forward."""
        self.value_ms += ms
