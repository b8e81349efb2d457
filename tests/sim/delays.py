"""How long things took, counted in milliseconds: millions of them in little memory."""

from typing import Any, Final

BINS: Final = 60_000


class Delays:
    """A histogram of times up to a minute; longer ones count as a minute."""

    def __init__(self) -> None:
        self.count = 0
        self._bins = [0] * (BINS + 1)

    def add(self, seconds: float) -> None:
        """Count one."""
        self.count += 1
        self._bins[min(BINS, int(seconds * 1000))] += 1

    def quantile_ms(self, share: float) -> int:
        """Return the upper edge of the bin that a share of all times lies below."""
        left = share * self.count
        for at, count in enumerate(self._bins):
            left -= count
            if left <= 0 and self.count:
                return at + 1
        return 0

    def figures(self) -> dict[str, Any]:
        """Return the median, the 99th percentile and the last, in milliseconds."""
        return {
            "p50_ms": self.quantile_ms(0.5),
            "p99_ms": self.quantile_ms(0.99),
            "last_ms": self.quantile_ms(1.0),
        }
