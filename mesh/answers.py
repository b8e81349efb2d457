"""Requests that may be repeated: what was answered under an Idempotency-Key, for a day.

Hub and node keep it in the file of their mesh store, so that an order's row and the memory of
its answer are one transaction. It knows no HTTP. Rules: a key belongs to who used it first; the
same key with another request is refused; an answer that holds a secret is kept in memory only,
and after a restart the repeat is told so instead of being carried out again.
"""

import hashlib
import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any, Final, Protocol

import msgspec

from mesh.host.clock import Clock
from mesh.rest.calls import Call, answer_of
from mesh.rest.problems import RequestProblem

KEPT_MS: Final = 24 * 3600 * 1000
SECRETS_MAX: Final = 1000
"""Answers with a secret that are remembered; the oldest goes first."""
SCHEMA: Final = (
    "CREATE TABLE IF NOT EXISTS kept_answer (key TEXT PRIMARY KEY, request BLOB NOT NULL,"
    " document TEXT, at_ms INTEGER NOT NULL)",
)


class Local(Protocol):
    """What is needed of a transaction of the store."""

    @property
    def now_ms(self) -> int: ...  # noqa: D102
    def execute(self, sql: str, args: Sequence[Any] = ()) -> Any: ...  # noqa: D102


Write = Callable[[Callable[[Any], Any]], Awaitable[Any]]


class Once:
    """One request under its key."""

    def __init__(self, call: Call, key: str) -> None:
        self.call = call
        self.key = key
        self.digest = _digest(call)
        self.document: dict[str, Any] | None = None
        """The answer, once it is remembered."""

    def keep(self, tx: Local, item: Any) -> None:
        """Remember the answer, in the transaction that carries the request out."""
        self.document = document = answer_of(self.call.operation, tx.now_ms, item)
        secret = self.call.operation.secret
        tx.execute("DELETE FROM kept_answer WHERE at_ms < ?", (tx.now_ms - KEPT_MS,))
        tx.execute(
            "INSERT OR REPLACE INTO kept_answer VALUES (?, ?, ?, ?)",
            (self.key, self.digest, None if secret else json.dumps(document), tx.now_ms),
        )


class Answers:
    """The memory of one daemon."""

    def __init__(self, write: Write, clock: Clock) -> None:
        """``write``: of the mesh store; ``SCHEMA`` is its ``local_schema``'s."""
        self._write = write
        self._clock = clock
        self._running: set[str] = set()
        self._secrets: dict[str, dict[str, Any]] = {}

    async def answer(self, call: Call, handler: Callable[[Call], Awaitable[Any]]) -> Any:
        """Carry a call out and return its document; a repeated one gets the earlier answer.

        What a handler returns in another form than the table's (a stream) is passed through.
        Raises RequestProblem when the key was used for another request, or is in use now.
        """
        if call.key is None:
            return self._document(call, await handler(call))
        owned = f"{call.who}\n{call.key}"
        if owned in self._running:
            raise RequestProblem(
                "conflict",
                f"the request with the key {call.key[:40]!r} is being carried out now",
            )
        self._running.add(owned)
        try:
            once = Once(call, owned)
            before = await self._write(lambda tx: self._recall(tx, once))
            if before is not None:
                return before
            value = await handler(replace(call, keep=once.keep))
            return await self._kept(once, value)
        finally:
            self._running.discard(owned)

    def _document(self, call: Call, value: Any) -> Any:
        if call.operation.form not in ("list", "item"):
            return value
        return answer_of(call.operation, self._clock.now_ms(), value)

    async def _kept(self, once: Once, item: Any) -> dict[str, Any]:
        """Remember an answer, unless the handler's own transaction did, and return it."""
        if once.document is None:
            await self._write(lambda tx: once.keep(tx, item))
        assert once.document is not None
        if once.call.operation.secret:
            while len(self._secrets) >= SECRETS_MAX:
                self._secrets.pop(next(iter(self._secrets)))
            self._secrets[once.key] = once.document
        return once.document

    def _recall(self, tx: Local, once: Once) -> dict[str, Any] | None:
        found = tx.execute(
            "SELECT request, document FROM kept_answer WHERE key = ? AND at_ms >= ?",
            (once.key, tx.now_ms - KEPT_MS),
        ).fetchone()
        if found is None:
            return None
        shown = (once.call.key or "")[:40]
        if found[0] != once.digest:
            raise RequestProblem(
                "key-reused",
                f"the idempotency key {shown!r} was used for another request",
                "give each request a key of its own; repeat a request with all it had",
            )
        if found[1] is not None:
            document: dict[str, Any] = json.loads(found[1])
            return document
        if once.key in self._secrets:
            return self._secrets[once.key]
        raise RequestProblem(
            "conflict",
            f"the request with the key {shown!r} was carried out; its answer held a secret"
            " and is not kept",
        )


def _digest(call: Call) -> bytes:
    """Return what tells two requests apart; no password, since this is written down."""
    body = None if call.body is None else msgspec.structs.asdict(call.body)
    for field in ("idempotency_key", "password"):
        (body or {}).pop(field, None)
    said = [call.operation.id, dict(call.parts), call.query, body]
    return hashlib.sha256(msgspec.json.encode(said, order="sorted")).digest()
