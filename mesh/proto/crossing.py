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
RETURN_S: Final = 30.0
"""How long, on average, a second choice is kept before the first is tried again."""
COURTESY_S_MAX: Final = 20.0
HUB_DIALS_PER_S: Final = 200.0
"""Dials that a hub is expected to take; each costs it two handshakes, TLS and Noise."""
PEER_DIALS_PER_S: Final = 100.0
"""First dials of one node to peers that it has just learned of."""
STEADY_S: Final = 30.0
"""A link that lived so long makes the next wait short again."""


def newer_stays(
    *,
    lower_dialled_old: bool,
    lower_dialled_new: bool,
    restarted: bool,
    old_age_s: float,
    relayed_old: bool = False,
    relayed_new: bool = False,
) -> bool:
    """Decide which of two links to the same peer stays; both sides come to the same answer.

    Two dials that crossed: the one made by the lower node id stays. But a peer that restarted
    (another HELLO session), and a link that was there for longer than dials can cross, give way
    to the newer link: its dialler has lost the older one. A direct path beats a relayed one
    whatever their ages; a peer that lost its direct path is let in over a relay when we have
    noticed it too.
    """
    if relayed_old != relayed_new and not restarted:
        return relayed_old
    if restarted or old_age_s > CROSSING_S or lower_dialled_old == lower_dialled_new:
        return True
    return lower_dialled_new


def courtesy_s(members: int, hubs: int) -> float:
    """Return over how long a fleet spreads its first dials when a hub comes back."""
    return min(COURTESY_S_MAX, max(REDIAL_FIRST_S, members / (max(1, hubs) * HUB_DIALS_PER_S)))


def first_dials_s(peers: int) -> float:
    """Return over how long a node spreads its dials to so many peers that are new to it."""
    return min(REDIAL_FIRST_S, peers / PEER_DIALS_PER_S)


class Redial:
    """Full-jitter back-off: a wait is uniform between 0 and a limit that doubles to its cap."""

    def __init__(
        self,
        uniform: Callable[[], float],
        first_s: float = REDIAL_FIRST_S,
        longest_s: float = REDIAL_MAX_S,
    ) -> None:
        """``uniform`` returns a random number in [0, 1)."""
        self._uniform = uniform
        self._first_s = first_s
        self._longest_s = longest_s
        self._failures = 0

    def succeeded(self, lived_s: float) -> None:
        """A link ended after so long."""
        if lived_s >= STEADY_S:
            self._failures = 0

    def return_s(self) -> float:
        """Return how long to stay with a second choice before the first is tried again.

        Spread, since all nodes of a hub lose it at once and would come back at once.
        """
        return RETURN_S * (0.5 + self._uniform())

    def wait_s(self, spread_s: float | None = None) -> float:
        """Return how long to wait before the next dial.

        ``spread_s`` is the limit of the first wait, and the least that later ones start from.
        """
        first_s = self._first_s if spread_s is None else spread_s
        later_s = max(first_s, self._first_s) * (1 << min(self._failures, 16))
        limit = min(self._longest_s, later_s if self._failures else first_s)
        self._failures += 1
        return self._uniform() * limit
