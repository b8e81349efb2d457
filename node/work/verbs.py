"""What a person says about a job: carried out by the job's runner, and written down.

It knows who answers; what a word makes of a job's row is decided in ``node/proto/``. Rules: a
job's runner carries a word out, others leave it to him; the outcome is a job row of its own,
written in the transaction that changes the job, so it happens once and can be read.
"""

import copy
from collections.abc import Callable, Mapping
from typing import Any, Final

import trio

from mesh.host.log import get_log
from mesh.proto import tables
from mesh.proto.order import (
    ARCHIVE,
    CANCEL,
    CONFIRM,
    HOLD,
    KILL,
    RETRY,
    SKIP,
    UNHOLD,
    Order,
)
from node.proto import job_words
from node.proto.job import cancel_row
from node.proto.plan import Step
from node.proto.server_view import server_view
from node.work.log import JobLog
from node.work.means import put_server_view
from node.work.orders import Orders
from node.work.ports import Tx
from node.work.rows import SiteRows, plan_of
from node.work.runner import JobRunner

log = get_log("jobs")

LIVE_S: Final = 2.0
"""How long a running job may take to take a word; one that hangs is asked again later, so that
other orders, a kill among them, get their turn."""


class Verbs:
    """Carries out orders about jobs at one node."""

    def __init__(
        self,
        rows: SiteRows,
        orders: Orders,
        runner: Callable[[str], JobRunner | None],
        took: Callable[[str], None],
        lines: JobLog,
    ) -> None:
        """``runner(job)``: what runs it here; ``took(job)``: it is ours now, look at it."""
        self.rows = rows
        self._orders, self._runner, self._took, self._lines = orders, runner, took, lines

    async def take(self, order: Order, waited_s: float) -> None:
        """Carry the order out when its job is ours; others leave it to the job's runner."""
        target = self.rows.job(str(order.params["job"]))
        if target is None or not self._answers_for(target, order, waited_s):
            return
        job_id, refusal, settled = target["id"], None, False
        runner = self._runner(job_id)
        if runner is not None and order.kind != KILL and not self._killed(runner):
            told = False
            with trio.move_on_after(LIVE_S):
                refusal, settled = await self._tell(runner, order)
                told = True
            if not told:
                return
        await self._write(order, target, refusal, settled)
        if runner is not None and self._killed(runner):
            runner.abandon()
        self._took(job_id)
        log.info("order taken", job=order.id, kind=order.kind, detail=job_id)

    async def _tell(self, runner: JobRunner, order: Order) -> tuple[str | None, bool]:
        """Say a word to a job that runs; return (refusal, nothing is left to be changed)."""
        if runner.job.ended:
            await runner.wait_over()  # its last words are being written
            return None, False
        row = copy.deepcopy(runner.job.row)
        match order.kind:
            case kind if kind == CANCEL:
                await runner.cancel(order.author)
                return None, False
            case kind if kind in (HOLD, UNHOLD):
                refusal = self._change(order, row, runner.job.plan, 0)
                if refusal is None and not await runner.hold(row["held"]):
                    return None, False  # it ended meanwhile: what its row says counts
                return refusal, True
            case _:
                refusal = self._change(order, row, runner.job.plan, 0)
                return refusal or f"the job is {row['state']}", True

    async def _write(
        self, order: Order, target: Mapping[str, Any], refusal: str | None, settled: bool
    ) -> None:
        """Change the job's row, unless that is done, and write the word's own."""
        scope, job_id = self.rows.scope, str(target["id"])

        def change(tx: Tx) -> str | None:
            known = tx.get(scope, tables.JOB, job_id)
            if known is None:
                return f"there is no job {job_id} any more"
            row = copy.deepcopy(dict(known.body))
            row["runner"] = self.rows.node_id
            steps = plan_of(row)
            refused = self._change(order, row, steps, tx.now_ms)
            if refused is None and row != known.body:
                tx.put(scope, tables.JOB, job_id, row)
                if order.kind in (CANCEL, KILL) and row["started_ms"] is not None:
                    put_server_view(tx, scope, row, server_view(row, steps))
                line = f"{order.kind.partition('.')[2]} by {order.author}{_why(order)}"
                self._lines.write_lines(tx, job_id, [(tx.now_ms, line)])
            return refused

        def whole(tx: Tx) -> None:
            said = refusal if settled else change(tx)
            verb = self._orders.verb_job(order, target, said, tx.now_ms)
            if order.kind == ARCHIVE:
                verb["archived_ms"] = tx.now_ms
            tx.put(scope, tables.JOB, order.id, verb)

        await self.rows.store.write(whole)

    def _change(
        self, order: Order, row: dict[str, Any], steps: tuple[Step, ...], now: int
    ) -> str | None:
        """Let a word change a job's row; return a refusal or None."""
        word, by = order.params, order.author
        if not steps and order.kind in (RETRY, SKIP, CONFIRM):
            return "it was refused as it is"
        match order.kind.partition(".")[2]:
            case "retry":
                return job_words.reopen(row, steps, now)
            case "skip":
                return job_words.skip(row, steps, word, by, now)
            case "confirm":
                return job_words.confirm(row, steps, word, by, now)
            case "kill":
                return job_words.kill(row, word, by, now)
            case "hold":
                return job_words.hold(row, word, by, now)
            case "unhold":
                return job_words.unhold(row)
            case "archive":
                return job_words.archive(row, now)
            case _:
                return _cancel(row, by, now)

    def _killed(self, runner: JobRunner) -> bool:
        """Whether the runner's job was killed: it writes nothing any more, its row counts."""
        row = self.rows.job(runner.id) or {}
        return row.get("killed_ms") != runner.job.row.get("killed_ms")

    def _answers_for(self, target: Mapping[str, Any], order: Order, waited_s: float) -> bool:
        """Whether it is ours to carry out: its job is ours, or the job's runner belongs to the
        site no more and the order's owner takes its place."""
        if target["runner"] in self.rows.site_nodes():
            return bool(target["runner"] == self.rows.node_id)
        return self._orders.runner_of(order.id, waited_s) == self.rows.node_id


def _cancel(row: dict[str, Any], by: str, now: int) -> str | None:
    if row["state"] in {"succeeded", "failed"}:
        return f"the job has {row['state']} already"
    if row["state"] != "cancelled":
        cancel_row(row, by, now)
    return None


def _why(order: Order) -> str:
    """Return what a word says besides the job, for the job's log."""
    said = [str(order.params[name]) for name in ("step", "reason") if order.params.get(name)]
    if "done" in order.params:
        said.insert(0, "it was done" if order.params["done"] else "it was not done")
    return f": {', '.join(said)}" if said else ""
