"""Heads in buckets by the hash of their set's id: how peers of the first release compare.

It knows no link and no rule of scope: it is given the heads that both sides carry, and made
anew when they change. Newer peers compare by ``heads_digest.py``. Rule: the root covers the
buckets, so equal heads have equal roots in whatever order they came.
"""

import hashlib
from collections.abc import Iterable
from typing import Final

from mesh.proto.sets import SetId, SignedHead, flat
from mesh.proto.sync_wire import BUCKETS, HEADS_MAX, MARK_BYTES, Heads, Known
from mesh.proto.tree import HASH_BYTES

SMALL_SETS: Final = 64
"""Up to so many sets, the small number of buckets is used."""


class FlatDigest:
    """The heads that two members share, hashed."""

    def __init__(self, heads: Iterable[SignedHead]) -> None:
        placed = ((_place(signed.head.id), known_of(signed)) for signed in heads)
        self._heads = sorted(placed, key=lambda item: (item[0], item[1].id))
        self._buckets: dict[int, bytes] = {}

    def root(self) -> bytes:
        """Return the 16 bytes that are equal when both hold the same."""
        return _hash(self.buckets(BUCKETS[-1]), HASH_BYTES)

    def count(self) -> int:
        """Return how many buckets to send for as many sets as are held here."""
        return BUCKETS[0] if len(self._heads) <= SMALL_SETS else BUCKETS[-1]

    def buckets(self, count: int) -> bytes:
        """Return the hashes of all buckets, one after the other."""
        if count not in self._buckets:
            parts: list[list[bytes]] = [[] for _ in range(count)]
            for place, known in self._heads:
                parts[place[0] * count >> 8].append(packed(known))
            self._buckets[count] = b"".join(_hash(b"".join(p), MARK_BYTES) for p in parts)
        return self._buckets[count]

    def differing(self, n: int, theirs: bytes) -> Heads:
        """Return the heads in the buckets that differ from a peer's."""
        count = len(theirs) // MARK_BYTES
        ours = self.buckets(count)
        marks = range(0, len(ours), MARK_BYTES)
        same = [ours[at : at + MARK_BYTES] == theirs[at : at + MARK_BYTES] for at in marks]
        found = [known for place, known in self._heads if not same[place[0] * count >> 8]]
        return Heads(n, tuple(found[:HEADS_MAX]), len(found) > HEADS_MAX)


def known_of(signed: SignedHead) -> Known:
    """Return a head without its proof."""
    head = signed.head
    return Known(head.id, head.epoch, head.seq, head.root)


def _place(set_id: SetId) -> bytes:
    return _hash(flat(set_id), MARK_BYTES)


def packed(known: Known) -> bytes:
    """Return what is hashed of a head."""
    return flat((*known.id, known.epoch, known.seq, known.root))


def _hash(data: bytes, size: int) -> bytes:
    return hashlib.blake2b(data, digest_size=size).digest()
