"""Which time to go by when the wall clock has jumped: pure, numbers in, a time out.

Theory of operation. The wall clock is followed as long as it moves like a clock that counts on
(``steady_ms``, which nobody can set): time servers slew and step it, a machine sleeps, somebody
mends a time zone. A jump beyond ``FOLLOW_MS`` is a fault (a dead battery, a broken time server,
a slip of the hand) and is not believed: time goes on from what it was, so that orders do not
all run out, nothing ages by years, and no stamp drags the others along. When the wall clock
comes back it is followed again.

At a start there is nothing to compare with but what was promised before (``begin``: the last
stamp in our own heads): a wall clock that stands far before it, or more than a year behind it,
is not believed either. What was held back to is then only a lower bound, so the first wall
clock that could be right is followed.

It knows no clock. Rule: ``now`` never raises and is cheap; a time before this program was
written is no time.
"""

from typing import Final

FOLLOW_MS: Final = 16 * 3_600_000
"""A jump that is followed: longer than any mistake about a time zone, shorter than the life of
an order (24 hours)."""
AWAY_MS: Final = 366 * 86_400_000
"""A member that was switched off for longer wants its operator's word about the time."""
WRITTEN_MS: Final = 1_767_225_600_000
"""2026-01-01: no clock that stands before it is right."""


class SteadyTime:
    """The time of one process."""

    __slots__ = ("_ahead_ms", "_offset_ms", "_sure", "off_ms")

    def __init__(self, wall_ms: int, steady_ms: int) -> None:
        self._offset_ms = wall_ms - steady_ms
        self._sure = wall_ms >= WRITTEN_MS
        self._ahead_ms = FOLLOW_MS
        self.off_ms = 0
        """How far the wall clock is from the time that we go by; 0 while it is followed."""

    def begin(self, promised_ms: int, wall_ms: int, steady_ms: int) -> None:
        """Compare with the latest time that we ever promised (0: never), once after start."""
        if promised_ms < WRITTEN_MS:
            return
        if promised_ms - FOLLOW_MS <= wall_ms <= promised_ms + AWAY_MS:
            return
        self._offset_ms, self._sure = promised_ms - steady_ms, False
        self._ahead_ms = AWAY_MS
        self.now(wall_ms, steady_ms)

    def now(self, wall_ms: int, steady_ms: int) -> int:
        """Return the time, Unix milliseconds."""
        held_ms = steady_ms + self._offset_ms
        off_ms = wall_ms - held_ms
        if held_ms < WRITTEN_MS:
            follows = True  # nothing is known: any time is as good or better
        else:
            ahead_ms = FOLLOW_MS if self._sure else self._ahead_ms
            follows = wall_ms >= WRITTEN_MS and -FOLLOW_MS <= off_ms <= ahead_ms
        if not follows:
            self.off_ms = off_ms
            return held_ms
        self._offset_ms, self.off_ms = wall_ms - steady_ms, 0
        self._sure = self._sure or wall_ms >= WRITTEN_MS
        return wall_ms
