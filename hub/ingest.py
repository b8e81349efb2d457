"""Fills the reporting store from the replicated rows, whenever they change.

It knows what rows become (``hub/proto/rollup.py``) and not where they come from. Rules: a scope
is read only when its mark (the heads of all its sets and the register's version) has moved; its
documents and the mark change in one transaction, and events go out after the commit, so a page
that reads on an event finds what the event was about.
"""

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Final, Protocol

import trio

from hub.live import EventBus
from hub.proto import rollup
from hub.store import ReportStore, end_if_broken
from mesh.host.clock import Clock
from mesh.host.first_of import first_of
from mesh.host.log import get_log
from mesh.proto import tables
from mesh.proto.codec import pack
from mesh.proto.order import Order, OrderRefused, open_order
from mesh.proto.register import Register
from mesh.store import MeshStore

PAUSE_S: Final = 0.1
"""Least time between two rounds: what comes in a burst is read at once."""
RETRY_S: Final = 5.0
"""After the reporting store could not be written."""
EVENTS_PER_SCOPE_MAX: Final = 100
"""More changes than this in one round become one event without an id."""
VERSION: Final = 5
"""Raised when ``rollup`` makes other documents of the same rows: everything is read again."""
log = get_log("ingest")


Heads = Mapping[str, Mapping[str, tuple[int, int]]]
"""Scope -> author -> (epoch, seq) of the author's set in it."""


class Rows(Protocol):
    """What the hub needs of the mesh store."""

    @property
    def version(self) -> int: ...  # noqa: D102

    async def wait_past(self, version: int) -> int: ...  # noqa: D102

    def rows(self, scope: str, table: str) -> Iterable[rollup.RowLike]: ...  # noqa: D102

    def authored(self, scope: str, table: str) -> Iterable[rollup.RowLike]: ...  # noqa: D102

    def heads(self) -> Heads: ...  # noqa: D102


class MeshRows:
    """The mesh store as this module sees it."""

    def __init__(self, store: MeshStore) -> None:
        self._store = store
        self.wait_past = store.wait_past
        self.rows = store.rows
        self.authored = store.authored

    @property
    def version(self) -> int:
        """Grows with every commit."""
        return self._store.version

    def heads(self) -> Heads:
        """Return how far every set has come."""
        found: dict[str, dict[str, tuple[int, int]]] = {}
        for set_id, signed in self._store.heads.items():
            found.setdefault(set_id.scope, {})[set_id.author] = signed.head.point
        return found


class Members(Protocol):
    """What the hub needs of the register."""

    @property
    def version(self) -> int: ...  # noqa: D102

    async def wait_past(self, version: int) -> int: ...  # noqa: D102

    @property
    def register(self) -> "Roster": ...  # noqa: D102


class Roster(Protocol):
    """Who belongs to the organisation."""

    def members(self) -> Sequence[rollup.MemberLike]: ...  # noqa: D102


class Ingest:
    """Keeps the reporting store in step."""

    def __init__(
        self,
        rows: Rows,
        members: Members,
        reports: ReportStore,
        bus: EventBus,
        clock: Clock,
        read_order: rollup.ReadOrder = lambda _row: None,
    ) -> None:
        self._read_order = read_order
        self._rows = rows
        self._members = members
        self._reports = reports
        self._bus = bus
        self._clock = clock
        self._limiter = trio.CapacityLimiter(1)
        self._reading = trio.Lock()

    async def run(
        self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Read once, then at every change."""
        while True:
            seen = (self._rows.version, self._members.version)
            try:
                await self.read_all()
            except sqlite3.Error as exc:  # a full disk must not end the hub: reports can wait
                end_if_broken(exc)
                log.error("reports not kept", error=exc)
                await trio.sleep(RETRY_S)
                seen = (-1, -1)
            task_status.started()
            task_status = trio.TASK_STATUS_IGNORED
            await trio.sleep(PAUSE_S)
            await self._wait_past(*seen)

    async def _wait_past(self, rows: int, members: int) -> None:
        await first_of(
            partial(self._rows.wait_past, rows), partial(self._members.wait_past, members)
        )

    async def read_all(self) -> int:
        """Read every scope whose mark moved; return how many documents changed."""
        async with self._reading:
            heads = self._rows.heads()
            count = await self._read(tables.FLEET, heads)
            for site in self._sites():
                await trio.lowlevel.checkpoint()
                count += await self._read(tables.site_scope(site), heads, site)
            return count

    async def settle(self) -> None:
        """Return when reports hold what was committed before: who wrote finds it at once."""
        try:
            await self.read_all()
        except sqlite3.Error as exc:
            log.error("reports not kept", error=exc)

    def _sites(self) -> list[str]:
        named = {row.key for row in self._rows.rows(tables.FLEET, tables.SITE)}
        return sorted(
            named | {member.site for member in self._members.register.members() if member.site}
        )

    async def _read(self, scope: str, heads: Heads, site: str | None = None) -> int:
        mark = self._mark(scope, heads.get(scope, {}))
        if self._reports.cursor(scope) == mark:
            return 0
        if site is None:
            wanted = rollup.fleet_documents(
                self._all(scope, rollup.FLEET_TABLES), self._members.register.members()
            )
        else:
            wanted = rollup.site_documents(
                site, self._all(scope, rollup.SITE_TABLES), self._read_order
            )
        changes = rollup.changes(self._reports.digests(scope), wanted)
        await trio.to_thread.run_sync(
            self._reports.apply, scope, changes, mark, self._clock.now_ms(),
            limiter=self._limiter,
        )  # fmt: skip
        self._publish(changes, site)
        return len(changes.put) + len(changes.drop)

    def _mark(self, scope: str, heads: Mapping[str, tuple[int, int]]) -> bytes:
        points = {author: list(point) for author, point in heads.items()}
        register = _facts(self._members) if scope == tables.FLEET else None
        return pack({"v": VERSION, "heads": points, "register": register})

    def _all(self, scope: str, names: Iterable[str]) -> list[rollup.RowLike]:
        found: list[rollup.RowLike] = []
        for name in names:
            per_author = name in tables.PER_AUTHOR
            found += (self._rows.authored if per_author else self._rows.rows)(scope, name)
        return found

    def _publish(self, changes: rollup.Changes, site: str | None) -> None:
        named = [(document.kind, document.id) for document in changes.put] + changes.drop
        if len(named) > EVENTS_PER_SCOPE_MAX:
            for kind in sorted({kind for kind, _ in named}):
                self._bus.publish(kind, id=None, site=site)
            return
        for kind, key in named:
            self._bus.publish(kind, id=key, site=site)


def _facts(members: Members) -> list[Any]:
    """Return what documents take from the register: versions count from each start."""
    return sorted(
        [m.node_id, m.site, m.status, m.kem_epoch, sorted(m.roles), m.name]
        for m in members.register.members()
    )


def order_reader(register: Register) -> rollup.ReadOrder:
    """Return what opens an ORDER row, also one that its site will refuse with a sentence."""

    def read(row: rollup.RowLike) -> Order | None:
        signed = row.body.get("signed")
        if not isinstance(signed, bytes):
            return None
        try:
            return open_order(signed, register, None)
        except OrderRefused as exc:
            return exc.order

    return read
