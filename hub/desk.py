"""Accounts and sessions of people: the hub's own small database, never replicated.

It knows no HTTP. Rules: passwords stand only as argon2id hashes, session ids only as SHA-256;
hashing runs in a thread, one at a time, because each takes ``MEMORY_BYTES``; an unknown account
costs as much time as a wrong password.
"""

import hashlib
import hmac
import os
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import trio
from nacl import exceptions, pwhash

from hub.errors import TooMany
from mesh.errors import Refused

MEMORY_BYTES: Final = 19 << 20
OPERATIONS: Final = 2
"""argon2id with 19 MiB and two passes: the OWASP minimum, since a hub stays under 96 MiB."""
PASSWORD_CHARS_MIN: Final = 8
PASSWORD_BYTES_MAX: Final = 256
CHECKS_WAITING_MAX: Final = 16
SESSION_MS: Final = 12 * 3600 * 1000
SESSIONS_MAX: Final = 256
"""Most sessions at a time; a new one ends the oldest."""
ADMIN: Final = "admin"

_SCHEMA = """
CREATE TABLE IF NOT EXISTS account (
    name TEXT PRIMARY KEY, password TEXT NOT NULL, changed_ms INTEGER NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS session (
    digest BLOB PRIMARY KEY, account TEXT NOT NULL, csrf TEXT NOT NULL,
    until_ms INTEGER NOT NULL) STRICT;
"""


@dataclass(frozen=True, slots=True)
class Session:
    """A signed-in person; ``csrf`` must come back with every form."""

    account: str
    csrf: str
    until_ms: int

    def __repr__(self) -> str:
        """Show who, never the token."""
        return f"Session({self.account})"


class Desk:
    """Who may sign in and who is signed in."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._db = connection
        self._hashing = trio.CapacityLimiter(1)
        self._decoy: bytes | None = None

    @classmethod
    def open(cls, path: Path) -> "Desk":
        """Open or make the database file (mode 0600)."""
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
            connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=FULL")
            connection.execute("PRAGMA trusted_schema=OFF")
            connection.executescript(_SCHEMA)
        except (sqlite3.DatabaseError, OSError) as exc:
            raise Refused(f"the accounts in {path} cannot be read: {exc}") from exc
        return cls(connection)

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def has_account(self, name: str) -> bool:
        """Tell whether an account exists."""
        found = self._db.execute("SELECT 1 FROM account WHERE name = ?", (name,)).fetchone()
        return found is not None

    async def set_password(self, name: str, password: str, now_ms: int) -> None:
        """Make an account or change its password; ends its sessions."""
        if (
            not len(password) >= PASSWORD_CHARS_MIN
            or len(password.encode()) > PASSWORD_BYTES_MAX
        ):
            raise Refused(
                f"a password has {PASSWORD_CHARS_MIN} characters to {PASSWORD_BYTES_MAX} bytes"
            )
        hashed = await trio.to_thread.run_sync(_hash, password.encode(), limiter=self._hashing)
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.execute(
                "INSERT OR REPLACE INTO account VALUES (?, ?, ?)",
                (name, hashed.decode(), now_ms),
            )
            self._db.execute("DELETE FROM session WHERE account = ?", (name,))

    async def check_password(self, name: str, password: str) -> bool:
        """Tell whether this is the account's password."""
        if self._hashing.statistics().tasks_waiting >= CHECKS_WAITING_MAX:
            raise TooMany("too many people sign in at this moment; try again in a while")
        candidate = password.encode(errors="replace")
        if len(candidate) > PASSWORD_BYTES_MAX:
            return False
        row = self._db.execute(
            "SELECT password FROM account WHERE name = ?", (name,)
        ).fetchone()
        if row is None and self._decoy is None:
            self._decoy = await trio.to_thread.run_sync(
                _hash, os.urandom(16), limiter=self._hashing
            )
        stored = row[0].encode() if row is not None else self._decoy
        assert stored is not None
        good = await trio.to_thread.run_sync(_verify, stored, candidate, limiter=self._hashing)
        return good and row is not None

    def sign_in(self, account: str, now_ms: int) -> tuple[str, Session]:
        """Begin a session; return its id (for the cookie alone) and what it is."""
        secret = os.urandom(32).hex()
        session = Session(account, os.urandom(16).hex(), now_ms + SESSION_MS)
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.execute("DELETE FROM session WHERE until_ms <= ?", (now_ms,))
            self._db.execute(
                "DELETE FROM session WHERE digest NOT IN"
                " (SELECT digest FROM session ORDER BY until_ms DESC LIMIT ?)",
                (SESSIONS_MAX - 1,),
            )
            self._db.execute(
                "INSERT INTO session VALUES (?, ?, ?, ?)",
                (_digest(secret), account, session.csrf, session.until_ms),
            )
        return secret, session

    def session(self, secret: str, now_ms: int) -> Session | None:
        """Return the live session with this id."""
        row = self._db.execute(
            "SELECT account, csrf, until_ms FROM session WHERE digest = ? AND until_ms > ?",
            (_digest(secret), now_ms),
        ).fetchone()
        return Session(*row) if row else None

    def sign_out(self, secret: str) -> None:
        """End a session."""
        self._db.execute("DELETE FROM session WHERE digest = ?", (_digest(secret),))


def same_text(one: str, other: str) -> bool:
    """Compare two secrets in constant time."""
    return hmac.compare_digest(one.encode(errors="replace"), other.encode(errors="replace"))


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode(errors="replace")).digest()


def _hash(password: bytes) -> bytes:
    return pwhash.argon2id.str(password, opslimit=OPERATIONS, memlimit=MEMORY_BYTES)


def _verify(stored: bytes, password: bytes) -> bool:
    try:
        return bool(pwhash.argon2id.verify(stored, password))
    except exceptions.InvalidkeyError:
        return False
