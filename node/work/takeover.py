"""Takes over the jobs of a node of the site that is gone, and goes on where they stopped.

It knows rows and the lease (``tenure.py``), not how a job runs. Rules: the heir is the
rendezvous owner of the job among the nodes that are heard and can open its secret; it writes
the row, with its own epoch, only when the site has granted it, and while this node holds it;
nothing of the job's steps is changed, but for one-shot steps in a site of two, so what was
under way is looked at before anything is done (``node/proto/job.py``).
"""

from collections.abc import Callable, Collection, Mapping
from typing import Any

import trio

from mesh.host.log import get_log
from mesh.proto import tables
from mesh.proto.rendezvous import owner
from node.proto.fenced import fenced
from node.proto.hold import doubted
from node.proto.job import TERMINAL
from node.proto.moving import elsewhere
from node.proto.tenure import Grant
from node.work.ports import Tx
from node.work.rows import SiteRows, plan_of
from node.work.tenure import SiteTenure, epoch_of

log = get_log("jobs")


class Takeover:
    """The heir's part; ``look`` is called each second."""

    def __init__(
        self,
        rows: SiteRows,
        tenure: SiteTenure,
        capable: Callable[[Mapping[str, Any]], Collection[str]],
        taken: Callable[[str, str], None],
        mine: Callable[[str], None],
    ) -> None:
        """``capable(job)``: nodes that could run it; ``taken(job, from)``: it is ours now;
        ``mine(job)``: it stands as ours, told each time."""
        self._rows, self._tenure = rows, tenure
        self._capable, self._taken, self._mine = capable, taken, mine
        self._seen: dict[str, float] = {}
        """Open jobs, and when we saw them first."""

    def elsewhere(self, job: Mapping[str, Any]) -> str | None:
        """Return the node that could do what this one cannot, or None."""
        return elsewhere(job, [n for n in self._capable(job) if self._tenure.heard(n)])

    async def look(self) -> None:
        """Take over what is due."""
        me, now = self._rows.node_id, trio.current_time()
        jobs = sorted(self._rows.jobs().items())
        rows = {name: row for name, row in jobs if row["state"] not in TERMINAL}
        self._seen = {name: self._seen.get(name, now) for name in rows}
        for job_id, row in rows.items():
            if not row.get("steps"):
                continue
            stands = self._tenure.stands(row)
            if stands.owner == me:
                if stands.epoch > epoch_of(row):  # granted, but we stopped before we wrote it
                    await self._write(job_id, row, stands)
                elif row["runner"] == me:
                    self._mine(job_id)
                continue
            if now < self._seen[job_id] + self._tenure.lease_s:
                continue  # its runner may have had nothing to renew for before
            server = self._rows.server(row.get("server")) or {}
            shut = fenced(row, server, plan_of(row), len(self._rows.site_nodes()))
            if not self._tenure.may_claim(stands.owner, shut):
                continue
            heirs = [n for n in self._capable(row) if n == me or self._tenure.heard(n)]
            if owner(heirs, job_id) != me:
                continue
            claim = await self._tenure.claim(job_id, stands, shut)
            if claim is not None:
                await self._write(job_id, row, claim)

    async def _write(self, job_id: str, known: Mapping[str, Any], claim: Grant) -> None:
        """Make the row ours, unless it has moved meanwhile."""
        if not self._tenure.holds({**known, "epoch": claim.epoch}):
            return  # somebody else was granted it since; if not, the next look writes it
        scope, alone = self._rows.scope, len(self._rows.site_nodes()) == 2

        def fn(tx: Tx) -> bool:
            row = tx.get(scope, tables.JOB, job_id)
            if row is None or row.body["state"] in TERMINAL:
                return False
            if epoch_of(row.body) >= claim.epoch or row.body["runner"] != known["runner"]:
                return False
            body = {**row.body, "runner": claim.owner, "epoch": claim.epoch}
            if alone:  # the other one may have begun what it could tell nobody
                body = doubted(body)
            tx.put(scope, tables.JOB, job_id, body)
            return True

        if await self._rows.store.write(fn):
            before = str(known["runner"])
            log.warning("job taken over", job=job_id, peer=before, epoch=claim.epoch)
            self._taken(job_id, before)
