"""All sets that a member holds: what it writes itself, and the proofs of what it took.

It knows no link and no disk; the storage port is handed in, inside a transaction of the caller.
Rules: own rows go into own sets only, and every commit group ends with a signed head for each
scope that it touched (``seal``); trees and counters change together with the storage and are
taken back with it (``undo_to``); nothing is shown to others before ``commit``.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Final, NamedTuple

from mesh.proto.evidence import PROOFS_MAX, Proof
from mesh.proto.hlc import DRIFT_MS_MAX, Hlc, milliseconds
from mesh.proto.sets import (
    PAST_MAX,
    SCHEMA,
    SLACK_ROWS,
    Entry,
    Head,
    SetId,
    SignedHead,
    check_own,
    key_hash,
    leaf_hash,
    leaves_of,
    pack_head,
)
from mesh.proto.storage import Stage, Storage
from mesh.proto.tree import HASH_BYTES, Tree

LEAVES_KEPT: Final = 400_000
"""Leaves of trees that stay in memory; of the least used sets only the leaves do, packed."""
PACKED_KEPT: Final = 2_000_000
"""Leaves that stay packed (32 bytes each); the rest is hashed again when needed."""
COMPACT_BATCH: Final = 32
REST_SHARE: Final = 10
"""At rest a set holds at most one retracted row for this many live ones."""


class _Staged(NamedTuple):
    """The leaves of a staged delta: of so many rows, the first of which has this seq."""

    rows: int
    first: int
    leaves: dict[bytes, bytes]


@dataclass(slots=True)
class OwnSet:
    """The part of an own set that moves with every write."""

    epoch: int
    seq: int
    base: int
    live: int
    stored: int
    dirty: bool = False
    past: tuple[tuple[int, int], ...] = ()

    def restore(self, seq: int, base: int, live: int, stored: int, dirty: bool) -> None:
        """Take a write back."""
        self.seq, self.base, self.live, self.stored = seq, base, live, stored
        self.dirty = dirty

    def saved(self) -> tuple[int, int, int, int, bool]:
        """Return what ``restore`` takes."""
        return (self.seq, self.base, self.live, self.stored, self.dirty)


def joined_past(points: Iterable[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """Return the points that a head in a new epoch remembers, newest first."""
    last: dict[int, int] = {}
    for epoch, seq in points:
        last[epoch] = max(seq, last.get(epoch, 0))
    return tuple(sorted(last.items(), reverse=True)[:PAST_MAX])


class Replica:
    """The sets of one member over one storage."""

    def __init__(
        self, storage: Storage, author: str, sign: Callable[[bytes], bytes], hlc: Hlc
    ) -> None:
        self.storage = storage
        self.author = author
        self.hlc = hlc
        self.heads: dict[SetId, SignedHead] = {}
        self.proofs: dict[SetId, Proof] = {proof.id: proof for proof in storage.proofs()}
        self.buried: dict[SetId, tuple[int, int]] = {}
        self.began = 0
        """Rows of ours with a higher stamp were written by this process."""
        self._sign = sign
        self._own: dict[str, OwnSet] = {}
        self._trees: dict[SetId, Tree] = {}
        self._packed: dict[SetId, bytes] = {}  # of trees that are not there
        self._packed_bytes = 0
        self._staged: dict[SetId, _Staged] = {}
        self._undo: list[Callable[[], object]] = []
        self._changed: dict[SetId, None] = {}

    def load(self, now_ms: int) -> list[SetId]:
        """Read heads, hash every row and return the sets whose content is not what it was.

        A damaged set of somebody else should be forgotten (peers have it); a damaged own one
        must stop the program.
        """
        wrong: list[SetId] = []
        fresh = 0
        for signed in self.storage.heads():
            set_id = signed.head.id
            self.heads[set_id] = signed
            if self.tree(set_id).root() != signed.head.root:
                wrong.append(set_id)
            fresh += signed.head.rows
            if fresh > LEAVES_KEPT // 8:
                self._shrink()
                fresh = 0
        for (author, _), signed in self.heads.items():
            if author == self.author:
                self.hlc.last = max(self.hlc.last, signed.head.floor)
            else:
                self.observe(signed.head.floor, now_ms)
        self.began = self.hlc.last
        return wrong

    # -- transactions ----------------------------------------------------------------------

    def mark(self) -> int:
        """Return a point for ``undo_to``; the caller marks its storage as well."""
        return len(self._undo)

    def undo_to(self, mark: int) -> None:
        """Forget what was done since a mark, after the storage has forgotten it."""
        while len(self._undo) > mark:
            self._undo.pop()()

    def commit(self) -> dict[SetId, SignedHead | None]:
        """The storage has committed: return the changed heads, None for forgotten sets."""
        changed = {set_id: self.heads.get(set_id) for set_id in self._changed}
        self._undo.clear()
        self._changed.clear()
        self._shrink()
        return changed

    def on_undo(self, back: Callable[[], object]) -> None:
        """Remember how to take something back."""
        self._undo.append(back)

    def set_head(self, signed: SignedHead) -> None:
        """Make a head the current one of its set."""
        set_id = signed.head.id
        self.on_undo(partial(self._put_head, set_id, self.heads.get(set_id)))
        self.storage.save_head(signed)
        self._put_head(set_id, signed)
        self._changed[set_id] = None

    def _put_head(self, set_id: SetId, signed: SignedHead | None) -> None:
        if signed is None:
            self.heads.pop(set_id, None)
        else:
            self.heads[set_id] = signed

    def add_proof(self, proof: Proof) -> bool:
        """Keep a proof against an author; False when there is one, or there are too many."""
        if proof.id in self.proofs or len(self.proofs) >= PROOFS_MAX:
            return False
        self.storage.save_proof(proof)
        self.proofs[proof.id] = proof
        self.on_undo(partial(self.proofs.pop, proof.id, None))
        return True

    def forget(self, set_id: SetId) -> None:
        """Drop a whole set: damaged, out of scope now, or of a dead author."""
        self.on_undo(partial(self._put_head, set_id, self.heads.get(set_id)))
        self.storage.forget(set_id)
        self.set_tree(set_id, Tree())
        self._put_head(set_id, None)
        self._changed[set_id] = None

    def bury(self, set_id: SetId) -> None:
        """Forget the set of an ended author: of what peers offer only more counts."""
        self.on_undo(partial(self.buried.pop, set_id, None))
        self.buried[set_id] = self.heads[set_id].head.point
        self.forget(set_id)

    # -- trees -----------------------------------------------------------------------------

    def tree(self, set_id: SetId) -> Tree:
        """Return the hash tree of a set, hashed from its rows when it is not in memory."""
        tree = self._trees.pop(set_id, None)
        if tree is None:
            packed = self._take_packed(set_id)
            if packed:
                tree = Tree.unpacked(packed)
            else:
                tree = Tree(leaves_of(self.storage.entries(set_id)))
        self._trees[set_id] = tree  # the most used ones stand last
        return tree

    def set_tree(self, set_id: SetId, tree: Tree) -> None:
        """Put another tree in place of a set's."""
        self.on_undo(partial(self._trees.pop, set_id, None))
        self._take_packed(set_id)
        self._trees[set_id] = tree

    def _take_packed(self, set_id: SetId) -> bytes:
        packed = self._packed.pop(set_id, b"")
        self._packed_bytes -= len(packed)
        return packed

    def hang_all(self, tree: Tree, leaves: Iterable[tuple[bytes, bytes | None]]) -> None:
        """Set or remove many leaves, so that it can be undone."""
        self.on_undo(partial(tree.update, tree.update(leaves)))

    def hang(self, tree: Tree, entry: Entry, leaf: bytes | None) -> None:
        """Set or remove the leaf of a row, so that it can be undone."""
        key = key_hash(entry.table, entry.key)
        old = tree.put(key, leaf)
        self.on_undo(partial(tree.put, key, old))

    def _shrink(self) -> None:
        while sum(staged.rows for staged in self._staged.values()) > LEAVES_KEPT:
            self._staged.pop(next(iter(self._staged)))
        total = sum(tree.count for tree in self._trees.values())
        while total > LEAVES_KEPT and len(self._trees) > 1:
            oldest = next(iter(self._trees))
            tree = self._trees.pop(oldest)
            total -= tree.count
            packed = self._packed[oldest] = tree.packed()
            self._packed_bytes += len(packed)
        while self._packed_bytes > PACKED_KEPT * 2 * HASH_BYTES:
            self._take_packed(next(iter(self._packed)))

    # -- staged deltas ---------------------------------------------------------------------

    def save_stage(self, set_id: SetId, stage: Stage, entries: Sequence[Entry]) -> None:
        """Stage rows; their leaves stay in memory, so that the end need not read them again."""
        known = self._staged.get(set_id)
        if known is None or known.rows + len(entries) != stage.rows:
            known = _Staged(0, entries[0].seq, {})
            if stage.rows > len(entries):
                known = self._read_staged(set_id)
        self.storage.save_stage(set_id, stage, entries)
        known.leaves.update(leaves_of(entries))
        self._staged[set_id] = _Staged(stage.rows, known.first, known.leaves)
        self.on_undo(partial(self._staged.pop, set_id, None))

    def staged_leaves(self, set_id: SetId, base: int) -> dict[bytes, bytes]:
        """Return the leaves of the staged rows above ``base``."""
        known = self._staged.get(set_id)
        if known is None or known.first <= base:  # the author's base has passed some of them
            known = self._read_staged(set_id, base)
        return known.leaves

    def _read_staged(self, set_id: SetId, base: int = 0) -> "_Staged":
        rows = [entry for entry in self.storage.staged(set_id) if entry.seq > base]
        return _Staged(len(rows), rows[0].seq if rows else 0, dict(leaves_of(rows)))

    def adopt_stage(self, set_id: SetId, base: int) -> None:
        """Make what is staged above ``base`` rows of the set."""
        self._staged.pop(set_id, None)
        self.storage.adopt_stage(set_id, base)

    def drop_stage(self, set_id: SetId) -> None:
        """Throw what is staged away."""
        self._staged.pop(set_id, None)
        self.storage.drop_stage(set_id)

    # -- own rows --------------------------------------------------------------------------

    def own(self, scope: str) -> OwnSet:
        """Return the moving part of an own set; a new one begins its first epoch."""
        own = self._own.get(scope)
        if own is None:
            set_id = SetId(self.author, scope)
            signed = self.heads.get(set_id)
            if signed is None:
                own = OwnSet(max(1, milliseconds(self.hlc.last)), 0, 0, 0, 0)
            else:
                entries = list(self.storage.entries(set_id))
                live = sum(entry.body is not None for entry in entries)
                head = signed.head
                own = OwnSet(head.epoch, head.seq, head.base, live, len(entries))
                own.past = head.past
            self._own[scope] = own
            self.on_undo(partial(self._own.pop, scope, None))
        return own

    def replace_own(self, scope: str, own: OwnSet) -> None:
        """Go on from another state of an own set (it was taken back from a peer)."""
        self.on_undo(partial(self._own.pop, scope, None))
        self._own[scope] = own

    def put(
        self, scope: str, table: str, key: str, body: bytes | None, now_ms: int, above: int = 0
    ) -> bool:
        """Write an own row (a map, a marker, or None to retract); False if nothing to do.

        ``above`` is the stamp of the row that this one knowingly overrules.
        """
        check_own(scope, table, key, body)
        self.hlc.floor(now_ms)
        if body is None:
            old = self.storage.entry(SetId(self.author, scope), table, key)
            if old is None or old.body is None:
                return False
        self.rewrite(scope, Entry(table, key, 0, self.hlc.tick(now_ms, above), body))
        return True

    def rewrite(self, scope: str, entry: Entry) -> None:
        """Write an own row once more as it was, stamp and all, under the next seq."""
        set_id = SetId(self.author, scope)
        own = self.own(scope)
        old = self.storage.entry(set_id, entry.table, entry.key)
        self.on_undo(partial(own.restore, *own.saved()))
        own.dirty = True
        own.live += (entry.body is not None) - (old is not None and old.body is not None)
        own.stored += old is None
        self._write(own, set_id, entry)

    def _write(self, own: OwnSet, set_id: SetId, entry: Entry) -> None:
        """Store a row under the next seq."""
        own.seq += 1
        entry = entry._replace(seq=own.seq)
        tree = self.tree(set_id)  # before the storage changes: it may be hashed from there
        self.storage.save_entries(set_id, [entry])
        self.hang(tree, entry, leaf_hash(entry))

    def touch(self, scope: str, now_ms: int) -> None:
        """Let the group end with a new head of a scope although no row changes."""
        self.hlc.floor(now_ms)
        own = self.own(scope)
        self.on_undo(partial(own.restore, *own.saved()))
        own.dirty = True

    def renew(self, now_ms: int) -> None:
        """Go on in a higher epoch everywhere: what we hold may be an older copy of us."""
        self.hlc.floor(now_ms)
        for scope in [set_id.scope for set_id in self.heads if set_id.author == self.author]:
            self._renew(scope)

    def _renew(self, scope: str) -> None:
        own = self.own(scope)
        epoch = max(own.epoch + 1, milliseconds(self.hlc.last))
        past = joined_past([*own.past, (own.epoch, own.seq)])
        self.replace_own(scope, replace(own, epoch=epoch, dirty=True, past=past))

    def convict(self, proof: Proof, now_ms: int) -> None:
        """Keep a proof; if it is about us, go on where both histories can follow.

        Whoever holds the head of our other self takes nothing of ours that promises less.
        """
        if self.add_proof(proof) and proof.id.author == self.author:
            floors = (signed.head.floor for signed in proof)
            self.hlc.last = max(self.hlc.last, *floors)
            self.hlc.floor(now_ms)
            self._renew(proof.id.scope)

    # -- ending a group --------------------------------------------------------------------

    def seal(self, now_ms: int) -> None:
        """Compact and sign every own set that this group touched."""
        for scope in [scope for scope, own in self._own.items() if own.dirty]:
            own = self._own[scope]
            self.on_undo(partial(own.restore, *own.saved()))
            self._compact(scope, own)
            self._sign_head(scope, own, now_ms)
            own.dirty = False

    def rest(self, scope: str, now_ms: int) -> bool:
        """Sweep retracted rows out of a quiet own set when they are more than a tenth."""
        own = self.own(scope)
        retracted = own.stored - own.live
        if retracted * REST_SHARE <= own.live:
            return False
        self.touch(scope, now_ms)
        self._sweep(scope, own, lambda: own.stored == own.live)
        return True

    def _compact(self, scope: str, own: OwnSet) -> None:
        """Hold the invariant stored <= 2 * live + SLACK_ROWS.

        Rows that are only overwritten ask for nothing: their old places are just gaps in seq.
        """
        self._sweep(scope, own, lambda: own.stored <= 2 * own.live + SLACK_ROWS)
        if not own.stored:
            own.base = own.seq

    def _sweep(self, scope: str, own: OwnSet, done: Callable[[], bool]) -> None:
        """Move ``base`` up: write the oldest rows again, let retracted ones go."""
        set_id = SetId(self.author, scope)
        while own.stored and not done():
            for entry in self.storage.oldest(set_id, COMPACT_BATCH):
                own.base = entry.seq - 1
                if done():
                    return
                if entry.body is None:
                    self._delete(own, set_id, entry)
                else:
                    self._write(own, set_id, entry)
                own.base = entry.seq

    def _delete(self, own: OwnSet, set_id: SetId, entry: Entry) -> None:
        tree = self.tree(set_id)
        self.storage.delete_entries(set_id, [(entry.table, entry.key)])
        self.hang(tree, entry, None)
        own.stored -= 1

    def _sign_head(self, scope: str, own: OwnSet, now_ms: int) -> None:
        set_id = SetId(self.author, scope)
        signed = self.heads.get(set_id)
        if signed is not None and signed.head.point >= (own.epoch, own.seq):
            own.seq = signed.head.seq + 1
        if signed is None and own.seq == 0:
            own.seq = 1
        tree = self.tree(set_id)
        assert tree.count == own.stored
        head = Head(
            author=self.author,
            scope=scope,
            epoch=own.epoch,
            seq=own.seq,
            base=own.base,
            root=tree.root(),
            floor=self.hlc.floor(now_ms),
            rows=own.stored,
            schema=SCHEMA,
            past=own.past,
        )
        body = pack_head(head)
        self.set_head(SignedHead(head, body, self._sign(body)))

    # -- time ------------------------------------------------------------------------------

    def observe(self, seen: int, now_ms: int) -> bool:
        """Follow the stamp of somebody else's head; False when it was too far ahead."""
        fleet_ms = 0
        if milliseconds(seen) > now_ms + DRIFT_MS_MAX:
            floors: dict[str, int] = {}
            for (author, _), signed in self.heads.items():
                if author != self.author:
                    floors[author] = max(floors.get(author, 0), signed.head.floor)
            ordered = sorted(floors.values())
            if len(ordered) > 1:  # one other is no middle: it may be the one that is wrong
                fleet_ms = milliseconds(ordered[(len(ordered) - 1) // 2])
        return self.hlc.observe(seen, now_ms, fleet_ms)
