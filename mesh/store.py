"""The replicated store of a member: one SQLite file, one process, one writer.

It knows neither links nor what the rows mean. Rules: ``write`` returns after an fsynced commit,
never before; many writes share one commit, each in its own savepoint; a commit group ends with
signed heads for the scopes it touched; nobody sees a head that is not durable. A full disk
rolls the group back and the store goes on: who can say no lets StoreFull out, a service with
nobody to refuse uses ``write_when_room``; the first I/O error ends ``run`` with StoreBroken.
"""

import sqlite3
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Generic, Self, TypeVar

import trio

from mesh.errors import LocalError, Refused, StoreBroken, StoreDamaged, StoreFull
from mesh.host.clock import Clock, SteadyClock
from mesh.host.log import get_log
from mesh.host.sqlite_errors import mapped, mapping_errors
from mesh.own_sets import OwnSets
from mesh.proto.collect import Collector, Heir
from mesh.proto.evidence import Proof, holds
from mesh.proto.hlc import Hlc
from mesh.proto.intake import Delta, Outcome, Roster
from mesh.proto.replica import Replica
from mesh.proto.sets import Entry, SetId, SignedHead
from mesh.proto.storage import Reader, Stage
from mesh.room import Room
from mesh.store_file import (
    FileLock,
    get_meta,
    open_reader,
    open_writer,
    set_meta,
)
from mesh.store_sql import SqlStorage
from mesh.store_start import begin_time, claim_author, instead
from mesh.store_tx import RESERVED_PREFIX, Row, Tx, authored_rows, shown, shown_rows

__all__ = ["MeshStore", "Row", "Tx", "mark_restored"]

RESTORED: Final = (
    "this store was restored from a backup and has met no peer yet; wait, or start with"
    " --force-epoch if no other member is left"
)
GROUP_MAX: Final = 512
"""Writes in one commit."""
QUEUE_MAX: Final = 4096
"""Writes that wait; further writers wait at the door."""
CHANGES_KEPT: Final = 1024
"""Commits of which the changed sets are remembered for whoever lags behind."""

log = get_log("store")
T = TypeVar("T")
Changes = Mapping[SetId, SignedHead | None]


class _Pending(Generic[T]):
    """A write that waits for its commit."""

    __slots__ = ("done", "error", "fn", "value")

    def __init__(self, fn: Callable[[Tx], T]) -> None:
        self.fn = fn
        self.done = trio.Event()
        self.error: Exception | None = None
        self.value: T | None = None


class MeshStore:
    """See the module. Construct with ``open``; run ``run``; close with ``close``."""

    def __init__(
        self,
        path: Path,
        lock: FileLock,
        db: sqlite3.Connection,
        replica: Replica,
        clock: Clock,
        hub: bool,
    ) -> None:
        self.path = path
        self.room = Room(path.parent)
        self.author = replica.author
        self.version = 1
        self.heads: dict[SetId, SignedHead] = dict(replica.heads)
        self.proofs: dict[SetId, Proof] = dict(replica.proofs)
        self.damaged: list[SetId] = []
        self._lock, self._db, self._clock, self._hub = lock, db, clock, hub
        self._replica, self._collector = replica, Collector(replica)
        self._reader = open_reader(path)
        self._reading = SqlStorage(self._reader)
        self._server = open_reader(path, any_thread=True)
        self._serving = SqlStorage(self._server)
        self._writer_limiter = trio.CapacityLimiter(1)
        self._server_limiter = trio.CapacityLimiter(1)
        self._send, self._receive = trio.open_memory_channel[_Pending[Any]](QUEUE_MAX)
        self._running = False
        self._no_room = False
        self._awaits_peer = get_meta(db, "restored") is not None
        restored_at = int(get_meta(db, "admitted") or 0)
        self.own = OwnSets(replica.author, clock.now_ms(), restored_at)
        self._broken: StoreBroken | None = None
        self._changed = trio.Event()
        self._changes: deque[tuple[int, Changes]] = deque(maxlen=CHANGES_KEPT)

    # -- opening and closing ---------------------------------------------------------------

    @classmethod
    def open(
        cls,
        path: Path | str,
        *,
        author: str,
        sign_head: Callable[[bytes], bytes],
        clock: Clock,
        bytes_max: int | None = None,
        hub: bool = True,
    ) -> Self:
        """Open the store, check every page and every set; make it when there is none.

        ``sign_head`` returns the identity's signature over a head's bytes; ``bytes_max`` limits
        the file; ``hub``: whether the author is one (a put of a node into a table of hubs
        is a bug: peers refuse it). Raises Refused (another process holds it, not ours),
        StoreBroken (damaged).
        """
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path.with_name(path.name + ".lock"))
        try:
            db = open_writer(path, bytes_max)
            try:
                with mapping_errors():
                    claim_author(db, path, author)
                    storage = SqlStorage(db)
                    replica = Replica(storage, author, sign_head, Hlc())
                    if isinstance(clock, SteadyClock):
                        begin_time(db, storage, author, clock)
                    damaged = _load(db, path, replica, clock.now_ms())
                    store = cls(path, lock, db, replica, clock, hub)
            except BaseException:
                db.close()
                raise
        except StoreDamaged as exc:
            lock.release()
            raise StoreDamaged(f"{exc}: {instead(path, hub)}") from exc
        except BaseException:
            lock.release()
            raise
        store.damaged = damaged
        return store

    def close(self) -> None:
        """Let go of the file; harmless when done twice."""
        assert not self._running, "end run first"
        for connection in (self._server, self._reader, self._db):
            connection.close()
        self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def local_schema(self, statements: Sequence[str]) -> None:
        """Make local tables and indexes (``CREATE ... IF NOT EXISTS``), before ``run``."""
        assert not self._running, "local tables are made before the writer runs"
        with mapping_errors():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                for statement in statements:
                    assert "IF NOT EXISTS" in statement.upper()
                    assert RESERVED_PREFIX not in statement
                    self._db.execute(statement)
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    # -- reading ---------------------------------------------------------------------------

    def get(self, scope: str, table: str, key: str) -> Row | None:
        """Return the shown row of a key, as committed."""
        with mapping_errors():
            return shown(self._reading, scope, table, key)

    def rows(self, scope: str, table: str) -> list[Row]:
        """Return the shown rows of a merged table, every author's rows of another one."""
        with mapping_errors():
            return shown_rows(self._reading, scope, table)

    def authored(self, scope: str, table: str, key: str | None = None) -> list[Row]:
        """Return every author's own rows of a table, or of one key."""
        with mapping_errors():
            return authored_rows(self._reading, scope, table, key)

    def query(
        self, sql: str, args: Sequence[Any] | Mapping[str, Any] = ()
    ) -> list[tuple[Any, ...]]:
        """Read local tables, as committed."""
        with mapping_errors():
            return self._reader.execute(sql, args).fetchall()

    def head(self, scope: str) -> tuple[int, int]:
        """Return (epoch, seq) of our own set in a scope, (0, 0) before its first row."""
        signed = self.heads.get(SetId(self.author, scope))
        return signed.head.point if signed else (0, 0)

    def stage(self, set_id: SetId) -> Stage | None:
        """Return how far a staged delta has come."""
        with mapping_errors():
            return self._reading.stage(set_id)

    async def serve(self, fn: Callable[[Reader], T]) -> T:
        """Run a reading function in a thread, inside one read transaction."""
        return await trio.to_thread.run_sync(self._serve, fn, limiter=self._server_limiter)

    def _serve(self, fn: Callable[[Reader], T]) -> T:
        with mapping_errors():
            self._server.execute("BEGIN")
            try:
                return fn(self._serving)
            finally:
                self._server.execute("COMMIT")

    def now_ms(self) -> int:
        """Return the time as the store sees it, Unix milliseconds."""
        return self._clock.now_ms()

    # -- level -----------------------------------------------------------------------------

    async def wait_past(self, version: int) -> int:
        """Wait until something was committed since ``version``; return the present one."""
        await trio.lowlevel.checkpoint()
        while self.version <= version:
            await self._changed.wait()
        return self.version

    def changes_since(self, version: int) -> Changes | None:
        """Return the sets changed since a version, None when that is too long ago."""
        if version + len(self._changes) < self.version:
            return None
        found: dict[SetId, SignedHead | None] = {}
        for at, changes in self._changes:
            if at > version:
                found.update(changes)
        return found

    def entries_since(self, set_id: SetId, seq: int) -> list[Entry]:
        """Return the rows of a set above a seq, as committed; markers, retracted ones too."""
        with mapping_errors():
            return list(self._reading.entries_since(set_id, seq))

    # -- writing ---------------------------------------------------------------------------

    @property
    def full(self) -> bool:
        """True from a commit that found no room until there is some: writing is of no use."""
        return self.room.full

    @property
    def awaits_peer(self) -> bool:
        """True after a restore, until a peer was met: own writes are refused so long."""
        return self._awaits_peer

    @property
    def not_ready(self) -> str | None:
        """Why nothing can be written now, None when it can."""
        return RESTORED if self._awaits_peer else self.room.problem

    async def write(self, fn: Callable[[Tx], T]) -> T:
        """Run ``fn`` in the writer's thread; return its value once it is durable.

        An exception of ``fn`` takes back what ``fn`` did and comes out here. Raises StoreFull
        (nothing of ``fn`` stands), StoreBroken (the process must end), Refused.
        """
        if self._awaits_peer:
            raise Refused(RESTORED)
        return await self._submit(fn)

    async def write_when_room(self, fn: Callable[[Tx], T]) -> T:
        """Like ``write``, but a full disk is waited out; ``fn`` may run more than once."""
        while True:
            try:
                return await self.write(fn)
            except StoreFull:
                await self.room.wait()

    async def take(self, deltas: Sequence[Delta], roster: Roster, via: str) -> list[Outcome]:
        """Take deltas that a peer has sent over, durably; used by replication alone."""
        outcomes = await self._submit(lambda tx: tx.take(deltas, roster, via))
        for delta, outcome in zip(deltas, outcomes, strict=True):
            if outcome is Outcome.TAKEN_BACK:
                floor, now_ms = delta.signed.head.floor, self._clock.now_ms()
                self.own.on_taken_back(floor, self._awaits_peer, now_ms)
        return outcomes

    async def convict(self, proofs: Sequence[Proof], roster: Roster) -> int:
        """Keep the proofs against authors that hold; return how many do not."""
        true = [proof for proof in proofs if holds(proof, roster.verify)]
        if any(proof.id not in self.proofs for proof in true):
            await self._submit(lambda tx: tx.convict(true))
        return len(proofs) - len(true)

    async def collect(self, roster: Roster, heir: Heir) -> int:
        """Let go of rows that nobody needs; used by replication alone."""
        return (
            0 if self._awaits_peer else await self._submit(lambda tx: tx.collect(roster, heir))
        )

    async def admit_writes(self) -> None:
        """A peer was met (or the operator forces it): own writes go on, in a new epoch."""

        def admit(tx: Tx) -> int:
            tx.renew()
            set_meta(self._db, "restored", None)
            set_meta(self._db, "admitted", str(self._replica.hlc.last))
            return self._replica.hlc.last

        while self._awaits_peer:
            try:
                self.own.admitted = await self._submit(admit)
                self._awaits_peer = False
                self._publish({})  # who waits for this sees it now
            except StoreFull:
                await self.room.wait()

    async def _submit(self, fn: Callable[[Tx], T]) -> T:
        if self._broken is not None:
            raise self._broken
        pending = _Pending(fn)
        try:
            await self._send.send(pending)
        except trio.BrokenResourceError:
            raise Refused("the store has stopped") from None
        await pending.done.wait()
        if pending.error is not None:
            raise pending.error
        return pending.value  # type: ignore[return-value]

    async def run(
        self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Be the one writer until cancelled; raises StoreBroken at the first I/O error."""
        assert not self._running, "one writer"
        self._running = True
        task_status.started()
        try:
            while True:
                group = [await self._receive.receive()]
                while len(group) < GROUP_MAX:
                    try:
                        group.append(self._receive.receive_nowait())
                    except trio.WouldBlock:
                        break
                await self._commit(group)
        finally:
            self._running = False
            self._fail_waiting()

    async def _commit(self, group: list[_Pending[Any]]) -> None:
        changes: Changes | None = None
        with trio.CancelScope(shield=True):
            changes = await trio.to_thread.run_sync(
                self._write_group, group, limiter=self._writer_limiter
            )
        self._publish(changes)
        if self._no_room:
            self.room.on_full()
        elif changes is not None:
            self.room.on_written()
        for pending in group:
            pending.done.set()
        if self._broken is not None:
            raise self._broken

    def _publish(self, changes: Changes | None) -> None:
        """Show what is durable now."""
        for set_id in self._replica.proofs.keys() - self.proofs.keys():
            self.proofs[set_id] = self._replica.proofs[set_id]
            log.error("two histories of one author", node=set_id.author, scope=set_id.scope)
        if changes is not None:
            for set_id, signed in changes.items():
                if signed is None:
                    self.heads.pop(set_id, None)
                else:
                    self.heads[set_id] = signed
            self.version += 1
            self._changes.append((self.version, changes))
            self._changed.set()
            self._changed = trio.Event()

    def _fail_waiting(self) -> None:
        """Nobody will write any more: say so to those who wait."""
        error = self._broken or Refused("the store has stopped")
        while True:
            try:
                pending = self._receive.receive_nowait()
            except trio.WouldBlock:
                break
            pending.error = error
            pending.done.set()
        self._receive.close()

    # -- in the writer's thread ------------------------------------------------------------

    def _write_group(self, group: list[_Pending[Any]]) -> Changes | None:
        """Commit a group; None when nothing changed or nothing stands."""
        self._no_room = False
        before = self._db.total_changes
        try:
            self._db.execute("BEGIN IMMEDIATE")
            now_ms = self._clock.now_ms()
            tx = Tx(self._replica, self._collector, self._db, now_ms, self._hub)
            for pending in group:
                self._run_one(pending, tx)
            self._replica.seal(now_ms)
            self._db.execute("COMMIT")
        except (sqlite3.Error, LocalError) as exc:
            self._roll_back(group, exc)
            return None
        changes = self._replica.commit()
        return changes if self._db.total_changes != before else None

    def _run_one(self, pending: _Pending[Any], tx: Tx) -> None:
        """Run one write in its savepoint; errors of the disk come out, others stay with it."""
        mark = self._replica.mark()
        self._db.execute("SAVEPOINT one")
        try:
            pending.value = pending.fn(tx)
        except Exception as exc:  # it belongs to the caller, whatever it is
            if isinstance(exc, sqlite3.Error) and mapped(exc) is not None:
                raise
            self._db.execute("ROLLBACK TO one")
            self._forget(mark)
            pending.error = exc
        self._db.execute("RELEASE one")

    def _roll_back(self, group: list[_Pending[Any]], exc: Exception) -> None:
        error = mapped(exc) if isinstance(exc, sqlite3.Error) else None
        if error is None:
            error = StoreBroken(f"the store cannot commit: {exc}")
        self._no_room = isinstance(error, StoreFull)
        if isinstance(error, StoreBroken):
            self._broken = error
        error.__cause__ = exc
        try:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
        except sqlite3.Error as again:
            self._broken = StoreBroken(f"the store cannot roll back: {again}")
        self._forget(0)
        for pending in group:
            pending.error = pending.error or error

    def _forget(self, mark: int) -> None:
        storage = self._replica.storage
        assert isinstance(storage, SqlStorage)
        storage.forget_ids()
        self._replica.undo_to(mark)


def mark_restored(path: Path, author: str) -> None:
    """After a backup was put in place: own writes wait until a peer was met."""
    lock = FileLock(path.with_name(path.name + ".lock"))
    try:
        db = open_writer(path, None)
        try:
            with mapping_errors():
                claim_author(db, path, author)
                set_meta(db, "restored", "1")
        finally:
            db.close()
    finally:
        lock.release()


def _load(db: sqlite3.Connection, path: Path, replica: Replica, now_ms: int) -> list[SetId]:
    """Rebuild all hash trees; forget damaged sets of others (peers have them)."""
    damaged = replica.load(now_ms)
    for set_id in damaged:
        if set_id.author == replica.author:
            raise StoreDamaged(
                f"the store {path} is damaged (our own rows in scope {set_id.scope} are not"
                " what we signed)"
            )
    if damaged:
        log.error("store damaged", path=path, count=len(damaged), detail="asked for again")
        db.execute("BEGIN IMMEDIATE")
        for set_id in damaged:
            replica.forget(set_id)
        db.execute("COMMIT")
        replica.commit()
    return damaged
