"""The database file under the store: who may open it, how, and what its errors mean.

It knows no sets. Rules: one process owns the file (an advisory lock beside it, with the owner's
process id in it); one connection writes and checkpoints, all others are ``mode=ro``; a file
that is not ours, newer than this program, or damaged is refused with a sentence and left alone.
"""

import fcntl
import os
import sqlite3
from pathlib import Path
from typing import Final
from urllib.parse import quote

from mesh.errors import Refused, StoreDamaged
from mesh.host.files import make_private_folder, sync_folder
from mesh.host.sqlite_errors import mapping_errors
from mesh.store_sql import SCHEMA

APPLICATION_ID: Final = 0x524D5348  # "RMSH"
USER_VERSION: Final = 1
WAL_PAGES: Final = 1000
JOURNAL_BYTES_MAX: Final = 64 << 20
WRITER_CACHE_KIB: Final = 8192
READER_CACHE_KIB: Final = 2048
PAGE_BYTES: Final = 4096


class FileLock:
    """The lock that keeps a second process out of a data folder."""

    def __init__(self, path: Path) -> None:
        """Take the lock; raise Refused with the folder and the holder's process id."""
        self._path = path
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(self._descriptor, 32, 0).decode(errors="replace").strip()
            os.close(self._descriptor)
            raise Refused(
                f"the data folder {path.parent} is in use by process {holder or 'unknown'};"
                " stop it first, or give another folder with --data"
            ) from None
        try:
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, f"{os.getpid()}\n".encode(), 0)
        except OSError:
            pass  # a full disk: only whom to name is not written, the lock is held

    def release(self) -> None:
        """Let others in; harmless when done twice."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def open_writer(path: Path, bytes_max: int | None) -> sqlite3.Connection:
    """Open (or make) the database for writing; raise Refused, StoreFull, StoreBroken."""
    make_private_folder(path.parent)
    if not path.exists():
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        sync_folder(path.parent)
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=5)
    try:
        with mapping_errors():
            _prepare(db, path, bytes_max)
    except BaseException:
        db.close()
        raise
    return db


def _prepare(db: sqlite3.Connection, path: Path, bytes_max: int | None) -> None:
    application = _pragma(db, "application_id")
    version = _pragma(db, "user_version")
    tables = db.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
    if application not in (0, APPLICATION_ID) or (application == 0 and tables):
        raise Refused(f"{path} is not a store of this program; move it away")
    if version > USER_VERSION:
        raise Refused(f"{path} was written by a newer version of this program; install that")
    for setting in (
        "journal_mode = WAL",
        "synchronous = FULL",
        "foreign_keys = ON",
        "trusted_schema = OFF",
        "cell_size_check = ON",
        f"wal_autocheckpoint = {WAL_PAGES}",
        f"journal_size_limit = {JOURNAL_BYTES_MAX}",
        f"cache_size = -{WRITER_CACHE_KIB}",
    ):
        db.execute(f"PRAGMA {setting}")
    if bytes_max is not None:
        db.execute(f"PRAGMA max_page_count = {bytes_max // PAGE_BYTES}")
    found = db.execute("PRAGMA quick_check(1)").fetchone()[0]
    if found != "ok":
        raise StoreDamaged(f"the store {path} is damaged ({found})")
    if version == 0:
        db.execute("BEGIN IMMEDIATE")
        for statement in SCHEMA:
            db.execute(statement)
        db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        db.execute(f"PRAGMA user_version = {USER_VERSION}")
        db.execute("COMMIT")


def open_reader(path: Path, *, any_thread: bool = False) -> sqlite3.Connection:
    """Open a connection that cannot write."""
    db = sqlite3.connect(
        f"file:{quote(str(path))}?mode=ro",
        uri=True,
        isolation_level=None,
        check_same_thread=not any_thread,
        timeout=5,
    )
    db.execute(f"PRAGMA cache_size = -{READER_CACHE_KIB}")
    db.execute("PRAGMA query_only = ON")
    db.execute("PRAGMA trusted_schema = OFF")
    return db


def _pragma(db: sqlite3.Connection, name: str) -> int:
    return int(db.execute(f"PRAGMA {name}").fetchone()[0])


def get_meta(db: sqlite3.Connection, name: str) -> str | None:
    """Return a remark about the store."""
    found = db.execute("SELECT value FROM mesh_meta WHERE name = ?", (name,)).fetchone()
    return str(found[0]) if found else None


def set_meta(db: sqlite3.Connection, name: str, value: str | None) -> None:
    """Keep or drop a remark about the store."""
    if value is None:
        db.execute("DELETE FROM mesh_meta WHERE name = ?", (name,))
    else:
        db.execute("INSERT OR REPLACE INTO mesh_meta VALUES (?, ?)", (name, value))
