"""When to start which of the ways to one peer: all of them, in parallel, the best one first.

It knows no address and no socket, only how many ways there are. Rules (RFC 8305 section 5, and
one more): a way starts STAGGER_S after the one before it, or at once when one that was started
has failed; the late ones (relays, which cost somebody else's bytes) start LATE_S after the
first, or as soon as every direct way has failed; it is lost when the last way has failed.
"""

from dataclasses import dataclass
from typing import Final

STAGGER_S: Final = 0.25
"""Between two starts: a better way that answers within this wins."""
LATE_S: Final = 2.0
"""What the direct ways have before the late ones start."""


@dataclass(frozen=True, slots=True)
class Begin:
    """Start this way, counted from 0, direct ones first."""

    way: int


@dataclass(frozen=True, slots=True)
class Lost:
    """Every way has failed."""


Effect = Begin | Lost


class Race:
    """One race; over when the shell has a session or it is Lost."""

    def __init__(self, direct: int, late: int) -> None:
        self._direct = direct
        self._ways = direct + late
        self._begun = 0
        self._running: set[int] = set()
        self._late_at = 0.0
        self.deadline: float | None = None

    def start(self, now: float) -> list[Effect]:
        """Begin with the best way."""
        self._late_at = now + LATE_S
        return self._next(now)

    def on_failed(self, way: int, now: float) -> list[Effect]:
        """A way that was begun has failed: the next one need not wait for its turn."""
        self._running.discard(way)
        if self._begun < self._direct or not self._running:
            return self._next(now)
        return []

    def on_timer(self, now: float) -> list[Effect]:
        """Begin the way whose time has come."""
        if self.deadline is None or now < self.deadline:
            return []
        return self._next(now)

    def _next(self, now: float) -> list[Effect]:
        if self._begun == self._ways:
            self.deadline = None
            return [] if self._running else [Lost()]
        way = self._begun
        self._begun += 1
        self._running.add(way)
        if self._begun == self._ways:
            self.deadline = None
        elif self._begun < self._direct:
            self.deadline = now + STAGGER_S
        else:
            self.deadline = max(now + STAGGER_S, self._late_at)
        return [Begin(way)]
