"""Digests over many heads, so that two members find what differs without listing it all.

A tree of three levels: all that two members share, groups (a scope, and in it the sets of one
site's authors), sets. It knows no link. One ``HeadsDigest`` serves all sessions of a member,
and a change costs its group's hash and one over the groups. Rules: a head is in it when it may
stand (``admits``); what a peer is compared with are the groups that both carry; equal heads
have equal roots in whatever order they came. A group's *mark* covers which sets it holds and
their epochs: with equal marks a list of seqs says which head is which.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, Protocol

from mesh.proto.flat_digest import FlatDigest, known_of, packed
from mesh.proto.intake import Roster, admits
from mesh.proto.serve import visible_to
from mesh.proto.sets import NUMBER_MAX, SetId, SignedHead, flat
from mesh.proto.sync_wire import (
    GROUPS_MAX,
    HEADS_MAX,
    MARK_BYTES,
    Heads,
    Known,
    Points,
    Ref,
    Want,
)
from mesh.proto.tree import HASH_BYTES

SPREAD: Final = 64
"""Groups over which the sets of authors without a site are spread."""
PEERS_MAX: Final = 1024
"""Peers whose shares are remembered."""


class HeadsView(Protocol):
    """The committed heads, and what changed since a version of them."""

    author: str
    version: int

    @property
    def heads(self) -> Mapping[SetId, SignedHead]:
        """Return the committed heads."""
        ...

    def changes_since(self, version: int) -> Mapping[SetId, SignedHead | None] | None:
        """Return what changed since a version, None when that is too long ago."""
        ...


class RegisterDigest(Protocol):
    """What says whether the roster is still the same."""

    def digest(self) -> bytes:
        """Return 16 bytes that are equal when two registers say the same."""
        ...


class Group:
    """Sets that are compared as one."""

    __slots__ = ("_hash", "_mark", "_order", "heads", "key", "reach", "scope")

    def __init__(self, key: bytes, scope: str) -> None:
        self.key, self.scope = key, scope
        self.heads: dict[SetId, SignedHead] = {}
        self.reach = 0
        self._order: list[SetId] | None = None
        self._hash: bytes | None = None
        self._mark: bytes | None = None

    def put(self, set_id: SetId, signed: SignedHead | None) -> None:
        """Set or remove a head."""
        old = self.heads.get(set_id)
        self.reach += (signed.head.seq if signed else 0) - (old.head.seq if old else 0)
        if signed is None:
            self.heads.pop(set_id, None)
        else:
            self.heads[set_id] = signed
        if old is None or signed is None:
            self._order = self._mark = None
        elif old.head.epoch != signed.head.epoch:
            self._mark = None
        self._hash = None

    def order(self) -> list[SetId]:
        """Return the sets in the order of ``seqs``."""
        if self._order is None:
            self._order = sorted(self.heads)
        return self._order

    def hash(self) -> bytes:
        """Return what is equal when all heads are."""
        if self._hash is None:
            parts = [packed(known_of(self.heads[set_id])) for set_id in self.order()]
            self._hash = _hash(self.key + b"".join(parts), HASH_BYTES)
        return self._hash

    def mark(self) -> bytes:
        """Return what is equal when both hold the same sets in the same epochs."""
        if self._mark is None:
            parts = [flat((*s, self.heads[s].head.epoch)) for s in self.order()]
            self._mark = _hash(b"".join(parts), MARK_BYTES)
        return self._mark

    def seqs(self) -> tuple[int, ...]:
        """Return how far each set is, in their order."""
        return tuple(self.heads[set_id].head.seq for set_id in self.order())


class Shared:
    """The groups that a member shares with one peer."""

    def __init__(self, groups: Iterable[Group]) -> None:
        self.groups = {group.key: group for group in sorted(groups, key=lambda g: g.key)}
        self._version = -1
        self._root = b""
        self._reach: int | None = None
        self._flat: FlatDigest | None = None

    def fresh(self, version: int) -> "Shared":
        """Forget what was hashed at another version."""
        if version != self._version:
            self._version, self._root, self._flat = version, b"", None
            self._reach = None
        return self

    def root(self) -> bytes:
        """Return the 16 bytes that are equal when both hold the same."""
        if not self._root:
            hashes = [group.hash() for group in self.groups.values()]
            self._root = _hash(b"".join(hashes), HASH_BYTES)
        return self._root

    def reach(self) -> int:
        """Return the sum of all seqs: of two, who has missed more mostly has less."""
        if self._reach is None:
            total = sum(group.reach for group in self.groups.values())
            self._reach = min(total, NUMBER_MAX)
        return self._reach

    def flat(self) -> FlatDigest:
        """Return the digest that peers of the first release understand."""
        if self._flat is None:
            groups = self.groups.values()
            self._flat = FlatDigest(head for group in groups for head in group.heads.values())
        return self._flat

    def marks(self) -> bytes:
        """Return (key, start of the hash) of every group, one after the other."""
        marks = [group.key + group.hash()[:MARK_BYTES] for group in self.groups.values()]
        return b"".join(marks[:GROUPS_MAX])

    def points(self, theirs: bytes) -> tuple[Points, ...]:
        """Return how far the groups are that differ from a peer's ``marks``."""
        size = 2 * MARK_BYTES
        held = {theirs[at : at + MARK_BYTES]: theirs[at + MARK_BYTES : at + size]
                for at in range(0, len(theirs), size)}  # fmt: skip
        found = [
            Points(group.key, group.mark(), group.seqs())
            for group in self.groups.values()
            if held.get(group.key) != group.hash()[:MARK_BYTES]
        ]
        return tuple(found[:GROUPS_MAX])

    def compare(self, points: Iterable[Points]) -> tuple[list[Known], bytes]:
        """Return the peer's heads that are not ours, and the keys of groups to be listed."""
        known: list[Known] = []
        unclear: list[bytes] = []
        for point in points:
            group = self.groups.get(point.key)
            if group is None or group.mark() != point.mark:
                unclear.append(point.key)
                continue
            ours = [group.heads[set_id].head for set_id in group.order()]
            pairs = zip(ours, point.seqs, strict=False)
            differing = [(head, seq) for head, seq in pairs if head.seq != seq]
            if not differing:
                unclear.append(point.key)  # equal points, other roots: somebody has forked
            known += [Known(h.id, h.epoch, seq, bytes(HASH_BYTES)) for h, seq in differing]
        return known, b"".join(unclear)

    def listed(self, n: int, keys: bytes) -> Heads:
        """Return all heads of some groups."""
        found = [known_of(signed) for signed in self._within(keys)]
        return Heads(n, tuple(found[:HEADS_MAX]), len(found) > HEADS_MAX)

    def lacking(self, keys: bytes, theirs: Heads) -> list[SignedHead]:
        """Return our heads of some groups whose sets a peer's whole list does not have."""
        if theirs.more:
            return []
        ids = {known.id for known in theirs.heads}
        return [signed for signed in self._within(keys) if signed.head.id not in ids]

    def _within(self, keys: bytes) -> list[SignedHead]:
        wanted = {keys[at : at + MARK_BYTES] for at in range(0, len(keys), MARK_BYTES)}
        return [
            group.heads[set_id]
            for key, group in self.groups.items()
            if key in wanted
            for set_id in group.order()
        ]

    def resolve(self, ref: Ref) -> Iterator[Want]:
        """Return what a peer names by its place in a group."""
        group = self.groups.get(ref.key)
        if group is None or group.mark() != ref.mark:
            return
        order = group.order()
        for index, since in ref.wants:
            if index < len(order):
                set_id = order[index]
                yield Want(set_id, group.heads[set_id].head.epoch, since)


class HeadsDigest:
    """The heads of one member, hashed by group."""

    def __init__(self, view: HeadsView, roster: Roster, register: RegisterDigest) -> None:
        self._view, self._roster, self._register = view, roster, register
        self._version = -1
        self._said = b""
        self._groups: dict[bytes, Group] = {}
        self._places: dict[SetId, Group] = {}
        self._shared: dict[str, Shared] = {}

    def shared(self, peer: str) -> Shared:
        """Return what a peer is compared with, as it stands now."""
        self._refresh()
        shared = self._shared.get(peer)
        if shared is None:
            if len(self._shared) >= PEERS_MAX:
                self._shared.clear()
            groups = self._groups.values()
            shared = self._shared[peer] = Shared(g for g in groups if self._visible(g, peer))
        return shared.fresh(self._version)

    def refs(self, wants: Iterable[Want]) -> tuple[Ref, ...]:
        """Name wants by their places; those that have none are left out."""
        self._refresh()
        found: dict[bytes, list[tuple[int, int]]] = {}
        for want in wants:
            group = self._places.get(want.id)
            if group is not None:
                place = group.order().index(want.id)
                found.setdefault(group.key, []).append((place, want.since))
        return tuple(Ref(k, self._groups[k].mark(), tuple(w)) for k, w in found.items())

    def _visible(self, group: Group, peer: str) -> bool:
        return visible_to(self._roster, peer, next(iter(group.heads)))

    def _refresh(self) -> None:
        said, version = self._register.digest(), self._view.version
        if said == self._said and version == self._version:
            return
        changed = self._view.changes_since(self._version) if said == self._said else None
        if changed is None:
            self._groups.clear()
            self._places.clear()
            self._shared.clear()
            changed = self._view.heads
        for set_id, signed in changed.items():
            self._put(set_id, signed)
        self._said, self._version = said, version

    def _put(self, set_id: SetId, signed: SignedHead | None) -> None:
        me = self._view.author
        if signed is not None and set_id.author != me:
            signed = signed if admits(self._roster, me, signed.head) else None
        group = self._places.get(set_id)
        if group is None:
            if signed is None:
                return
            key = self._key(set_id)
            group = self._groups.get(key)
            if group is None:
                group = self._groups[key] = Group(key, set_id.scope)
                self._shared.clear()
            self._places[set_id] = group
        group.put(set_id, signed)
        if signed is None:
            del self._places[set_id]
            if not group.heads:
                del self._groups[group.key]
                self._shared.clear()

    def _key(self, set_id: SetId) -> bytes:
        """Return which group a set belongs to: both sides must say the same."""
        author, scope = set_id
        place: str | int = self._roster.site_of(author)
        if not place:
            place = _hash(author.encode(), 1)[0] % SPREAD
        return _hash(flat((scope, place, b"")), MARK_BYTES)


def _hash(data: bytes, size: int) -> bytes:
    return hashlib.blake2b(data, digest_size=size).digest()
