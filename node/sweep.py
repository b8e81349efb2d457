"""Ends rows that have had their time: the shell of ``node/proto/sweep.py``.

It knows tables and scopes, no rule of its own. Rules: a row that has changed since it was
judged stays; job logs go with their jobs, at each node its own; a full disk or a store that
waits for a peer puts a sweep off, the next one finds the same rows.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import trio

from mesh.errors import Refused, StoreFull
from mesh.host.clock import Clock
from mesh.host.log import get_log
from mesh.proto import tables
from mesh.proto.merge import is_merged
from mesh.proto.rendezvous import owner
from mesh.store import MeshStore, Tx
from node.proto.sweep import DAY_MS, Gone, Known, decide, to_archive

SWEEP_S: Final = 600.0
log = get_log("sweep")


class Sweeper:
    """Sweeps one site's rows from one node.

    ``alive()``: the nodes of the site that count now; ``named()``: asset id by verified name.
    """

    def __init__(
        self,
        store: MeshStore,
        site: str,
        clock: Clock,
        alive: Callable[[], Sequence[str]],
        named: Callable[[], Mapping[str, str]],
        archive_days: int = 0,
    ) -> None:
        """``archive_days``: age at which ended jobs leave the lists; 0: never."""
        self._archive_ms = archive_days * DAY_MS
        self._store, self._clock = store, clock
        self._scope = tables.site_scope(site)
        self._alive, self._named = alive, named

    async def run(self) -> None:
        """Sweep every ten minutes until cancelled."""
        while True:
            await trio.sleep(SWEEP_S)
            try:
                await self.sweep()
            except (StoreFull, Refused) as exc:
                log.warning("rows not swept", error=exc)

    async def sweep(self) -> int:
        """Sweep once; return how many rows went."""
        known = self._known()
        found, old = decide(known), to_archive(known)

        def end(tx: Tx) -> int:
            count = sum(self._end(tx, gone) for gone in found)
            for one in old:
                self._archive(tx, one)
            _cut_logs(tx, {row.key for row in tx.rows(self._scope, tables.JOB)})
            return count

        count = await self._store.write(end)
        if count:
            log.info("rows ended", count=count)
        return count

    def _known(self) -> Known:
        store, scope, node = self._store, self._scope, self._store.author
        return Known(
            node=node,
            owner=owner([*self._alive(), node], "sweep") == node,
            now_ms=self._clock.now_ms(),
            jobs=store.rows(scope, tables.JOB),
            orders=store.rows(scope, tables.ORDER),
            servers=store.rows(scope, tables.SERVER),
            inventories=store.rows(scope, tables.INVENTORY),
            sightings=store.authored(scope, tables.SIGHTING),
            budgets=store.authored(scope, tables.BUDGET),
            claims=store.authored(tables.FLEET, tables.ASSET),
            bmcs=store.authored(scope, tables.BMC_SIGHTING),
            named=self._named(),
            alive=frozenset(self._alive()),
            archive_ms=self._archive_ms,
        )

    def _archive(self, tx: Tx, old: Gone) -> None:
        row = tx.get(self._scope, tables.JOB, old.key)
        if row is not None and row.hlc == old.hlc:
            body = {**row.body, "archived_ms": tx.now_ms}
            tx.put(self._scope, tables.JOB, old.key, body)

    def _end(self, tx: Tx, gone: Gone) -> bool:
        scope = tables.FLEET if gone.table == tables.ASSET else self._scope
        merged = is_merged(gone.table)
        row = (tx.get if merged else tx.own)(scope, gone.table, gone.key)
        if row is None or row.hlc != gone.hlc:
            return False
        if gone.table == tables.ORDER and tx.get(scope, tables.JOB, gone.key) is not None:
            return False  # the job was taken up again and needs its order
        (tx.delete if merged else tx.drop)(scope, gone.table, gone.key)
        return True


def _cut_logs(tx: Tx, jobs: set[str]) -> None:
    """Let the logs of jobs go that are no more."""
    logged = [str(job) for (job,) in tx.execute("SELECT DISTINCT job FROM job_log").fetchall()]
    for job in logged:
        if job not in jobs:
            tx.execute("DELETE FROM job_log WHERE job = ?", (job,))
