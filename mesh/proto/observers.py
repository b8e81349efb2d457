"""Who observes whom in a site: the members stand on a keyed ring, each watched by the next.

It knows no time and no messages. Rule: all that know the same members stand them on the same
ring; the observers of a member are the next ``OBSERVERS`` reachable ones after it. Who is
unreachable is passed over but not left out: it stays observed and keeps getting heartbeats, so
two members that miss each other can find each other again.
"""

import hashlib
from collections.abc import Collection, Container
from typing import Final

OBSERVERS: Final = 5
"""Observers of a member; all others of a site that has fewer."""


class Ring:
    """The members of a site in the order of a keyed hash."""

    def __init__(self, key: bytes, members: Collection[str]) -> None:
        """``key``: at most 64 bytes, the same at all members."""
        self._order = sorted(
            set(members),
            key=lambda member: hashlib.blake2b(
                member.encode(), digest_size=16, key=key, person=b"rackmesh/ring"
            ).digest(),
        )
        self._place = {member: number for number, member in enumerate(self._order)}

    def __contains__(self, member: object) -> bool:
        return member in self._place

    def __len__(self) -> int:
        return len(self._order)

    def observers(self, member: str, unreachable: Container[str]) -> list[str]:
        """Return the members whose opinion of this one counts."""
        return [one for one in self.after(member, unreachable) if one not in unreachable]

    def after(self, member: str, unreachable: Container[str]) -> list[str]:
        """Return the observers, and the unreachable members between them."""
        return self._walk(member, unreachable, 1)

    def before(self, member: str, unreachable: Container[str]) -> list[str]:
        """Return all that this member observes, the unreachable among them too."""
        return self._walk(member, unreachable, -1)

    def _walk(self, member: str, unreachable: Container[str], step: int) -> list[str]:
        order, size = self._order, len(self._order)
        place = self._place[member]
        passed: list[str] = []
        counted = 0
        for distance in range(1, size):
            other = order[(place + step * distance) % size]
            passed.append(other)
            if other not in unreachable:
                counted += 1
                if counted == OBSERVERS:
                    break
        return passed
