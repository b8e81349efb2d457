"""Who is signed in at this hub: ``hub.db``, a small file of its own, never replicated.

It knows no HTTP and no password. Rules: of a session's id only its SHA-256 is kept; a session
counts while its account has the stamp that it had at signing in (``hub/accounts.py``), so a new
password or role, a disabled or removed account ends it at the next look. Beside sessions the
file remembers, by the hour, when an API token was last used here.
"""

import hashlib
import hmac
import os
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hub.accounts import Accounts
from mesh.errors import Refused
from mesh.host.files import put_aside
from mesh.host.log import get_log
from mesh.rest.roles import Role

SESSION_MS: Final = 12 * 3600 * 1000
SESSIONS_MAX: Final = 256
"""Most sessions at a time; a new one ends the oldest."""
USE_MS: Final = 3600 * 1000
"""How coarsely the last use of a token is remembered."""
USES_MAX: Final = 2000
log = get_log("sessions")

_SCHEMA = """
CREATE TABLE IF NOT EXISTS signed_in (
    digest BLOB PRIMARY KEY, account TEXT NOT NULL, stamp BLOB NOT NULL, csrf TEXT NOT NULL,
    until_ms INTEGER NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS token_use (
    token TEXT PRIMARY KEY, used_ms INTEGER NOT NULL) STRICT;
DROP TABLE IF EXISTS session;
"""


@dataclass(frozen=True, slots=True)
class Session:
    """A signed-in person; ``csrf`` must come back with every form."""

    account: str
    role: Role
    csrf: str
    until_ms: int

    def __repr__(self) -> str:
        """Show who, never the token."""
        return f"Session({self.account})"


class Desk:
    """The sessions of one hub."""

    def __init__(self, connection: sqlite3.Connection, accounts: Accounts) -> None:
        self._db = connection
        self._accounts = accounts
        self._used = dict(connection.execute("SELECT token, used_ms FROM token_use").fetchall())

    @classmethod
    def open(cls, path: Path, accounts: Accounts) -> "Desk":
        """Open or make the database file (mode 0600).

        A damaged one is put aside and made anew: people sign in again. Raises Refused when that
        does not help.
        """
        try:
            try:
                return cls(_open(path), accounts)
            except sqlite3.OperationalError:
                raise  # it is the disk, not what stands in the file
            except sqlite3.DatabaseError as exc:
                log.warning("sessions put aside", path=path, error=exc)
                put_aside(path)
                return cls(_open(path), accounts)
        except (sqlite3.DatabaseError, OSError) as exc:
            raise Refused(f"the sessions in {path} cannot be read: {exc}") from exc

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    async def move_accounts(self) -> int:
        """Make accounts of the whole organisation of those that stood in this file once.

        Repeating after a crash is harmless. Returns how many were moved.
        """
        query = "SELECT count(*) FROM sqlite_schema WHERE name = 'account'"
        if not self._db.execute(query).fetchone()[0]:
            return 0
        moved = 0
        for name, hashed in self._db.execute("SELECT name, password FROM account").fetchall():
            if self._accounts.find(name) is None:
                await self._accounts.adopt(name, "admin", hashed)
                moved += 1
        self._db.execute("DROP TABLE account")
        return moved

    # -- sessions --------------------------------------------------------------------------

    def sign_in(self, account: str, now_ms: int) -> tuple[str, Session]:
        """Begin a session; return its id (for the cookie alone) and what it is."""
        known = self._accounts.find_or_fail(account)
        secret = os.urandom(32).hex()
        session = Session(account, known.role, os.urandom(16).hex(), now_ms + SESSION_MS)
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.execute("DELETE FROM signed_in WHERE until_ms <= ?", (now_ms,))
            self._db.execute(
                "DELETE FROM signed_in WHERE digest NOT IN"
                " (SELECT digest FROM signed_in ORDER BY until_ms DESC LIMIT ?)",
                (SESSIONS_MAX - 1,),
            )
            self._db.execute(
                "INSERT INTO signed_in VALUES (?, ?, ?, ?, ?)",
                (_digest(secret), account, known.stamp, session.csrf, session.until_ms),
            )
        return secret, session

    def session(self, secret: str, now_ms: int) -> Session | None:
        """Return the live session with this id."""
        row = self._db.execute(
            "SELECT account, stamp, csrf, until_ms FROM signed_in"
            " WHERE digest = ? AND until_ms > ?",
            (_digest(secret), now_ms),
        ).fetchone()
        account = self._accounts.find(row[0]) if row else None
        if account is None or account.disabled or account.stamp != row[1]:
            return None
        return Session(account.name, account.role, row[2], row[3])

    def sign_out(self, secret: str) -> None:
        """End a session."""
        self._db.execute("DELETE FROM signed_in WHERE digest = ?", (_digest(secret),))

    # -- uses of API tokens ----------------------------------------------------------------

    def used(self, token: str, now_ms: int) -> None:
        """Remember that a token was used in this hour."""
        hour_ms = now_ms - now_ms % USE_MS
        if self._used.get(token) == hour_ms or (
            token not in self._used and len(self._used) >= USES_MAX
        ):
            return
        self._used[token] = hour_ms
        try:
            self._db.execute("INSERT OR REPLACE INTO token_use VALUES (?, ?)", (token, hour_ms))
        except sqlite3.OperationalError:
            pass  # a full disk: it is known until the next start

    def last_used(self) -> dict[str, int]:
        """Return the hour in which each token was last used here, Unix milliseconds."""
        return dict(self._used)


def _open(path: Path) -> sqlite3.Connection:
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA trusted_schema=OFF")
        connection.executescript(_SCHEMA)
        if (found := connection.execute("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
            raise sqlite3.DatabaseError(f"a page is damaged ({found})")
    except sqlite3.DatabaseError:
        connection.close()
        raise
    return connection


def same_text(one: str, other: str) -> bool:
    """Compare two secrets in constant time."""
    return hmac.compare_digest(one.encode(errors="replace"), other.encode(errors="replace"))


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode(errors="replace")).digest()
