"""What all runners of a node share, and the two ways in which a runner is told to leave.

It knows no job. Rule: nothing here is made or changed by a runner.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from mesh.errors import MeshError
from mesh.proto import tables
from node.proto.agent_desk import AgentDesk, Command
from node.proto.job import Job
from node.work.erases import Erases
from node.work.log import JobLog
from node.work.ports import Holds, Limits, Receipts, Tx
from node.work.rows import SiteRows
from node.work.steps import Steps

ArgsFor = Callable[[Job, AgentDesk, Command], Mapping[str, Any]]


class Superseded(Exception):
    """The job's row names another runner; nothing was written."""


class NotHeld(Exception):
    """This node may not work on the job now; nothing was written."""


class StoodStill(Exception):
    """This process stood still and nobody else is known to know of the job: look again."""


@dataclass(frozen=True, kw_only=True)
class Means:
    """What all runners of a node share."""

    rows: SiteRows
    receipts: Receipts
    steps: Steps
    log: JobLog
    limits: Limits
    now_ms: Callable[[], int]
    others_connected: Callable[[], bool]
    """Whether another node of the site can be asked for a receipt."""
    stood_still: Callable[[], bool]
    """Whether others may have taken over meanwhile what they knew no job row of."""
    holds: Holds
    """Whether a job may be worked on here now."""
    erases: Erases
    args_for: ArgsFor
    """Arguments of an agent's command for its session."""

    async def wait_witness(self) -> str | None:
        """Return a node of the site that has what we wrote, None when none says so in time."""
        if not self.others_connected():
            return None
        scope = self.rows.scope
        epoch, seq = self.rows.store.head(scope)
        try:
            return await self.receipts.wait_receipt(scope, epoch, seq, self.limits.receipt_s)
        except MeshError:
            return None


def put_server_view(
    tx: Tx, scope: str, job: Mapping[str, Any], view: Mapping[str, Any]
) -> None:
    """Write what a job makes of its server, unless another job has the server now."""
    server = tx.get(scope, tables.SERVER, job["server"]) if view and job.get("server") else None
    if server is None or server.body.get("job") not in (None, job["id"]):
        return
    body = {**server.body, **view}
    if body != server.body:
        tx.put(scope, tables.SERVER, job["server"], {**body, "changed_ms": tx.now_ms})
