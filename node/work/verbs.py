"""What a person says about a job: carried out by the job's runner, and written down.

It knows who answers; what a word makes of a job's row is decided in ``node/proto/``. Rules: a
job's runner carries a word out, others leave it to him; the outcome is a job row of its own,
written in the transaction that changes the job, so it happens once and can be read.
"""

from collections.abc import Callable, Mapping
from typing import Any

from mesh.host.clock import Clock
from mesh.host.log import get_log
from mesh.proto import tables
from mesh.proto.order import CANCEL, RETRY, Order
from node.proto.job import cancel_row, reopen
from node.proto.server_view import server_view
from node.work.orders import Orders
from node.work.ports import Tx
from node.work.rows import SiteRows, plan_of
from node.work.runner import JobRunner, put_server_view

log = get_log("jobs")


class Verbs:
    """Carries out orders about jobs at one node."""

    def __init__(
        self,
        rows: SiteRows,
        orders: Orders,
        runner: Callable[[str], JobRunner | None],
        took: Callable[[str], None],
        clock: Clock,
    ) -> None:
        """``runner(job)``: what runs it here; ``took(job)``: it is ours now, look at it."""
        self.rows = rows
        self._orders, self._runner, self._took, self._clock = orders, runner, took, clock

    async def take(self, order: Order, waited_s: float) -> None:
        """Carry the order out when its job is ours; others leave it to the job's runner."""
        target = self.rows.job(str(order.params["job"]))
        if target is None or not self._answers_for(target, order, waited_s):
            return
        job_id, error = target["id"], None
        runner = self._runner(job_id)
        if runner is not None and runner.job.ended:
            await runner.wait_over()  # its last words are being written
            runner = None
        if order.kind == CANCEL and runner is not None:
            await runner.cancel(order.author)
            await runner.wait_over()

        def fn(tx: Tx) -> str | None:
            row = dict(tx.get(self.rows.scope, tables.JOB, job_id).body)
            row["steps"] = [dict(entry) for entry in row["steps"]]
            row["runner"] = self.rows.node_id
            steps = plan_of(row)
            if order.kind == RETRY:
                refusal = reopen(row, steps, tx.now_ms) if steps else "it was refused as it is"
            elif row["state"] in {"succeeded", "failed"}:
                refusal = f"the job has {row['state']} already"
            elif row["state"] == "cancelled":
                return None
            else:
                cancel_row(row, order.author, tx.now_ms)
                refusal = None
                if row["started_ms"] is not None:
                    put_server_view(tx, self.rows.scope, row, server_view(row, steps))
            if refusal is None:
                tx.put(self.rows.scope, tables.JOB, job_id, row)
            return refusal

        def whole(tx: Tx) -> None:
            verb = self._orders.verb_job(order, target, fn(tx), tx.now_ms)
            tx.put(self.rows.scope, tables.JOB, order.id, verb)

        if order.kind == RETRY and runner is not None:
            error = (
                "the job is running; retry is for jobs that failed, parked or were cancelled"
            )
            verb = self._orders.verb_job(order, target, error, self._clock.now_ms())
            await self.rows.store.write(
                lambda tx: tx.put(self.rows.scope, tables.JOB, order.id, verb)
            )
            return
        await self.rows.store.write(whole)
        self._took(job_id)
        log.info("order taken", job=order.id, kind=order.kind, detail=job_id)

    def _answers_for(self, target: Mapping[str, Any], order: Order, waited_s: float) -> bool:
        """Whether it is ours to carry out: its job is ours, or the job's runner belongs to the
        site no more and the order's owner takes its place."""
        if target["runner"] in self.rows.site_nodes():
            return bool(target["runner"] == self.rows.node_id)
        return self._orders.runner_of(order.id, waited_s) == self.rows.node_id
