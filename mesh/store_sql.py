"""The storage port of the replicated sets over one SQLite connection.

It knows no rule about sets and opens no transaction: its user does both. Rule: it behaves as
``mesh/proto/storage.py``'s MemoryStorage does; the same contract tests run against both. Ids of
sets are never given out twice, so readers may remember them.
"""

import sqlite3
from collections.abc import Iterable, Iterator
from typing import Final

from mesh.proto.evidence import Proof
from mesh.proto.sets import Entry, SetId, SignedHead, parse_head
from mesh.proto.storage import Stage

SCHEMA: Final = (
    """CREATE TABLE mesh_meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID""",
    """CREATE TABLE mesh_set (
        id INTEGER PRIMARY KEY AUTOINCREMENT, scope TEXT NOT NULL, author TEXT NOT NULL,
        head BLOB, signature BLOB, UNIQUE (scope, author))""",
    """CREATE TABLE mesh_row (
        set_id INTEGER NOT NULL, tab TEXT NOT NULL, key TEXT NOT NULL,
        seq INTEGER NOT NULL, hlc INTEGER NOT NULL, body BLOB,
        PRIMARY KEY (set_id, tab, key)) WITHOUT ROWID""",
    """CREATE INDEX mesh_row_seq ON mesh_row (set_id, seq)""",
    """CREATE TABLE mesh_stage (
        set_id INTEGER PRIMARY KEY, epoch INTEGER NOT NULL, start INTEGER NOT NULL,
        cursor INTEGER NOT NULL, rows INTEGER NOT NULL)""",
    """CREATE TABLE mesh_staged (
        set_id INTEGER NOT NULL, tab TEXT NOT NULL, key TEXT NOT NULL,
        seq INTEGER NOT NULL, hlc INTEGER NOT NULL, body BLOB,
        PRIMARY KEY (set_id, tab, key)) WITHOUT ROWID""",
)
_ROW: Final = "SELECT tab, key, seq, hlc, body FROM mesh_row WHERE set_id = ?"
_SHOWN: Final = (
    "SELECT s.author, r.tab, r.key, r.seq, r.hlc, r.body FROM mesh_set s"
    " JOIN mesh_row r ON r.set_id = s.id"
    " WHERE s.scope = ? AND r.tab = ? AND r.body IS NOT NULL"
)
PROOF: Final = "proof "
"""Begins the name of a remark that is a proof against an author."""
_SAVE: Final = "INSERT OR REPLACE INTO mesh_row VALUES (?, ?, ?, ?, ?, ?)"


class SqlStorage:
    """The sets in the tables ``mesh_*`` of a connection."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._db = connection
        self._ids: dict[SetId, int] = {}

    def forget_ids(self) -> None:
        """Call after a rollback: ids given out in the transaction do not exist."""
        self._ids.clear()

    # -- reading ---------------------------------------------------------------------------

    def heads(self) -> list[SignedHead]:
        """Return the head of every set."""
        found = self._db.execute(
            "SELECT head, signature FROM mesh_set WHERE head IS NOT NULL ORDER BY id"
        )
        return [parse_head(body, signature) for body, signature in found]

    def head(self, set_id: SetId) -> SignedHead | None:
        """Return the head of one set."""
        found = self._db.execute(
            "SELECT head, signature FROM mesh_set WHERE scope = ? AND author = ?",
            (set_id.scope, set_id.author),
        ).fetchone()
        return parse_head(found[0], found[1]) if found and found[0] is not None else None

    def entry(self, set_id: SetId, table: str, key: str) -> Entry | None:
        """Return one row of a set, retracted or not."""
        found = self._db.execute(
            f"{_ROW} AND tab = ? AND key = ?", (self._id(set_id), table, key)
        ).fetchone()
        return Entry(*found) if found else None

    def entries(self, set_id: SetId) -> Iterator[Entry]:
        """Return all rows of a set, by seq."""
        return self.entries_since(set_id, 0)

    def entries_since(self, set_id: SetId, seq: int) -> Iterator[Entry]:
        """Return the rows with a greater seq, by seq."""
        found = self._db.execute(f"{_ROW} AND seq > ? ORDER BY seq", (self._id(set_id), seq))
        return map(Entry._make, found)

    def keyed(self, scope: str, table: str, key: str) -> list[tuple[str, Entry]]:
        """Return (author, row) of every author for one key, without retracted rows."""
        found = self._db.execute(
            f"{_SHOWN} AND r.key = ? ORDER BY s.author", (scope, table, key)
        )
        return [(row[0], Entry._make(row[1:])) for row in found]

    def tabled(self, scope: str, table: str) -> list[tuple[str, Entry]]:
        """Return (author, row) of a whole table of a scope, without retracted rows."""
        found = self._db.execute(f"{_SHOWN} ORDER BY s.author, r.key", (scope, table))
        return [(row[0], Entry._make(row[1:])) for row in found]

    def upto(self, set_id: SetId, seq: int) -> list[Entry]:
        """Return the rows with seq at or below a bound, by seq."""
        found = self._db.execute(f"{_ROW} AND seq <= ? ORDER BY seq", (self._id(set_id), seq))
        return [Entry._make(row) for row in found]

    def oldest(self, set_id: SetId, count: int) -> list[Entry]:
        """Return the rows with the lowest seq."""
        found = self._db.execute(f"{_ROW} ORDER BY seq LIMIT ?", (self._id(set_id), count))
        return [Entry._make(row) for row in found]

    # -- writing ---------------------------------------------------------------------------

    def save_head(self, signed: SignedHead) -> None:
        """Set the head of a set."""
        self._db.execute(
            "UPDATE mesh_set SET head = ?, signature = ? WHERE id = ?",
            (signed.body, signed.signature, self._made(signed.head.id)),
        )

    def save_entries(self, set_id: SetId, entries: Iterable[Entry]) -> None:
        """Write rows; a row of the same table and key is replaced."""
        number = self._made(set_id)
        self._db.executemany(_SAVE, map((number,).__add__, entries))

    def save_proof(self, proof: Proof) -> None:
        """Keep a proof against an author, as a remark: there are few."""
        parts = [part.hex() for signed in proof for part in signed[1:]]
        name = f"{PROOF}{proof.id.scope} {proof.id.author}"
        self._db.execute(
            "INSERT OR REPLACE INTO mesh_meta VALUES (?, ?)", (name, " ".join(parts))
        )

    def proofs(self) -> list[Proof]:
        """Return the proofs against authors."""
        found: list[Proof] = []
        for (value,) in self._db.execute(
            "SELECT value FROM mesh_meta WHERE substr(name, 1, ?) = ? ORDER BY name",
            (len(PROOF), PROOF),
        ):
            one, signature, two, other = map(bytes.fromhex, value.split(" "))
            found.append(Proof(parse_head(one, signature), parse_head(two, other)))
        return found

    def delete_entries(self, set_id: SetId, keys: Iterable[tuple[str, str]]) -> None:
        """Remove rows for good."""
        number = self._id(set_id)
        self._db.executemany(
            "DELETE FROM mesh_row WHERE set_id = ? AND tab = ? AND key = ?",
            ((number, table, key) for table, key in keys),
        )

    def clear(self, set_id: SetId) -> None:
        """Remove all rows of a set; its head and what is staged stay."""
        self._db.execute("DELETE FROM mesh_row WHERE set_id = ?", (self._id(set_id),))

    def forget(self, set_id: SetId) -> None:
        """Remove a set, its head, and what is staged for it."""
        self.clear(set_id)
        self.drop_stage(set_id)
        self._db.execute(
            "UPDATE mesh_set SET head = NULL, signature = NULL WHERE id = ?",
            (self._id(set_id),),
        )

    # -- staging ---------------------------------------------------------------------------

    def stage(self, set_id: SetId) -> Stage | None:
        """Return how far the staged delta of a set is."""
        found = self._db.execute(
            "SELECT epoch, start, cursor, rows FROM mesh_stage WHERE set_id = ?",
            (self._id(set_id),),
        ).fetchone()
        return Stage(*found) if found else None

    def save_stage(self, set_id: SetId, stage: Stage, entries: Iterable[Entry]) -> None:
        """Add rows to the staged delta of a set."""
        number = self._made(set_id)
        self._db.execute(
            "INSERT OR REPLACE INTO mesh_stage VALUES (?, ?, ?, ?, ?)",
            (number, stage.epoch, stage.start, stage.cursor, stage.rows),
        )
        self._db.executemany(
            "INSERT OR REPLACE INTO mesh_staged VALUES (?, ?, ?, ?, ?, ?)",
            map((number,).__add__, entries),
        )

    def staged(self, set_id: SetId) -> Iterator[Entry]:
        """Return the staged rows, one for each key, by seq."""
        found = self._db.execute(
            "SELECT tab, key, seq, hlc, body FROM mesh_staged WHERE set_id = ? ORDER BY seq",
            (self._id(set_id),),
        )
        return map(Entry._make, found)

    def adopt_stage(self, set_id: SetId, base: int) -> None:
        """Make the staged rows with seq above a bound rows of the set, and drop the stage."""
        self._db.execute(
            "INSERT OR REPLACE INTO mesh_row SELECT * FROM mesh_staged"
            " WHERE set_id = ? AND seq > ?",
            (self._made(set_id), base),
        )
        self.drop_stage(set_id)

    def drop_stage(self, set_id: SetId) -> None:
        """Throw the staged delta of a set away."""
        number = self._id(set_id)
        if self._db.execute("DELETE FROM mesh_stage WHERE set_id = ?", (number,)).rowcount:
            self._db.execute("DELETE FROM mesh_staged WHERE set_id = ?", (number,))

    # -- ids -------------------------------------------------------------------------------

    def _id(self, set_id: SetId) -> int:
        """Return the number of a set, 0 when there is none (no row has that)."""
        number = self._ids.get(set_id)
        if number is None:
            found = self._db.execute(
                "SELECT id FROM mesh_set WHERE scope = ? AND author = ?",
                (set_id.scope, set_id.author),
            ).fetchone()
            if found is None:
                return 0
            number = self._ids[set_id] = int(found[0])
        return number

    def _made(self, set_id: SetId) -> int:
        """Return the number of a set, making one."""
        number = self._id(set_id)
        if number == 0:
            made = self._db.execute(
                "INSERT INTO mesh_set (scope, author) VALUES (?, ?)",
                (set_id.scope, set_id.author),
            )
            assert made.lastrowid is not None
            number = self._ids[set_id] = made.lastrowid
        return number
