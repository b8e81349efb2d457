"""Which of two links to one peer stays when both sides dialled, and how long to wait to redial.

It knows no link and no clock. Rule: both sides decide alike from what both of them know.
"""

from collections.abc import Callable
from typing import Final

CROSSING_S: Final = 15.0
"""Dials cross only within this time; above a dial's and a HELLO's own limits of 10 s."""
REDIAL_FIRST_S: Final = 0.5
REDIAL_MAX_S: Final = 30.0
"""Longest wait between two dials to one peer."""
STEADY_S: Final = 30.0
"""A link that lived so long makes the next wait short again."""


def newer_stays(
    *, lower_dialled_old: bool, lower_dialled_new: bool, restarted: bool, old_age_s: float
) -> bool:
    """Decide which of two links to the same peer stays; both sides come to the same answer.

    Two dials that crossed: the one made by the lower node id stays. But a peer that restarted
    (another HELLO session), and a link that was there for longer than dials can cross, give way
    to the newer link: its dialler has lost the older one.
    """
    if restarted or old_age_s > CROSSING_S or lower_dialled_old == lower_dialled_new:
        return True
    return lower_dialled_new


class Redial:
    """Full-jitter back-off: a wait is uniform between 0 and a limit that doubles to its cap."""

    def __init__(
        self,
        uniform: Callable[[], float],
        first_s: float = REDIAL_FIRST_S,
        longest_s: float = REDIAL_MAX_S,
    ) -> None:
        """``uniform`` returns a random number in [0, 1); ``first_s`` is the first limit."""
        self._uniform = uniform
        self._first_s = first_s
        self._longest_s = longest_s
        self._failures = 0

    def succeeded(self, lived_s: float) -> None:
        """A link ended after so long."""
        if lived_s >= STEADY_S:
            self._failures = 0

    def wait_s(self) -> float:
        """Return how long to wait before the next dial."""
        limit = min(self._longest_s, self._first_s * (1 << min(self._failures, 16)))
        self._failures += 1
        return self._uniform() * limit
