"""Which nodes of the site count now: linked ones, and those that were until a moment ago.

It knows no links and detects nothing. Rules: who is unreachable by the word of the site's
observers does not count; of our own links silence counts only after ``PATIENCE_S``, also for
nodes that were never seen since we started, so that a start or a short break makes nobody the
owner of what another node is doing. Only machines are sent past a node as soon as its link
ends: any node can serve them, and firmware asks one address alone.
"""

from collections.abc import Collection
from typing import Final

PATIENCE_S: Final = 10.0


class SiteView:
    """The view of one node; ``now`` is monotonic seconds."""

    def __init__(self, me: str, now: float) -> None:
        self._me, self._began = me, now
        self._seen: dict[str, float] = {}

    def alive(
        self,
        members: Collection[str],
        linked: Collection[str],
        unreachable: Collection[str],
        now: float,
    ) -> list[str]:
        """Return the members that count, ourselves always among them."""
        self._seen = {
            node: now if node in linked else self._seen.get(node, self._began)
            for node in members
            if node != self._me
        }
        near = [
            node
            for node, seen in self._seen.items()
            if now - seen < PATIENCE_S and node not in unreachable
        ]
        return sorted([*near, self._me])

    def serving(self, alive: Collection[str], linked: Collection[str]) -> list[str]:
        """Return those that machines may be sent to, of what ``alive`` has just returned."""
        return [
            node
            for node in alive
            if node == self._me or node in linked or self._seen[node] == self._began
        ]
