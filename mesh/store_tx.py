"""What a write function sees of the store, and the rows that readers get.

It knows no thread and no disk error. Rules: a value is decoded only here; a put that changes
nothing writes nothing; a put into a merged table overrules the row that its writer could see.
"""

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from mesh.proto.codec import pack, unpack_map
from mesh.proto.collect import Collector, Heir
from mesh.proto.evidence import Proof
from mesh.proto.intake import Delta, Outcome, Roster, take
from mesh.proto.merge import Authored, is_merged, winner, winners
from mesh.proto.replica import Replica
from mesh.proto.sets import MARKER, ROW_BYTES_MAX, Entry, SetId
from mesh.proto.storage import Reader
from mesh.proto.tables import writable

RESERVED_PREFIX: Final = "mesh_"
"""Tables of the store itself; no room touches them with SQL."""


@dataclass(frozen=True, slots=True)
class Row:
    """A row as its readers see it."""

    author: str
    scope: str
    table: str
    key: str
    seq: int
    hlc: int
    body: dict[str, Any]


def shown(reader: Reader, scope: str, table: str, key: str) -> Row | None:
    """Return the row that a key shows: highest by (hlc, author), None when deleted."""
    best = winner(reader.keyed(scope, table, key))
    return None if best is None or best[1].body == MARKER else _row(scope, best)


def shown_rows(reader: Reader, scope: str, table: str) -> list[Row]:
    """Return a table: merged and without deletions, or every author's rows."""
    found = reader.tabled(scope, table)
    return [_row(scope, item) for item in (winners(found) if is_merged(table) else found)]


def authored_rows(reader: Reader, scope: str, table: str, key: str | None) -> list[Row]:
    """Return every author's own rows of a table, or of one key; markers are left out."""
    found = reader.tabled(scope, table) if key is None else reader.keyed(scope, table, key)
    return [_row(scope, item) for item in found if item[1].body != MARKER]


def _row(scope: str, item: Authored) -> Row:
    author, entry = item
    assert entry.body
    body = unpack_map(entry.body, ROW_BYTES_MAX)
    return Row(author, scope, entry.table, entry.key, entry.seq, entry.hlc, body)


class Tx:
    """One commit group. Valid only while the write function runs."""

    def __init__(
        self,
        replica: Replica,
        collector: Collector,
        db: sqlite3.Connection,
        now_ms: int,
        hub: bool = True,
    ) -> None:
        self.now_ms = now_ms
        self._hub = hub
        self._replica = replica
        self._collector = collector
        self._storage = replica.storage
        self._db = db

    # -- replicated rows -------------------------------------------------------------------

    def put(self, scope: str, table: str, key: str, body: Mapping[str, Any]) -> None:
        """Write an own row; in a merged table it overrules every row seen here."""
        assert writable(scope, table, hub=self._hub), f"only hubs write {table}"
        packed = pack(dict(body))
        if not is_merged(table):
            old = self._own_entry(scope, table, key)
            if old is None or old.body != packed:
                self._replica.put(scope, table, key, packed, self.now_ms)
            return
        best = winner(self._storage.keyed(scope, table, key))
        if best is not None and best[0] == self._replica.author and best[1].body == packed:
            return
        above = best[1].hlc if best else 0
        self._replica.put(scope, table, key, packed, self.now_ms, above)

    def drop(self, scope: str, table: str, key: str) -> None:
        """Retract an own row; in a merged table another author's row may show again."""
        self._replica.put(scope, table, key, None, self.now_ms)

    def delete(self, scope: str, table: str, key: str) -> None:
        """Delete the shown row of a merged table, whoever wrote it."""
        assert writable(scope, table, hub=self._hub), f"only hubs write {table}"
        assert is_merged(table), f"{table} is read author by author: drop the own row"
        best = winner(self._storage.keyed(scope, table, key))
        if best is not None and best[1].body != MARKER:
            self._replica.put(scope, table, key, MARKER, self.now_ms, best[1].hlc)

    def get(self, scope: str, table: str, key: str) -> Row | None:
        """Return the shown row of a key."""
        return shown(self._storage, scope, table, key)

    def rows(self, scope: str, table: str) -> list[Row]:
        """Return the shown rows of a table, or every author's rows of a per-author table."""
        return shown_rows(self._storage, scope, table)

    def authored(self, scope: str, table: str, key: str | None = None) -> list[Row]:
        """Return every author's own rows."""
        return authored_rows(self._storage, scope, table, key)

    def own(self, scope: str, table: str, key: str) -> Row | None:
        """Return our own row of a key, shown or overruled; None for a marker of ours."""
        entry = self._own_entry(scope, table, key)
        if entry is None or not entry.body:
            return None
        return _row(scope, (self._replica.author, entry))

    def _own_entry(self, scope: str, table: str, key: str) -> Entry | None:
        return self._storage.entry(SetId(self._replica.author, scope), table, key)

    # -- local tables ----------------------------------------------------------------------

    def execute(self, sql: str, args: Sequence[Any] | Mapping[str, Any] = ()) -> sqlite3.Cursor:
        """Run a statement on local tables, in the same transaction as the rows."""
        assert RESERVED_PREFIX not in sql, "the store's own tables are not for SQL"
        return self._db.execute(sql, args)

    # -- replication -----------------------------------------------------------------------

    def take(self, deltas: Iterable[Delta], roster: Roster, via: str) -> list[Outcome]:
        """Take deltas over that a peer has sent."""
        return [take(self._replica, delta, roster, self.now_ms, via) for delta in deltas]

    def convict(self, proofs: Iterable[Proof]) -> None:
        """Keep proofs against authors."""
        for proof in proofs:
            self._replica.convict(proof, self.now_ms)

    def renew(self) -> None:
        """Go on in a higher epoch in all own sets (after a restore)."""
        self._replica.renew(self.now_ms)

    def collect(self, roster: Roster, heir: Heir) -> int:
        """Let go of rows that nobody needs any more; return how many."""
        return self._collector.round(roster, heir, self.now_ms)
