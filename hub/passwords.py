"""Passwords as argon2id: made and checked in a thread, one at a time.

It knows no accounts. Rules: each hash takes ``MEMORY_BYTES``, so only one runs at a time and
few wait; checking an account that does not exist costs as much as a wrong password.
"""

import os
from typing import Final

import trio
from nacl import exceptions, pwhash

from hub.errors import BadRequest, TooMany
from mesh.rest.requests import PASSWORD_BYTES_MAX, PASSWORD_CHARS_MIN

MEMORY_BYTES: Final = 19 << 20
OPERATIONS: Final = 2
"""argon2id with 19 MiB and two passes: the OWASP minimum, since a hub stays under 96 MiB."""
WAITING_MAX: Final = 16
RETRY_S: Final = 5.0


class Passwords:
    """Hashes and checks."""

    def __init__(self) -> None:
        self._hashing = trio.CapacityLimiter(1)
        self._decoy: str | None = None

    async def hash(self, password: str) -> str:
        """Return what is stored of a password; BadRequest when it may not be one."""
        data = password.encode(errors="replace")
        if len(password) < PASSWORD_CHARS_MIN or len(data) > PASSWORD_BYTES_MAX:
            raise BadRequest(
                f"a password has {PASSWORD_CHARS_MIN} characters to {PASSWORD_BYTES_MAX} bytes"
            )
        return await self._made(data)

    async def check(self, stored: str | None, password: str) -> bool:
        """Tell whether this is the password behind a hash; ``stored`` None: there is none.

        Raises TooMany when too many wait already.
        """
        if self._hashing.statistics().tasks_waiting >= WAITING_MAX:
            raise TooMany("too many people sign in at this moment", RETRY_S)
        data = password.encode(errors="replace")
        if len(data) > PASSWORD_BYTES_MAX:
            return False
        if stored is None and self._decoy is None:
            self._decoy = await self._made(os.urandom(16))
        against = (stored or self._decoy or "").encode()
        good = await trio.to_thread.run_sync(_verify, against, data, limiter=self._hashing)
        return good and stored is not None

    async def _made(self, data: bytes) -> str:
        hashed = await trio.to_thread.run_sync(_hash, data, limiter=self._hashing)
        return hashed.decode()


def _hash(password: bytes) -> bytes:
    return pwhash.argon2id.str(password, opslimit=OPERATIONS, memlimit=MEMORY_BYTES)


def _verify(stored: bytes, password: bytes) -> bool:
    try:
        return bool(pwhash.argon2id.verify(stored, password))
    except (exceptions.InvalidkeyError, exceptions.ValueError, ValueError):
        return False
