"""Token buckets by name: how often an account or an address may try to sign in.

It knows no clock (callers pass ``now_s``) and no network. Rule: a name gets ``burst`` tries at
once and one more every ``refill_s``; at most ``NAMES_MAX`` names are kept, the one that was
idle longest is forgotten first, which only ever forgives.
"""

from typing import Final

NAMES_MAX: Final = 4096


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
        tokens, since_s = self._buckets.pop(name, (float(self._burst), now_s))
        tokens = min(float(self._burst), tokens + max(0.0, now_s - since_s) / self._refill_s)
        allowed = tokens >= 1.0
        self._buckets[name] = (tokens - 1.0 if allowed else tokens, now_s)
        if len(self._buckets) > NAMES_MAX:
            del self._buckets[next(iter(self._buckets))]
        return allowed

    def wait_s(self, name: str, now_s: float) -> float:
        """Return after how many seconds this name has its next try."""
        tokens, since_s = self._buckets.get(name, (float(self._burst), now_s))
        missing = 1.0 - tokens - max(0.0, now_s - since_s) / self._refill_s
        return max(0.0, missing * self._refill_s)

    def forgive(self, name: str) -> None:
        """Give a name all its tries back (it proved who it is)."""
        self._buckets.pop(name, None)
