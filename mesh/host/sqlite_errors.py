"""What an error of SQLite means for whoever owns the database: full, broken, or only a mistake.

It knows no table. Rule: a full disk passes (nothing stands of what was asked, what stood before
stands); after an input/output error or a damaged page nothing is sure, and the process ends.
"""

import sqlite3
from collections.abc import Generator
from contextlib import contextmanager
from typing import Final

from mesh.errors import LocalError, StoreBroken, StoreFull

BROKEN_CODES: Final = frozenset({sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CORRUPT, 26})
"""Primary result codes (26 is SQLITE_NOTADB) after which nothing that we hold is sure."""


def mapped(error: sqlite3.Error, what: str = "the store") -> LocalError | None:
    """Return what an SQLite error means for a database; None: only the statement was wrong."""
    code = getattr(error, "sqlite_errorcode", None)
    primary = code & 0xFF if isinstance(code, int) else None
    if primary == sqlite3.SQLITE_FULL or code == sqlite3.SQLITE_IOERR_SHMSIZE:
        return StoreFull(f"the disk under {what} is full; free some space")
    if primary in BROKEN_CODES:
        name = getattr(error, "sqlite_errorname", "")
        return StoreBroken(f"{what} met an input/output error ({name}: {error})")
    return None


@contextmanager
def mapping_errors() -> Generator[None]:
    """Turn errors of the disk into the store's own."""
    try:
        yield
    except sqlite3.Error as exc:
        ours = mapped(exc)
        if ours is None:
            raise
        raise ours from exc
