"""A token bucket: so many bytes a second, so many at once after a rest.

It knows no clock. Rule: a taker always gets what it takes and is told how long to wait for it;
so a single message may be larger than the burst, and nobody starves.
"""


class Bucket:
    """A budget of bytes."""

    def __init__(self, bytes_per_s: float, burst_bytes: float, now: float) -> None:
        assert bytes_per_s > 0
        self._bytes_per_s = bytes_per_s
        self._burst_bytes = burst_bytes
        self._left_bytes = burst_bytes
        self._at = now

    def take(self, size: int, now: float) -> float:
        """Take bytes out; return the seconds to wait before using them."""
        earned = max(0.0, now - self._at) * self._bytes_per_s
        self._at = max(now, self._at)
        self._left_bytes = min(self._burst_bytes, self._left_bytes + earned) - size
        return max(0.0, -self._left_bytes / self._bytes_per_s)
