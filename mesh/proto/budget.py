"""The destructive budget: how many destructive works a site begins in an hour, whoever asks.

It knows no order and no store: it counts rows. Rules: the lowest limit among the site's nodes
holds and no hub can raise it; what was begun counts for one hour, whatever became of it; a
group of nodes that does not see all the others uses only its share of what is left, so that the
groups together stay inside the limit (the proof stands in ``remaining``). Beginning the same
order again is free.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

HOUR_MS: Final = 3_600_000
PER_HOUR_DEFAULT: Final = 5


@dataclass(frozen=True, slots=True)
class BudgetEntry:
    """One destructive work that was begun: a BUDGET row."""

    author: str  # node id of the author of the row
    order: str  # order id
    at_ms: int


@dataclass(frozen=True, slots=True)
class Allowed:
    """Begin it, after the BUDGET row is durable; ``left`` more may follow."""

    left: int


@dataclass(frozen=True, slots=True)
class OverBudget:
    """Wait: one sentence for people, and when the count changes by itself at the earliest."""

    detail: str
    retry_ms: int


def decide(
    order: str,
    entries: Collection[BudgetEntry],
    *,
    now_ms: int,
    limits_per_hour: Mapping[str, int],
    reachable: Collection[str],
) -> Allowed | OverBudget:
    """Decide whether a destructive order may begin here and now.

    ``limits_per_hour`` has every active node of the site with its own configured limit;
    ``reachable`` are the nodes that this node can speak with, itself among them.
    """
    if any(entry.order == order for entry in entries):
        return Allowed(0)
    recent = [entry for entry in entries if entry.at_ms > now_ms - HOUR_MS]
    left = remaining(recent, limits_per_hour=limits_per_hour, reachable=reachable)
    if left > 0:
        return Allowed(left - 1)
    limit = min(limits_per_hour.values(), default=0)
    away = set(limits_per_hour) - set(reachable)
    why = f"the site begins at most {limit} destructive works an hour, {len(recent)} have begun"
    if away:
        why += f", and {len(away)} of its {len(limits_per_hour)} nodes cannot be asked"
    oldest_ms = min((entry.at_ms for entry in recent), default=now_ms)
    return OverBudget(why, max(oldest_ms + HOUR_MS - now_ms, 1000))


def remaining(
    recent: Collection[BudgetEntry],
    *,
    limits_per_hour: Mapping[str, int],
    reachable: Collection[str],
) -> int:
    """Return how many more works this group of nodes may begin.

    With limit L, n nodes and a group of k whose members began b of the known entries, the
    others o: the group may reach floor((L - o) * k / n), never more than L in all. Groups
    together: each that grows ends at (L - B + b) * k / n or less, where B is what all knew when
    they parted; the sum over the growing groups is at most L - B plus their own b, so the total
    stays within L.
    """
    if not limits_per_hour:
        return 0
    nodes = set(limits_per_hour)
    limit = min(limits_per_hour.values())
    group = nodes & set(reachable)
    begun_here = sum(entry.author in group for entry in recent)
    elsewhere = len(recent) - begun_here
    share = max(limit - elsewhere, 0) * len(group) // len(nodes)
    return max(min(share - begun_here, limit - len(recent)), 0)
