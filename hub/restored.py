"""After a restore: when writing goes on, what came back, and what nobody can account for.

It knows no backup file; ``restore.py`` left a small report beside the data, which this keeps
until somebody has read it. Rules: this hub writes nothing before it has met, for each scope
that it ever wrote, a member that carries it (or the operator forces it); rows of ours that are
younger than the backup and older than that moment are what came back; what reached no other
machine is lost, so the report says between which moments, and which sites were not met yet.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

import trio

from hub.errors import NotFound
from hub.proto.rollup import ReadOrder
from hub.store import ReportStore
from mesh.host.clock import Clock
from mesh.host.files import write_json
from mesh.host.log import get_log
from mesh.proto import tables
from mesh.proto.codec import unpack_map
from mesh.proto.hlc import milliseconds
from mesh.proto.register import Register
from mesh.proto.sets import MARKER, ROW_BYTES_MAX, SetId
from mesh.proto.storage import Reader
from mesh.rest.types import RestoredRow, RestoreReport
from mesh.store import MeshStore, Row
from mesh.sync import Replication

REPORT_FILE: Final = "restore-report.json"
ROWS_MAX: Final = 2000
"""Rows that the report names; of further ones it gives the number."""
LOOK_S: Final = 5.0
FORCE: Final = "if no other member is left, start with rackmesh hub up --force-epoch"
log = get_log("restore")
Json = dict[str, Any]


@dataclass(slots=True, kw_only=True)
class RestoreDesk:
    """The report of the last restore of this hub, if there is one."""

    path: Path
    store: MeshStore
    replication: Replication
    register: Register
    reports: ReportStore
    read_order: ReadOrder
    clock: Clock
    force: bool
    _facts: Json | None = field(default=None, init=False)
    _seen: tuple[Any, ...] = field(default=(), init=False)

    def __post_init__(self) -> None:
        """Read the report; the first time, note how far the backup reached."""
        try:
            self._facts = json.loads(self.path.read_text())
        except FileNotFoundError:
            return
        except (OSError, ValueError) as exc:
            log.error("restore report not readable", path=self.path, error=exc)
            return
        if self._facts is not None and "floor" not in self._facts:
            floors = [signed.head.floor for signed in self._own_heads()]
            self._facts |= {"floor": max(floors, default=0), "rows": {}, "more": 0, "met": []}

    # -- the service -----------------------------------------------------------------------

    async def run(self) -> None:
        """Let writing go on when it may, and follow what comes back."""
        if self.store.awaits_peer and self.force:
            log.warning("restored, going on because --force-epoch was given")
            await self.store.admit_writes()
            self._note(forced=True)
        elif self.store.awaits_peer:
            log.warning("restored, waiting for a peer", detail=FORCE)
            await self.replication.admit_if_met()
        while self._facts is not None:
            version = self.store.version
            await self._look()
            with trio.move_on_after(LOOK_S):
                await self.store.wait_past(version)

    async def _look(self) -> None:
        met = self._met_sites()
        seen = (self.store.own.taken_back, self.store.awaits_peer, tuple(met))
        if self._facts is None or seen == self._seen:
            return
        if not self.store.awaits_peer and not self._facts.get("went_on_ms"):
            self._note(went_on_ms=self.clock.now_ms())
            log.info("writing goes on after the restore")
        limit = None if self.store.awaits_peer else self.store.own.admitted
        scan = partial(
            _scan, self._own_scopes(), self.store.author, self._facts["floor"], limit
        )
        found = await self.store.serve(scan)
        rows: Json = self._facts["rows"]
        more = 0
        for row in found:
            key = f"{row.scope} {row.table} {row.key}"
            if key in rows or len(rows) < ROWS_MAX:
                rows[key] = self._told(row)
            else:
                more += 1
        self._note(rows=rows, more=max(more, self._facts["more"]), met=met)
        self._seen = seen

    def _told(self, row: Row) -> RestoredRow:
        what = ""
        if row.table == tables.ORDER:
            order = self.read_order(row)
            what = f"{order.kind} by {order.author}" if order else "an order"
        site = row.scope.removeprefix("site:") if row.scope.startswith("site:") else ""
        return RestoredRow(
            at_ms=milliseconds(row.hlc), site=site, table=row.table, key=row.key, what=what
        )

    def _note(self, **facts: Any) -> None:
        """Keep what became known; a full disk keeps it in memory."""
        if self._facts is None:
            return
        self._facts |= facts
        try:
            write_json(self.path, self._facts)
        except OSError as exc:
            log.warning("restore report not kept", path=self.path, error=exc.strerror)

    def dismiss(self) -> None:
        """Somebody has read it: forget it. NotFound when there is none."""
        self._known()
        self._facts = None
        self.path.unlink(missing_ok=True)

    # -- what is said ----------------------------------------------------------------------

    def report(self) -> RestoreReport:
        """Return the report; NotFound when there is none."""
        facts = self._known()
        rows = sorted(facts["rows"].values(), key=lambda row: row["at_ms"])
        orders = [row for row in rows if row["table"] == tables.ORDER]
        last_ms = max([row["at_ms"] for row in rows], default=facts["backup_ms"])
        return RestoreReport(
            state="waits" if self.store.awaits_peer else "went on",
            forced=bool(facts.get("forced")),
            backup_ms=facts["backup_ms"],
            restored_ms=facts["restored_ms"],
            went_on_ms=facts.get("went_on_ms"),
            waits_for=self._waits_for(),
            got_back=rows,
            got_back_more=facts["more"],
            orders_got_back=len(orders),
            sites_not_met=self._sites_not_met(),
            lost_from_ms=last_ms,
            lost_until_ms=facts["restored_ms"],
            jobs_without_order=self._jobs_without_order(),
            assets_not_inside=facts.get("assets", []),
        )

    def problems(self) -> list[str]:
        """Return what /status says of it."""
        found: list[str] = []
        twin = self.store.own.twin_problem(self.clock.now_ms())
        found += [twin] if twin else []
        if self.store.awaits_peer:
            missing = ", ".join(self._waits_for()) or "a member"
            found.append(
                f"restored: this hub writes nothing before it has met {missing}; {FORCE}"
            )
        elif self._facts is not None:
            count = len(self._facts["rows"]) + self._facts["more"]
            unmet = self._sites_not_met()
            missing = f"; not met yet: {', '.join(unmet)}" if unmet else ""
            found.append(
                f"restored from a backup: {count} rows came back from others{missing};"
                " read rackmesh hub restore-report, then dismiss it"
            )
        return found

    def _known(self) -> Json:
        if self._facts is None:
            raise NotFound("this hub was not restored, or the report was dismissed")
        return self._facts

    def _own_heads(self) -> Iterator[Any]:
        return (s for (author, _), s in self.store.heads.items() if author == self.store.author)

    def _own_scopes(self) -> list[str]:
        return [signed.head.scope for signed in self._own_heads()]

    def _waits_for(self) -> list[str]:
        if not self.store.awaits_peer:
            return []
        return sorted({_carrier(scope) for scope in self.replication.unmet_scopes()})

    def _met_sites(self) -> list[str]:
        """Return the sites of which a node has shown all it has since the restore."""
        met = set(self._facts["met"]) if self._facts else set()
        for node in self.replication.met_peers:
            member = self.register.member(node)
            if member is not None and member.site:
                met.add(member.site)
        return sorted(met)

    def _sites_not_met(self) -> list[str]:
        sites = {m.site for m in self.register.members() if m.status == "member" and m.site}
        return sorted(sites - set(self._met_sites()))

    def _jobs_without_order(self) -> list[str]:
        """Return the jobs whose order stands nowhere that this hub has met."""
        missing: list[str] = []
        for scope in self._own_scopes():
            if not scope.startswith("site:"):
                continue
            orders = {row.key for row in self.store.rows(scope, tables.ORDER)}
            jobs = self.store.rows(scope, tables.JOB)
            missing += [row.key for row in jobs if row.key not in orders]
        return sorted(missing)[:ROWS_MAX]


def _carrier(scope: str) -> str:
    kind, _, name = scope.partition(":")
    return (
        f"a node of site {name}"
        if kind == "site"
        else (f"node {name[:8]}" if kind == "pair" else "another member")
    )


def _scan(
    scopes: list[str], author: str, floor: int, limit: int | None, reader: Reader
) -> list[Row]:
    """Return own rows with floor < stamp <= limit."""
    found: list[Row] = []
    for scope in scopes:
        for entry in reader.entries(SetId(author, scope)):
            late = limit is not None and entry.hlc > limit
            if entry.hlc <= floor or late or entry.body in (None, MARKER):
                continue
            assert entry.body is not None
            body = unpack_map(entry.body, ROW_BYTES_MAX)
            found.append(Row(author, scope, entry.table, entry.key, entry.seq, entry.hlc, body))
    return found
