"""Which references this node asks the origin of now, and what follows from the answer.

It knows neither rows nor sockets. Rules: one node of a site asks, the rendezvous owner of the
name among those alive, once in a period counted from the site's last check, whoever made it; a
check that failed is made again after an eighth of the period, at least ten minutes; an origin
whose validators change though its content does not is asked ever more seldom; a name with a
declared SHA-256 never changes what it stands for.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from mesh.proto.content import LIVE
from mesh.proto.references import PERIOD_MS, kind_of, period_of, sites_of
from mesh.proto.rendezvous import owner

SAME_MAX: Final = 5
"""Doublings of the period of an origin that was read for nothing."""
RETRY_MS_MIN: Final = 10 * 60 * 1000
AHEAD_MS_MAX: Final = 5 * 60 * 1000
"""A check said to be made further in the future than this was not: clocks go wrong."""


@dataclass(frozen=True, slots=True)
class Watched:
    """A reference that this site wants: its period, None for never, and a declared SHA-256."""

    period_ms: int | None = PERIOD_MS
    sha256: str | None = None
    url: str = ""


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
    period_ms = reference.period_ms
    retry_ms = min(period_ms, max(RETRY_MS_MIN, period_ms // 8))
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


def watched(
    references: Mapping[str, Mapping[str, Any]],
    site: str,
    same: Mapping[str, int],
    period_ms_max: int | None = None,
) -> dict[str, Watched]:
    """Return what this site asks the origins of, by name.

    ``same``: times in a row that an origin was read for nothing; ``period_ms_max``: the site
    asks at least so often whatever a reference says, but never.
    """
    found: dict[str, Watched] = {}
    for name, body in references.items():
        url, period_ms = body.get("url"), period_of(body)
        if site not in sites_of(body) or not isinstance(url, str) or kind_of(body) == LIVE:
            continue
        if period_ms is not None:
            period_ms = min(period_ms, period_ms_max or period_ms)
            period_ms <<= max(0, min(SAME_MAX, same.get(name, 0)))
        sha256 = body.get("sha256")
        found[name] = Watched(period_ms, sha256 if isinstance(sha256, str) else None, url)
    return found


def latest(bodies: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return what the nodes of a site said of one name, the last check first."""
    return sorted(bodies, key=lambda body: integer(body.get("at_ms")), reverse=True)


def integer(value: object) -> int:
    """Return a number of a row, 0 for what is none."""
    good = isinstance(value, int) and not isinstance(value, bool) and value > 0
    return value if good and isinstance(value, int) else 0
