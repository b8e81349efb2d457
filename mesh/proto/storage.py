"""The port below the replicated sets, and what fills it in memory.

It knows rows and heads, and no rule about them. Rules: whoever uses it opens and ends the
transaction around the calls; ``MemoryStorage`` (simulator, tests) and the SQLite one
(``mesh/store_sql.py``) pass the same contract tests.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Protocol, TypeVar

from mesh.proto.evidence import Proof
from mesh.proto.sets import Entry, SetId, SignedHead


@dataclass(frozen=True, slots=True)
class Stage:
    """How far a large delta has come: rows with ``start`` < seq <= ``cursor`` are staged."""

    epoch: int
    start: int
    cursor: int
    rows: int


class Reader(Protocol):
    """What can be asked of a storage."""

    def heads(self) -> list[SignedHead]:
        """Return the head of every set."""
        ...

    def head(self, set_id: SetId) -> SignedHead | None:
        """Return the head of one set."""
        ...

    def entry(self, set_id: SetId, table: str, key: str) -> Entry | None:
        """Return one row of a set, retracted or not."""
        ...

    def entries(self, set_id: SetId) -> Iterator[Entry]:
        """Return all rows of a set, by seq."""
        ...

    def entries_since(self, set_id: SetId, seq: int) -> Iterator[Entry]:
        """Return the rows with a greater seq, by seq."""
        ...

    def keyed(self, scope: str, table: str, key: str) -> list[tuple[str, Entry]]:
        """Return (author, row) of every author for one key, without retracted rows."""
        ...

    def tabled(self, scope: str, table: str) -> list[tuple[str, Entry]]:
        """Return (author, row) of a whole table of a scope, without retracted rows."""
        ...

    def proofs(self) -> list[Proof]:
        """Return the proofs against authors."""
        ...


class Storage(Reader, Protocol):
    """What a writer can do, inside a transaction that it has opened."""

    def save_head(self, signed: SignedHead) -> None:
        """Set the head of a set."""
        ...

    def save_proof(self, proof: Proof) -> None:
        """Keep a proof against an author."""
        ...

    def save_entries(self, set_id: SetId, entries: Iterable[Entry]) -> None:
        """Write rows; a row of the same table and key is replaced."""
        ...

    def delete_entries(self, set_id: SetId, keys: Iterable[tuple[str, str]]) -> None:
        """Remove rows for good."""
        ...

    def upto(self, set_id: SetId, seq: int) -> list[Entry]:
        """Return the rows with seq at or below a bound, by seq."""
        ...

    def oldest(self, set_id: SetId, count: int) -> list[Entry]:
        """Return the rows with the lowest seq."""
        ...

    def clear(self, set_id: SetId) -> None:
        """Remove all rows of a set; its head and what is staged stay."""
        ...

    def forget(self, set_id: SetId) -> None:
        """Remove a set, its head, and what is staged for it."""
        ...

    def stage(self, set_id: SetId) -> Stage | None:
        """Return how far the staged delta of a set is."""
        ...

    def save_stage(self, set_id: SetId, stage: Stage, entries: Iterable[Entry]) -> None:
        """Add rows to the staged delta of a set."""
        ...

    def staged(self, set_id: SetId) -> Iterator[Entry]:
        """Return the staged rows, one for each key, by seq."""
        ...

    def adopt_stage(self, set_id: SetId, base: int) -> None:
        """Make the staged rows with seq above a bound rows of the set, and drop the stage."""
        ...

    def drop_stage(self, set_id: SetId) -> None:
        """Throw the staged delta of a set away."""
        ...


K = TypeVar("K")
V = TypeVar("V")
_Rows = dict[tuple[str, str], Entry]


class MemoryStorage:
    """A storage in dictionaries, with an undo log in place of a journal."""

    def __init__(self) -> None:
        self._heads: dict[SetId, SignedHead] = {}
        self._rows: dict[SetId, _Rows] = {}
        self._stages: dict[SetId, tuple[Stage, _Rows]] = {}
        self._proofs: dict[SetId, Proof] = {}
        self._undo: list[Callable[[], None]] = []

    # -- transactions ----------------------------------------------------------------------

    def mark(self) -> int:
        """Return a point to which ``undo_to`` can go back."""
        return len(self._undo)

    def undo_to(self, mark: int) -> None:
        """Take back everything since a mark."""
        while len(self._undo) > mark:
            self._undo.pop()()

    def forget_undo(self) -> None:
        """Make everything so far final."""
        self._undo.clear()

    def copy(self) -> "MemoryStorage":
        """Return an independent copy (a backup)."""
        twin = MemoryStorage()
        twin._heads = dict(self._heads)
        twin._proofs = dict(self._proofs)
        twin._rows = {set_id: dict(rows) for set_id, rows in self._rows.items()}
        return twin

    # -- reading ---------------------------------------------------------------------------

    def heads(self) -> list[SignedHead]:
        """Return the head of every set."""
        return list(self._heads.values())

    def head(self, set_id: SetId) -> SignedHead | None:
        """Return the head of one set."""
        return self._heads.get(set_id)

    def entry(self, set_id: SetId, table: str, key: str) -> Entry | None:
        """Return one row of a set, retracted or not."""
        return self._rows.get(set_id, {}).get((table, key))

    def entries(self, set_id: SetId) -> Iterator[Entry]:
        """Return all rows of a set, by seq."""
        return iter(sorted(self._rows.get(set_id, {}).values(), key=_by_seq))

    def entries_since(self, set_id: SetId, seq: int) -> Iterator[Entry]:
        """Return the rows with a greater seq, by seq."""
        return (entry for entry in self.entries(set_id) if entry.seq > seq)

    def keyed(self, scope: str, table: str, key: str) -> list[tuple[str, Entry]]:
        """Return (author, row) of every author for one key, without retracted rows."""
        found: list[tuple[str, Entry]] = []
        for set_id, rows in sorted(self._rows.items()):
            entry = rows.get((table, key)) if set_id.scope == scope else None
            if entry is not None and entry.body is not None:
                found.append((set_id.author, entry))
        return found

    def tabled(self, scope: str, table: str) -> list[tuple[str, Entry]]:
        """Return (author, row) of a whole table of a scope, without retracted rows."""
        return [
            (set_id.author, entry)
            for set_id, rows in sorted(self._rows.items())
            if set_id.scope == scope
            for (where, _), entry in sorted(rows.items())
            if where == table and entry.body is not None
        ]

    def upto(self, set_id: SetId, seq: int) -> list[Entry]:
        """Return the rows with seq at or below a bound, by seq."""
        return [entry for entry in self.entries(set_id) if entry.seq <= seq]

    def oldest(self, set_id: SetId, count: int) -> list[Entry]:
        """Return the rows with the lowest seq."""
        return list(islice(self.entries(set_id), count))

    # -- writing ---------------------------------------------------------------------------

    def save_head(self, signed: SignedHead) -> None:
        """Set the head of a set."""
        _set(self._undo, self._heads, signed.head.id, signed)

    def save_proof(self, proof: Proof) -> None:
        """Keep a proof against an author."""
        _set(self._undo, self._proofs, proof.id, proof)

    def proofs(self) -> list[Proof]:
        """Return the proofs against authors."""
        return list(self._proofs.values())

    def save_entries(self, set_id: SetId, entries: Iterable[Entry]) -> None:
        """Write rows; a row of the same table and key is replaced."""
        rows = self._rows.setdefault(set_id, {})
        for entry in entries:
            _set(self._undo, rows, (entry.table, entry.key), entry)

    def delete_entries(self, set_id: SetId, keys: Iterable[tuple[str, str]]) -> None:
        """Remove rows for good."""
        rows = self._rows.setdefault(set_id, {})
        for key in keys:
            _set(self._undo, rows, key, None)

    def clear(self, set_id: SetId) -> None:
        """Remove all rows of a set; its head and what is staged stay."""
        self.delete_entries(set_id, list(self._rows.get(set_id, {})))

    def forget(self, set_id: SetId) -> None:
        """Remove a set, its head, and what is staged for it."""
        self.clear(set_id)
        self.drop_stage(set_id)
        _set(self._undo, self._heads, set_id, None)

    def stage(self, set_id: SetId) -> Stage | None:
        """Return how far the staged delta of a set is."""
        held = self._stages.get(set_id)
        return held[0] if held else None

    def save_stage(self, set_id: SetId, stage: Stage, entries: Iterable[Entry]) -> None:
        """Add rows to the staged delta of a set."""
        held = self._stages.get(set_id)
        rows = dict(held[1]) if held else {}
        rows.update({(entry.table, entry.key): entry for entry in entries})
        _set(self._undo, self._stages, set_id, (stage, rows))

    def staged(self, set_id: SetId) -> Iterator[Entry]:
        """Return the staged rows, one for each key, by seq."""
        held = self._stages.get(set_id)
        return iter(sorted(held[1].values(), key=_by_seq) if held else ())

    def adopt_stage(self, set_id: SetId, base: int) -> None:
        """Make the staged rows with seq above a bound rows of the set, and drop the stage."""
        self.save_entries(set_id, [e for e in self.staged(set_id) if e.seq > base])
        self.drop_stage(set_id)

    def drop_stage(self, set_id: SetId) -> None:
        """Throw the staged delta of a set away."""
        _set(self._undo, self._stages, set_id, None)


def _by_seq(entry: Entry) -> int:
    return entry.seq


def _set(undo: list[Callable[[], None]], where: dict[K, V], key: K, value: V | None) -> None:
    old = where.get(key)

    def back() -> None:
        if old is None:
            where.pop(key, None)
        else:
            where[key] = old

    undo.append(back)
    if value is None:
        where.pop(key, None)
    else:
        where[key] = value
