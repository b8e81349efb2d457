"""Token buckets by name: how often an account, an address or a token may ask.

It knows no clock (callers pass ``now_s``) and no network. Rule: a name gets ``burst`` tries at
once and one more every ``refill_s``. At most ``NAMES_MAX`` names have a bucket of their own;
only a bucket that is full again is forgotten, so that whoever floods us with names wins no
further tries: while there is no room, all new names share one bucket.
"""

from typing import Final

NAMES_MAX: Final = 4096
SHARED: Final = ""
"""Bucket of the names that came when there was no room."""


class Throttle:
    """Buckets for any number of names."""

    def __init__(self, burst: int, refill_s: float) -> None:
        assert burst > 0
        assert refill_s > 0
        self._burst = burst
        self._refill_s = refill_s
        self._buckets: dict[str, tuple[float, float]] = {}

    def allow(self, name: str, now_s: float) -> bool:
        """Take one try of this name; False when it has none left (nothing is taken then)."""
        name = self._placed(name, now_s)
        tokens, since_s = self._buckets.pop(name, (float(self._burst), now_s))
        tokens = min(float(self._burst), tokens + max(0.0, now_s - since_s) / self._refill_s)
        allowed = tokens >= 1.0
        self._buckets[name] = (tokens - 1.0 if allowed else tokens, now_s)
        return allowed

    def wait_s(self, name: str, now_s: float) -> float:
        """Return after how many seconds this name has its next try."""
        name = self._placed(name, now_s)
        tokens, since_s = self._buckets.get(name, (float(self._burst), now_s))
        missing = 1.0 - tokens - max(0.0, now_s - since_s) / self._refill_s
        return max(0.0, missing * self._refill_s)

    def forgive(self, name: str) -> None:
        """Give a name all its tries back (it proved who it is)."""
        self._buckets.pop(name, None)

    def _placed(self, name: str, now_s: float) -> str:
        """Return the name of the bucket that counts for this one."""
        if name in self._buckets:
            return name
        while len(self._buckets) >= NAMES_MAX:
            oldest = next(iter(self._buckets))  # the least lately touched
            if now_s - self._buckets[oldest][1] < self._burst * self._refill_s:
                return SHARED
            del self._buckets[oldest]
        return name
