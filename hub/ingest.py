"""Fills the reporting store from the replicated rows, whenever they change.

It knows what rows become (``hub/proto/rollup.py``) and not where they come from. Rules: a scope
is read only when its mark (the heads of all its sets and the register's version) has moved; its
documents and the mark change in one transaction, and events go out after the commit, so a page
that reads on an event finds what the event was about.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Protocol

import trio

from hub.live import EventBus
from hub.proto import rollup
from hub.store import ReportStore
from mesh.host.clock import Clock
from mesh.host.log import get_log
from mesh.proto import tables
from mesh.proto.codec import pack

PAUSE_S: Final = 0.1
"""Least time between two rounds: what comes in a burst is read at once."""
EVENTS_PER_SCOPE_MAX: Final = 100
"""More changes than this in one round become one event without an id."""
VERSION: Final = 1
"""Raised when ``rollup`` makes other documents of the same rows: everything is read again."""
log = get_log("ingest")


class Rows(Protocol):
    """What the hub needs of the mesh store."""

    @property
    def version(self) -> int: ...  # noqa: D102

    async def wait_past(self, version: int) -> int: ...  # noqa: D102

    def rows(self, scope: str, table: str) -> Iterable[rollup.RowLike]: ...  # noqa: D102

    def authored(self, scope: str, table: str) -> Iterable[rollup.RowLike]: ...  # noqa: D102

    def heads(self, scope: str) -> Mapping[str, tuple[int, int]]: ...  # noqa: D102


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
        self, rows: Rows, members: Members, reports: ReportStore, bus: EventBus, clock: Clock
    ) -> None:
        self._rows = rows
        self._members = members
        self._reports = reports
        self._bus = bus
        self._clock = clock
        self._limiter = trio.CapacityLimiter(1)

    async def run(
        self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Read once, then at every change."""
        while True:
            seen = (self._rows.version, self._members.version)
            await self.read_all()
            task_status.started()
            task_status = trio.TASK_STATUS_IGNORED
            await trio.sleep(PAUSE_S)
            await self._wait_past(*seen)

    async def _wait_past(self, rows: int, members: int) -> None:
        async with trio.open_nursery() as nursery:

            async def either(source: Rows | Members, version: int) -> None:
                await source.wait_past(version)
                nursery.cancel_scope.cancel()

            nursery.start_soon(either, self._rows, rows)
            nursery.start_soon(either, self._members, members)

    async def read_all(self) -> int:
        """Read every scope whose mark moved; return how many documents changed."""
        count = await self._read(tables.FLEET)
        for site in self._sites():
            await trio.lowlevel.checkpoint()
            count += await self._read(tables.site_scope(site), site)
        return count

    def _sites(self) -> list[str]:
        named = {row.key for row in self._rows.rows(tables.FLEET, tables.SITE)}
        return sorted(
            named | {member.site for member in self._members.register.members() if member.site}
        )

    async def _read(self, scope: str, site: str | None = None) -> int:
        mark = self._mark(scope)
        if self._reports.cursor(scope) == mark:
            return 0
        if site is None:
            wanted = rollup.fleet_documents(
                self._all(scope, rollup.FLEET_TABLES), self._members.register.members()
            )
        else:
            wanted = rollup.site_documents(site, self._all(scope, rollup.SITE_TABLES))
        changes = rollup.changes(self._reports.digests(scope), wanted)
        await trio.to_thread.run_sync(
            self._reports.apply, scope, changes, mark, self._clock.now_ms(),
            limiter=self._limiter,
        )  # fmt: skip
        self._publish(changes, site)
        return len(changes.put) + len(changes.drop)

    def _mark(self, scope: str) -> bytes:
        heads = {author: list(head) for author, head in self._rows.heads(scope).items()}
        register = _facts(self._members) if scope == tables.FLEET else None
        return pack({"v": VERSION, "heads": heads, "register": register})

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
        [member.node_id, member.site, member.status, sorted(member.roles), member.name]
        for member in members.register.members()
    )
