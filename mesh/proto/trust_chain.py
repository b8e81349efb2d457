"""Which trust document is current, with the lists of what stands of the keys that it voids.

It knows no members. Rules: the document of the highest version is current, then that of the
lower hash; one that names lists waits until all of them are here, so that nobody is without
members in between. Only the first that a register ever sees is believed at once (whoever joins
has no members yet), and its lists count as they come.
"""

from collections.abc import Mapping
from typing import Final, Literal

from mesh.errors import CodecError
from mesh.proto.ids import root_fingerprint
from mesh.proto.sign import Signed, digest_of
from mesh.proto.trust import TrustDocument, open_trust_document
from mesh.proto.void import open_kept_record

COMING_MAX: Final = 8
"""Documents above the current one that wait for lists; the highest are kept."""

Rank = tuple[int, bytes]
ListOutcome = Literal["known", "early", "kept", "current"]


class TrustChain:
    """Documents and lists of one root."""

    def __init__(self, root_fp: bytes) -> None:
        self.current: TrustDocument | None = None
        self.wire = b""
        """The current document as it was signed."""
        self.digest = b""
        self.kept: Mapping[bytes, frozenset[bytes]] = {}
        """Digests of the records that stand, by void key."""
        self._root_fp = root_fp
        self._coming: dict[Rank, tuple[TrustDocument, bytes]] = {}
        self._lists: dict[bytes, tuple[bytes, frozenset[bytes]]] = {}

    @property
    def rank(self) -> Rank:
        """Orders documents; above (0, ...) when there is one."""
        return _rank(self.current.version, self.digest) if self.current else (0, b"")

    def lists(self) -> list[tuple[bytes, bytes]]:
        """Return (digest, wire) of the lists that the current document names."""
        names = sorted(set(_named(self.current)) & self._lists.keys())
        return [(name, self._lists[name][0]) for name in names]

    def put_document(self, signed: Signed) -> bool:
        """Take a document above the current one; return whether it is current now."""
        wire, digest = signed.wire(), digest_of(signed.body)
        document = open_trust_document(wire, self._root_fp)
        rank = _rank(document.version, digest)
        assert rank > self.rank
        self._coming[rank] = (document, wire)
        while len(self._coming) > COMING_MAX:
            del self._coming[min(self._coming)]
        return self._settle()

    def put_list(self, signed: Signed) -> ListOutcome:
        """Take a list; return ``known``, ``early`` (nobody names it), ``kept`` or ``current``
        (what stands has changed by it). Raises CodecError."""
        name, digests = open_kept_record(signed.wire(), self._root_fp)
        if root_fingerprint(signed.public) != self._root_fp:
            raise CodecError("a list that is not the root's")
        if name in self._lists:
            return "known"
        now = name in _named(self.current)
        if not now and not any(name in _named(one) for one, _ in self._coming.values()):
            return "early"
        self._lists[name] = (signed.wire(), digests)
        if now and self.current is not None:
            self.kept = self._kept_of(self.current)
        return "current" if self._settle() or now else "kept"

    def _settle(self) -> bool:
        """Make the best document of which all lists are here the current one."""
        first = self.current is None
        ready = [r for r, (one, _) in self._coming.items() if first or self._has_lists(one)]
        if not ready:
            return False
        best = max(ready)
        self.current, self.wire = current, _ = self._coming[best]
        self.digest = _digest(best)
        self._coming = {rank: one for rank, one in self._coming.items() if rank > best}
        documents = [current, *(one for one, _ in self._coming.values())]
        named = {name for document in documents for name in _named(document)}
        self._lists = {name: one for name, one in self._lists.items() if name in named}
        self.kept = self._kept_of(current)
        return True

    def _kept_of(self, document: TrustDocument) -> dict[bytes, frozenset[bytes]]:
        nothing: tuple[bytes, frozenset[bytes]] = (b"", frozenset())
        return {
            key: frozenset[bytes]().union(*(self._lists.get(n, nothing)[1] for n in void.lists))
            for key, void in document.void.items()
        }

    def _has_lists(self, document: TrustDocument) -> bool:
        return all(name in self._lists for name in _named(document))


def _rank(version: int, digest: bytes) -> Rank:
    return version, bytes(255 - byte for byte in digest)


def _digest(rank: Rank) -> bytes:
    return bytes(255 - byte for byte in rank[1])


def _named(document: TrustDocument | None) -> tuple[bytes, ...]:
    if document is None:
        return ()
    return tuple(name for void in document.void.values() for name in void.lists)
