"""One member that somebody of its site misses: who says what of it, and whether that decides.

It knows no messages and no timers. Rule: only observers of the member count, each by the last
that it said itself over its own link; who says nothing, heard the member too long ago, or
missed it so long ago and is missed itself (it cannot take that back), does not count. A quorum
is two thirds of those that speak, and two observers at least where there are two: so one liar
decides nothing in a site of four or more, in neither direction.
"""

from collections.abc import Collection, Container
from dataclasses import dataclass, field
from typing import Final

from mesh.proto.detector_wire import HEARD, SUSPECT, State

FRESH_S: Final = 3.5
"""That an observer heard the member counts for so long; in a dispute it says so again."""
MISSED_S: Final = 7.0
"""That an observer which is missed itself has missed the member counts for so long after it had
heard it: 3.5 s until it said so, and then as long as a word of the other kind."""
AGREE_LEAST: Final = 2


@dataclass(slots=True)
class Suspicion:
    """What is said of a member; times are the monotonic seconds of this node."""

    of: str
    opinions: dict[str, tuple[State, float]] = field(default_factory=dict)
    """By observer: what it thinks, and when it last heard the member."""
    wake_at: float = 0.0
    probe_at: float = 0.0
    probes: int = 0
    """Pings since the member was last heard or a quorum began."""
    affirm_at: float = 0.0
    suspected_at: float = 0.0
    """When we ourselves began to suspect it."""
    quorum_at: float | None = None
    """Since when the observers agree."""
    seats: tuple[int, list[str]] = (-1, [])
    """Its observers, and the version of the seating that they were looked up in."""
    settled: bool = False
    """The member counts as unreachable."""

    def state(self, observer: str) -> State | None:
        """Return what an observer said last."""
        found = self.opinions.get(observer)
        return found[0] if found is not None else None

    def tally(
        self, observers: Collection[str], missed: Container[str], now: float
    ) -> tuple[int, list[float]]:
        """Return how many suspect the member, and when those heard it whose word counts.

        ``missed``: members that somebody misses at present.
        """
        suspects, heard, opinions = 0, [], self.opinions
        for observer in observers:
            said = opinions.get(observer)
            if said is None:
                continue
            state, heard_at = said
            if state == SUSPECT:
                suspects += observer not in missed or now < heard_at + MISSED_S
            elif state == HEARD and now < heard_at + FRESH_S:
                heard.append(heard_at)
        return suspects, heard


def agreed(suspects: int, hearers: int, least: int) -> bool:
    """Tell whether the observers agree that a member is gone; ``least`` must at least."""
    return suspects >= max(1, least) and 3 * suspects >= 2 * (suspects + hearers)


def refuted(suspects: int, hearers: int) -> bool:
    """Tell whether so many observers hear a member that it is not gone."""
    return hearers > 0 and 3 * suspects < 2 * (suspects + hearers)
