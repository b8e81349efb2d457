"""Rendezvous hashing: who, among equals, does a thing, found by everyone without asking.

It knows no liveness and no load: the caller gives the members that count. Rule: all that give
the same members, key and weights get the same order (Thaler and Ravishankar 1998; weights after
Schindelhauer and Schomaker 2005), and a member that comes or goes moves only its own keys.
"""

import hashlib
import math
from collections.abc import Callable, Iterable

Weight = Callable[[str], float]


def owner(members: Iterable[str], key: str | bytes, weight: Weight | None = None) -> str | None:
    """Return the member that owns a key, or None when there is nobody (with weight above 0)."""
    order = ranked(members, key, weight)
    return order[0] if order else None


def ranked(members: Iterable[str], key: str | bytes, weight: Weight | None = None) -> list[str]:
    """Return all members in the order in which they own a key: owner first, then its heirs.

    ``weight`` gives each member's share, 1.0 without it; a member with 0 or less is left out.
    """
    raw = key.encode() if isinstance(key, str) else key
    scored: list[tuple[float, str]] = []
    for member in set(members):
        share = 1.0 if weight is None else weight(member)
        if share > 0:
            scored.append((_score(member, raw) / share, member))
    return [member for _, member in sorted(scored)]


def _score(member: str, key: bytes) -> float:
    """Return an exponential variate: smaller is better, and dividing by a weight is fair."""
    name = member.encode()
    data = len(name).to_bytes(2, "big") + name + key
    digest = hashlib.blake2b(data, digest_size=8, person=b"rackmesh/hrw").digest()
    uniform = ((int.from_bytes(digest, "big") >> 11) + 1) / (1 << 53)
    return -math.log(uniform)
