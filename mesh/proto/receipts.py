"""Receipts: which member holds how much of our own sets durably.

It knows no link and no roster. Rules: a receipt speaks of the peer that sent it and of our own
sets only; it never goes back; one that claims more than we ever wrote is dropped and counted.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Final

from mesh.errors import CodecError
from mesh.proto.sets import SetId, SignedHead
from mesh.proto.sync_wire import parse_receipt

HELD_MAX: Final = 65_536
"""(peer, scope) pairs that are remembered; further ones are dropped and counted."""


class Receipts:
    """What other members have acknowledged."""

    def __init__(self, author: str) -> None:
        self.counters: Counter[str] = Counter()
        self._author = author
        self._held: dict[tuple[str, str], tuple[int, int]] = {}

    def on_frame(self, peer: str, body: Any, heads: Mapping[SetId, SignedHead]) -> bool:
        """Take one ``receipt`` frame, whatever it is; tell whether something is new."""
        try:
            points = parse_receipt(body)
        except CodecError:
            self.counters["garbage"] += 1
            return False
        changed = False
        for scope, epoch, seq in points:
            own = heads.get(SetId(self._author, scope))
            if own is None or (epoch, seq) > own.head.point:
                self.counters["impossible"] += 1
                continue
            if (peer, scope) not in self._held and len(self._held) >= HELD_MAX:
                self.counters["full"] += 1
                continue
            if (epoch, seq) > self._held.get((peer, scope), (0, 0)):
                self._held[peer, scope] = (epoch, seq)
                changed = True
        return changed

    def holder(
        self, scope: str, point: tuple[int, int], counts: Callable[[str], bool]
    ) -> str | None:
        """Return a member that counts and holds our set up to a point at least."""
        for (peer, held_scope), held in sorted(self._held.items()):
            if held_scope == scope and held >= point and counts(peer):
                return peer
        return None
