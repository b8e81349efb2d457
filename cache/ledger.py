"""cache.db: names, sources and byte counts of assets; everything in it can be made again.

SQLite with synchronous NORMAL. It knows nothing of chunks: those are in the bit files.
"""

import errno
import os
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from mesh.errors import StoreFull
from mesh.host.files import put_aside
from mesh.host.sqlite_errors import mapped

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS tally (
    name TEXT PRIMARY KEY, asset TEXT, state TEXT NOT NULL DEFAULT 'absent',
    origin_bytes INTEGER NOT NULL DEFAULT 0, peer_bytes INTEGER NOT NULL DEFAULT 0,
    rejected_bytes INTEGER NOT NULL DEFAULT 0, error TEXT,
    updated_ms INTEGER NOT NULL DEFAULT 0, near_bytes INTEGER NOT NULL DEFAULT 0,
    source_sha256 TEXT);
CREATE TABLE IF NOT EXISTS partial (
    name TEXT PRIMARY KEY, url TEXT NOT NULL, validator TEXT, size INTEGER,
    length INTEGER NOT NULL DEFAULT 0);
"""
_ADDED: Final = {"near_bytes": "INTEGER NOT NULL DEFAULT 0", "source_sha256": "TEXT"}
"""Columns that a tally table of an earlier version lacks."""


@dataclass(slots=True)
class Tally:
    """What is known of a name: the asset behind it, how it fares, what it cost."""

    name: str
    asset: str | None = None
    state: str = "absent"
    origin_bytes: int = 0
    peer_bytes: int = 0
    rejected_bytes: int = 0
    error: str | None = None
    updated_ms: int = 0
    near_bytes: int = 0
    """Of peer_bytes, what nodes of our own site gave: it never crossed the uplink."""
    source_sha256: str | None = None
    """Of the published file that the asset was made from here."""


class Ledger:
    """The database; a damaged one is put aside and made anew."""

    def __init__(self, path: Path) -> None:
        try:
            self._db = self._open(path)
        except sqlite3.DatabaseError:
            put_aside(path)
            self._db = self._open(path)

    @staticmethod
    def _open(path: Path) -> sqlite3.Connection:
        db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        try:
            db.execute("PRAGMA journal_mode=WAL")
            db.execute("PRAGMA synchronous=NORMAL")
            if (found := db.execute("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
                raise sqlite3.DatabaseError(found)
            db.executescript(_SCHEMA)
            have = {row[1] for row in db.execute("PRAGMA table_info(tally)")}
            for column, form in _ADDED.items():
                if column not in have:
                    db.execute(f"ALTER TABLE tally ADD COLUMN {column} {form}")
        except sqlite3.DatabaseError:
            db.close()
            raise
        return db

    def tallies(self) -> list[Tally]:
        """Return all names."""
        columns = (
            "name, asset, state, origin_bytes, peer_bytes, rejected_bytes, error, updated_ms,"
            " near_bytes, source_sha256"
        )
        return [Tally(*row) for row in self._db.execute(f"SELECT {columns} FROM tally")]  # noqa: S608

    def save(self, tally: Tally) -> None:
        """Insert or replace one name; on a full disk it is left as it stood before."""
        try:
            self._write(
                "INSERT OR REPLACE INTO tally VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    tally.name, tally.asset, tally.state, tally.origin_bytes, tally.peer_bytes,
                    tally.rejected_bytes, tally.error, tally.updated_ms, tally.near_bytes,
                    tally.source_sha256,
                ),
            )  # fmt: skip
        except OSError:
            pass

    def drop_tally(self, name: str) -> None:
        """Forget one name; on a full disk it is left as it stood before."""
        try:
            self._write("DELETE FROM tally WHERE name = ?", (name,))
        except OSError:
            pass

    def partial(self, name: str) -> tuple[str, str | None, int] | None:
        """Return (url, validator, synced length) of an unfinished origin transfer."""
        row: tuple[str, str | None, int] | None = self._db.execute(
            "SELECT url, validator, length FROM partial WHERE name = ?", (name,)
        ).fetchone()
        return row

    def save_partial(self, name: str, url: str, validator: str | None, length: int) -> None:
        """Remember how far an origin transfer is on disk; raises OSError when that is full."""
        self._write(
            "INSERT OR REPLACE INTO partial (name, url, validator, length) VALUES (?, ?, ?, ?)",
            (name, url, validator, length),
        )

    def drop_partial(self, name: str) -> None:
        """Forget an origin transfer; raises OSError when the disk is full."""
        self._write("DELETE FROM partial WHERE name = ?", (name,))

    def _write(self, sql: str, values: Sequence[object]) -> None:
        """Change one row; a full disk is an OSError, a failing one ends the process."""
        try:
            self._db.execute(sql, values)
        except sqlite3.Error as exc:
            ours = mapped(exc, "cache.db")
            if isinstance(ours, StoreFull):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from exc
            raise ours or exc from exc

    def close(self) -> None:
        """Close the database."""
        self._db.close()
