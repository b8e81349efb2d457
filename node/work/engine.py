"""The work service of a node: takes orders, begins jobs, resumes them, answers about them.

It knows when to look and whom to tell; the rules are in ``orders.py`` and the cores. Rules: a
job runs only at the node that stands in its row, while the site renews that node's lease; on
start every job of ours that has not ended goes on; on shutdown nothing is written, a job is
resumable at any time; while the disk is full orders and jobs stand still, and go on from their
rows when there is room."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

import trio

from mesh.errors import Refused, StoreFull
from mesh.host.clock import Clock
from mesh.host.first_of import first_of
from mesh.host.log import get_log
from mesh.proto import tables
from mesh.proto.order import HAND_ON, JOB_VERBS, Order, OrderRefused
from node.hooks.desk import HookDesk, HookTools, playbooks_of
from node.proto import lifecycle
from node.proto.hold import witnessed
from node.proto.job import TERMINAL
from node.work.agent_args import AgentArgs
from node.work.bmc_desk import BmcDesk, Look
from node.work.capabilities import Capabilities
from node.work.discs import DiscDesk, Places
from node.work.erases import Erases
from node.work.hand_on import CopyFor, HandOn
from node.work.keyring import Keyring
from node.work.log import SCHEMA, JobLog, Line, log_request
from node.work.logins import Logins, MakeCopies
from node.work.means import Means
from node.work.net_boot import assets_of
from node.work.orders import Orders, Verdict, ended
from node.work.ports import (
    AssetCache,
    Assets,
    Credentials,
    Limits,
    Members,
    OpenBmc,
    OpenOrder,
    Peers,
    Receipts,
    SiteSecrets,
    Store,
    Tx,
)
from node.work.rows import SiteRows
from node.work.runner import JobRunner
from node.work.scan import ScanFrom
from node.work.standstill import Standstill
from node.work.steps import Steps
from node.work.takeover import Takeover
from node.work.tenure import SiteTenure, ours
from node.work.verbs import Verbs

log = get_log("jobs")

FOLLOW_POLL_S: Final = 0.5
TAKEOVER_S: Final = 1.0
REFUSED_MAX: Final = 10_000
"""Orders that are remembered as refused; beyond it all are looked at again."""


class Work:
    """The service; ``run`` is essential: its failure ends the process."""

    _nursery: trio.Nursery
    _policy_told: bool = False

    def __init__(
        self,
        *,
        node_id: str,
        site: str,
        store: Store,
        members: Members,
        peers: Peers,
        receipts: Receipts,
        open_order: OpenOrder,
        open_bmc: OpenBmc,
        look: Look | None = None,
        credentials: Credentials,
        assets: Assets,
        cache: AssetCache,
        secrets: SiteSecrets,
        readable: Callable[[], Mapping[str, int]],
        copy_for: CopyFor,
        make_copies: MakeCopies,
        sign_erase: Callable[[Mapping[str, Any]], bytes],
        clock: Clock,
        ramdisk: Path | None = None,
        destructive_per_hour: int = 5,
        limits: Limits | None = None,
        places: Places | None = None,
        scan_from: ScanFrom | None = None,
        hooks: HookTools | None = None,
    ) -> None:
        """``readable()``: ids and versions of the secrets that ``credentials`` can open."""
        self.limits = limits or Limits()
        self.rows = SiteRows(store, members, site, node_id)
        self.capabilities = Capabilities(secrets, site)
        self.peers, self.credentials = peers, credentials
        self.bmcs = BmcDesk(self.rows, open_bmc, look, credentials, peers, self.now_ms)
        self._store = store
        self._open_order, self._clock = open_order, clock
        self._start_s, self._start_ms = trio.current_time(), clock.now_ms()
        self.log = JobLog(store, self.limits.log_lines_max)
        store.local_schema(SCHEMA)
        self._keyring = Keyring(self.rows, readable)
        self._orders = Orders(
            self.rows, limits=self.limits, destructive_per_hour=destructive_per_hour,
            started_ms=self._start_ms, connected=self._connected, holders=self._keyring.holders,
        )  # fmt: skip
        self._still = Standstill(self.rows, receipts, self.limits, clock, self._connected)
        self._hand_on = HandOn(self.rows, self._orders, self._keyring.holders, copy_for)
        self.discs = DiscDesk(self.rows, self.capabilities, places or Places(), self.now_ms)
        self.tenure = SiteTenure(self.rows, peers, self.limits.tenure, self._tenure_changed)
        able = self._orders.able_to_run
        self._takeover = Takeover(self.rows, self.tenure, able, self._took_over, self._mine)
        holds, self._could_work = self.tenure.holds, False
        steps = Steps(
            rows=self.rows, open_bmc=open_bmc, credentials=credentials, assets=assets,
            cache=cache, limits=self.limits, holds=holds, elsewhere=self._takeover.elsewhere,
            logins=Logins(self.rows, open_bmc, credentials, make_copies, holds),
            discs=self.discs, scan_from=scan_from or ScanFrom(),
            hooks=HookDesk(hooks, site, self.log.add, self.now_ms),
        )  # fmt: skip
        self.erases = Erases(self.rows, sign_erase, ramdisk)
        self._means = self._make_means(receipts, steps)
        self._runners: dict[str, JobRunner] = {}
        self._refused: dict[str, str] = {}
        self._settled: set[str] = set()
        """Orders that have a job."""
        self._ours: set[str] = set()
        """Jobs of ours that may need a runner."""
        self._first_seen: dict[str, float] = {}
        self._bell = trio.Event()
        self._verbs = Verbs(self.rows, self._orders, self.runner, self._took, self.log)

    def _make_means(self, receipts: Receipts, steps: Steps) -> Means:
        """Return what all runners share."""
        args = AgentArgs(
            self.rows, self.capabilities, self.order_params, self.discs, self.now_ms
        )
        return Means(
            rows=self.rows, receipts=receipts, steps=steps, log=self.log, limits=self.limits,
            now_ms=self.now_ms, others_connected=lambda: bool(self._connected()),
            stood_still=self._still.stood_still, erases=self.erases,
            holds=self.tenure.holds, args_for=args.args_for,
        )  # fmt: skip

    # -- for other rooms -------------------------------------------------------------------

    def now_ms(self) -> int:
        """Return Unix milliseconds that never go back while this process lives."""
        return self._start_ms + int((trio.current_time() - self._start_s) * 1000)

    def holders(self) -> dict[str, frozenset[str]]:
        """Return, by secret, the active nodes of the site that can open it."""
        return self._keyring.holders()

    def runner(self, job_id: str) -> JobRunner | None:
        """Return the runner of a job that runs here."""
        return self._runners.get(job_id)

    async def submit(
        self, *signed: bytes, also: Callable[[Tx], None] = lambda _tx: None
    ) -> list[str]:
        """Take signed orders of this site, all or none; return their ids, which will be jobs'.

        ``also`` is written with them. Raises Refused with one sentence when it is plain that
        one cannot be carried out. An order that was given before is carried out once.
        """
        orders = [self._open_order(data, self._clock.now_ms()) for data in signed]
        for order in orders:
            if self._store.get(self.rows.scope, tables.ORDER, order.id) is None:
                self._refuse_early(order)

        def fn(tx: Tx) -> None:
            for order, data in zip(orders, signed, strict=True):
                if tx.get(self.rows.scope, tables.ORDER, order.id) is None:
                    body = {"signed": data, "created_ms": tx.now_ms}
                    tx.put(self.rows.scope, tables.ORDER, order.id, body)
            also(tx)

        await self._store.write(fn)
        self._bell.set()
        return [order.id for order in orders]

    def order_params(self, job_id: str) -> Mapping[str, Any]:
        """Return all parameters of a job's order; its row keeps only the short ones."""
        row = self._store.get(self.rows.scope, tables.ORDER, job_id)
        if row is None:
            raise Refused("the order of this job is not here any more")
        return self._open_order(_signed(row.body), None).params

    def assets_in_use(self) -> set[str]:
        """Return the assets that jobs of the site work with, or servers boot each time."""
        bodies = self.rows.jobs().values()
        open_ones = [body["params"] for body in bodies if body["state"] not in TERMINAL]
        boots = [params.get("boot") for params in open_ones]
        boots += [server.get("boot") for server in self.rows.servers()]
        images = {str(params.get("asset")) for params in open_ones}
        images |= {asset for params in open_ones for asset in playbooks_of(params)}
        return images | {asset for boot in boots for asset in assets_of(boot)}

    def rpc_handlers(self) -> dict[str, Callable[[str, Any], Awaitable[Any]]]:
        """Return the calls that members may make on us."""
        calls = {"job.logs": self._rpc_logs, **self.bmcs.rpc_handlers()}
        return calls | self.tenure.rpc_handlers()

    async def logs(self, job_id: str, after: int) -> list[Line]:
        """Return lines of a job's log with numbers above ``after``, from its runner."""
        row = self.rows.job(job_id)
        if row is None:
            raise Refused(f"there is no job {job_id} at this site")
        if row["runner"] == self.rows.node_id:
            return await self.log.read(job_id, after)
        body = {"job": job_id, "after": after}
        answer = await self.peers.rpc(row["runner"], "job.logs", body, self.limits.forward_s)
        return [(int(n), int(at_ms), str(line)) for n, at_ms, line in answer["lines"]]

    async def follow(self, job_id: str, after: int = 0) -> AsyncGenerator[list[Line], None]:
        """Yield the lines of a job as they come, until it has ended."""
        while True:
            row = self.rows.job(job_id)
            if row is None and self._store.get(self.rows.scope, tables.ORDER, job_id):
                await trio.sleep(FOLLOW_POLL_S)  # ordered, not yet taken
                continue
            lines = await self.logs(job_id, after)
            if lines:
                after = lines[-1][0]
                yield lines
            elif row is None or ended(row):
                return
            else:
                await trio.sleep(FOLLOW_POLL_S)

    async def _rpc_logs(self, peer: str, body: Any) -> Any:
        """Only for our site and for hubs: lines name machines and addresses."""
        self.rows.check_near_or_hub(peer)
        job_id, after = log_request(body)
        lines = await self.log.read(job_id, after)
        row = self.rows.job(job_id)
        return {"lines": [list(line) for line in lines], "ended": row is None or ended(row)}

    # -- the service -----------------------------------------------------------------------

    async def run(
        self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Take orders and run jobs until cancelled."""
        jobs = self.rows.jobs().items()
        self._ours |= {key for key, body in jobs if body["runner"] == self.rows.node_id}
        self._settled |= {key for key, _ in jobs}
        async with trio.open_nursery() as self._nursery:
            await self._nursery.start(self.tenure.run)
            self._nursery.start_soon(self._take_over)
            await self._look_unless_full()
            self._nursery.start_soon(self.erases.learn_ramdisk)
            task_status.started()
            while True:
                version, self._bell = self._store.version, trio.Event()
                await self._look_unless_full()
                with trio.move_on_after(self.limits.rescan_s):
                    await self._changed(version)
                await trio.sleep(self.limits.coalesce_s)

    async def _changed(self, version: int) -> None:
        await first_of(partial(self._store.wait_past, version), self._bell.wait)

    async def _look_unless_full(self) -> None:
        """Look, unless nothing could be written: what a full disk cuts short is seen again."""
        if self._store.full:
            return
        try:
            if not self._policy_told:
                await self._store.write(self._orders.put_policy)
                self._policy_told = True
            await self._look()
        except StoreFull:
            pass  # the store has said so

    async def _look(self) -> None:
        """Look at all orders and jobs once."""
        await self._keyring.publish()
        self._orders.look(trio.current_time())
        for job_id, runner in list(self._runners.items()):
            row = self.rows.job(job_id)
            if row is not None and not ours(row, runner.job.row):
                runner.abandon()
            elif row is not None and row["runner"] != self.rows.node_id:
                await runner.rewrite()  # its last runner wrote once more
        if not self.tenure.may_work():
            if self._ours or self._unsettled():
                self.tenure.wake()
            return
        held = self._still.holds()
        for row in [] if held else self._unsettled():
            if self.rows.job(row.key) is None:
                await self._take(row.key, row.body)
            else:
                self._settled.add(row.key)
        await self._go_on(held)

    def _unsettled(self) -> list[Any]:
        """Return the orders of which no job is known, the oldest first."""
        known = self._settled | self._refused.keys()
        orders = self._store.rows(self.rows.scope, tables.ORDER)
        return sorted((r for r in orders if r.key not in known), key=lambda row: row.key)

    async def _go_on(self, held: bool) -> None:
        """Begin or resume what is ours and has no runner yet, the oldest first."""
        for job_id in sorted(self._ours - self._runners.keys()):
            body = self.rows.job(job_id)
            if body is None or body["runner"] != self.rows.node_id or ended(body):
                self._ours.discard(job_id)
            elif (held and not witnessed(body)) or not self.tenure.holds(body):
                continue
            elif body["state"] in {"queued", "blocked"}:
                if not await self._still.others_know():
                    return
                await self._try_begin(body["id"])
            else:
                self._launch(body)

    async def _take(self, order_id: str, body: Mapping[str, Any]) -> None:
        """Make the job of an order, if it is ours to run."""
        first = self._first_seen.setdefault(order_id, trio.current_time())
        waited_s, refusal = trio.current_time() - first, None
        try:
            order = self._open_order(_signed(body), self._clock.now_ms())
        except OrderRefused as exc:
            if exc.order is None:
                self._refuse(order_id, str(exc))
                return
            order, refusal = exc.order, str(exc)
        if order.id != order_id:
            self._refuse(order_id, "the order stands under another order's id")
            return
        verb = order.kind in JOB_VERBS
        if refusal is None and verb and self.rows.job(str(order.params["job"])) is not None:
            await self._verbs.take(order, waited_s)
            return
        if refusal is None and verb and waited_s >= self.limits.settle_s:
            refusal = f"there is no job {order.params['job']} at site {self.rows.site}"
        elif refusal is None and verb:
            return  # its row may be on the way
        if refusal is None and order.kind == HAND_ON:
            await self._take_hand_on(order, waited_s)
            return
        secret = None if refusal else self._orders.secret_of(order)
        if self._orders.runner_of(order.id, waited_s, secret) != self.rows.node_id:
            return
        if refusal is None:
            row = self._orders.new_job(order, self._clock.now_ms())
        else:
            row = self._orders.refused_job(order, refusal, self._clock.now_ms())

        def fn(tx: Tx) -> bool:
            if self._still.since_look(tx.now_ms):
                return False  # another node may have it by now
            if tx.get(self.rows.scope, tables.JOB, order.id) is None:
                tx.put(self.rows.scope, tables.JOB, order.id, row)
            return True

        if not await self._store.write(fn):
            return
        self._still.took()
        self._first_seen.pop(order_id, None)
        self._settled.add(order_id)
        name = row["server_name"]
        if refusal is not None:
            log.warning("order refused", job=order.id, kind=order.kind, reason=refusal)
            return
        self._ours.add(order_id)
        log.info("order taken", job=order.id, kind=order.kind, name=name)

    async def _take_hand_on(self, order: Order, waited_s: float) -> None:
        """Hand secrets on, if it is ours to do."""
        able = self._hand_on.able(order)
        if self._orders.runner_of(order.id, waited_s, among=able) != self.rows.node_id:
            return
        row = await self._hand_on.carry_out(order)
        self._first_seen.pop(order.id, None)
        self._settled.add(order.id)
        count = len(row["params"]["secrets"])
        log.info("secrets handed on", job=order.id, peer=order.params["node"], count=count)

    def _refuse(self, order_id: str, sentence: str) -> None:
        if len(self._refused) >= REFUSED_MAX:
            self._refused.clear()
        self._refused[order_id] = sentence
        self._first_seen.pop(order_id, None)
        log.warning("order refused", order=order_id, reason=sentence)

    def _refuse_early(self, order: Order) -> None:
        if order.kind in JOB_VERBS:
            if self.rows.job(str(order.params["job"])) is None:
                raise Refused(f"there is no job {order.params['job']} at this site")
            return
        if order.kind == HAND_ON:
            if order.params["node"] not in self.rows.site_nodes():
                raise Refused(f"{order.params['name']} is no active node of this site")
            return
        if order.kind == lifecycle.SCAN:
            return
        if order.kind in lifecycle.ENROLS:
            refusal = self.rows.refuse_new(order.params)
        else:
            server = self.rows.server(str(order.params["server"]))
            busy = server is not None and server.get("job")
            refusal = None if busy else lifecycle.refuse(order.kind, order.params, server)
        if refusal is not None:
            raise Refused(refusal)

    # -- jobs ------------------------------------------------------------------------------

    async def _try_begin(self, job_id: str) -> None:
        running = {name: runner.job.row for name, runner in self._runners.items()}
        standing = self._orders.standing()

        def fn(tx: Tx) -> Verdict | None:
            if self._still.since_look(tx.now_ms):
                return None
            return self._orders.begin(tx, job_id, running, standing)

        verdict = await self._store.write(fn)
        if verdict is not None and verdict.begun:
            self._launch(verdict.row)

    def _took(self, job_id: str) -> None:
        """A job became ours by a person's word, or because its runner is gone."""
        self._still.took()
        self._ours.add(job_id)
        self._bell.set()

    def _took_over(self, job_id: str, before: str) -> None:
        name = self.rows.node_names().get(before) or before[:8]
        self.log.add(job_id, self.now_ms(), f"taken over: {name}, which ran it, is gone")
        self._took(job_id)

    def _mine(self, job_id: str) -> None:
        """A job stands as ours: another node may just have given it to us."""
        if job_id not in self._ours and not ended(self.rows.job(job_id) or {}):
            self._ours.add(job_id)
            self._bell.set()

    def _tenure_changed(self) -> None:
        """Stop what is not ours to do any more; begin again once it is."""
        for runner in self._runners.values():
            if not self.tenure.holds(runner.job.row):
                runner.abandon()
        if self.tenure.may_work() != self._could_work:
            self._could_work = not self._could_work
            self._bell.set()

    async def _take_over(self) -> None:
        """Look for jobs of nodes that are gone, until cancelled."""
        while True:
            if (
                self.tenure.may_work()
                and not self._store.full
                and not self._still.stood_still()
            ):
                try:
                    await self._takeover.look()
                except StoreFull:
                    pass  # the store has said so
            await trio.sleep(TAKEOVER_S)

    def _launch(self, row: Mapping[str, Any]) -> None:
        runner = JobRunner(row, self._means)
        self._runners[runner.id] = runner
        self._nursery.start_soon(self._run_job, runner)

    async def _run_job(self, runner: JobRunner) -> None:
        try:
            await runner.run()
        finally:
            del self._runners[runner.id]
            self._bell.set()

    def _connected(self) -> set[str]:
        """Return the other nodes of the site with a live link."""
        return (set(self.rows.site_nodes()) & set(self.peers.connected())) - {self.rows.node_id}


def _signed(body: Mapping[str, Any]) -> bytes:
    signed = body.get("signed")
    return signed if isinstance(signed, bytes) else b""
