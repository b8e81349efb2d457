"""Which references this node asks the origin of now, and what follows from the answer.

It knows neither rows nor sockets. Rules: one node of a site asks, the rendezvous owner of the
name among those alive, once in a period counted from the site's last check, whoever made it; a
check that failed is made again after an eighth of the period, at least ten minutes; a name with
a declared SHA-256 never changes what it stands for.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

from mesh.proto.rendezvous import owner

PERIOD_MS: Final = 24 * 3600 * 1000
PERIOD_MS_MIN: Final = 3600 * 1000
RETRY_MS_MIN: Final = 10 * 60 * 1000
AHEAD_MS_MAX: Final = 5 * 60 * 1000
"""A check said to be made further in the future than this was not: clocks go wrong."""


@dataclass(frozen=True, slots=True)
class Watched:
    """A reference that this site wants: its period, None for never, and a declared SHA-256."""

    period_ms: int | None = PERIOD_MS
    sha256: str | None = None


@dataclass(frozen=True, slots=True)
class Check:
    """One check that a node of this site made: ``failed`` when the origin gave no answer."""

    at_ms: int
    failed: bool = False


def due(
    node: str,
    alive: Collection[str],
    watched: Mapping[str, Watched],
    checks: Mapping[str, Collection[Check]],
    now_ms: int,
) -> list[str]:
    """Return the names that this node asks the origin of now; ``checks`` by name."""
    return sorted(
        name
        for name, reference in watched.items()
        if owner(alive, name) == node and _is_due(reference, checks.get(name, ()), now_ms)
    )


def _is_due(reference: Watched, checks: Collection[Check], now_ms: int) -> bool:
    if reference.period_ms is None:
        return False
    period_ms = max(PERIOD_MS_MIN, reference.period_ms)
    retry_ms = max(RETRY_MS_MIN, period_ms // 8)
    return all(
        check.at_ms + (retry_ms if check.failed else period_ms) <= now_ms
        for check in checks
        if check.at_ms <= now_ms + AHEAD_MS_MAX
    )


def why_not_switched(name: str, reference: Watched) -> str | None:
    """Say why other content at the origin does not become the name's, or None: it does."""
    if reference.sha256 is None:
        return None
    return (
        f"the origin of {name} has other content than the declared sha256 "
        f"{reference.sha256}; {name} stays as it is, take another name for the new content"
    )
