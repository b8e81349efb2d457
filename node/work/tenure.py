"""Asks the site's nodes to renew this one's lease, and votes on theirs (node/proto/tenure.py).

It knows links and the local table of grants, no jobs' insides. Rules: a grant is on disk before
its voter says it; a node that cannot be reached over the mesh is looked for on the provisioning
network, too, where the site has two nodes; a call from outside the site is refused.
"""

import math
import time
from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any, Final
from urllib.parse import urlsplit

import trio

from mesh.errors import MeshError, Refused, RemoteRefused, StoreFull
from mesh.host.log import get_log
from mesh.proto.ids import NODE_ID_PATTERN, UUID_PATTERN
from node.proto.fenced import fenced as fenced_device
from node.proto.job import TERMINAL
from node.proto.tenure import Declined, Grant, Tenure, Times
from node.work.ports import Peers, Tx
from node.work.rows import SiteRows, plan_of

log = get_log("tenure")

SCHEMA: Final = (
    "CREATE TABLE IF NOT EXISTS tenure_grant ("
    "job TEXT PRIMARY KEY, epoch INTEGER NOT NULL, owner TEXT NOT NULL) WITHOUT ROWID",
)
TICK_S: Final = 1.0
PROBE_S: Final = 3.0
"""How long a node may take to answer on the other network."""
GRANTS_MAX: Final = 4096
"""Most grants that one answer may hold; a site has fewer open jobs."""
EPOCH_MAX: Final = 1 << 31

Probe = Callable[[str], Any]


def boot_s() -> float:
    """Return seconds since the machine started, time asleep included."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class SiteTenure:
    """One node's lease and votes; ``run`` keeps them up."""

    def __init__(
        self,
        rows: SiteRows,
        peers: Peers,
        times: Times,
        changed: Callable[[], None],
        now_s: Callable[[], float] = boot_s,
    ) -> None:
        """``changed()``: called when what may be done here may be different."""
        self._rows, self._peers, self._times = rows, peers, times
        self._changed, self._now_s = changed, now_s
        self._core = Tenure(rows.node_id, times, now_s())
        self._voting = trio.Lock()
        self._asking: set[str] = set()
        self._claiming: set[str] = set()
        self._answered: dict[str, bool] = {}
        self._loaded = False
        self._well = True
        self._asked_s = self._woken_s = -math.inf
        self._bell = trio.Event()
        self._version, self._open = -1, False
        rows.store.local_schema(SCHEMA)

    # -- what others ask -------------------------------------------------------------------

    @property
    def lease_s(self) -> float:
        """Seconds after which a silent holder may lose its jobs."""
        return self._times.lease_s

    def may_work(self) -> bool:
        """Say whether this node may work on jobs now."""
        return self._loaded and self._core.may_begin(self._now_s())

    def holds(self, job: Mapping[str, Any]) -> bool:
        """Say whether this node may work on this job of its own now; from any thread."""
        return self._loaded and self._core.holds(str(job["id"]), epoch_of(job), self._now_s())

    def stands(self, job: Mapping[str, Any]) -> Grant:
        """Return who has a job, by its row and all that was granted."""
        return self._core.stands(str(job["id"]), Grant(epoch_of(job), str(job["runner"])))

    def may_claim(self, holder: str, fenced: bool) -> bool:
        """Say whether a job of a holder may be claimed now."""
        return self._loaded and self._core.may_claim(holder, fenced, self._now_s())

    def heard(self, node: str) -> bool:
        """Say whether a node was heard of lately."""
        return self._core.unheard_s(node, self._now_s()) < self._times.lease_s

    def wake(self) -> None:
        """Renew at once: there is work, and the lease has run out while there was none."""
        self._woken_s = self._now_s()
        self._bell.set()

    def trouble(self) -> str | None:
        """Say why jobs stand still here, in one sentence, or None."""
        others = self._others()
        answers, of = (
            1 + sum(self._answered.get(node, True) for node in others),
            len(others) + 1,
        )
        if self.may_work() or answers > of // 2:
            return None
        if of == 2:
            return "jobs wait until it is clear whether the other node of the site lives"
        return (
            f"jobs stand still: {answers} of {of} nodes of the site answer, and it takes"
            f" {of // 2 + 1}; suspend or revoke those that are gone for good"
        )

    # -- claims ----------------------------------------------------------------------------

    async def claim(self, job_id: str, stands: Grant, fenced: bool) -> Grant | None:
        """Ask the site for a job; the grant when enough of it agrees, else None."""
        self._claiming.add(job_id)
        try:
            return await self._claim(job_id, stands, fenced)
        finally:
            self._claiming.discard(job_id)

    async def _claim(self, job_id: str, stands: Grant, fenced: bool) -> Grant | None:
        claim = self._core.claim(job_id, stands)
        body = {
            "job": job_id, "epoch": claim.epoch, "held": stands.epoch, "holder": stands.owner,
            "fenced": fenced,
        }  # fmt: skip
        needed = self._core.votes_needed(stands.owner) - 1
        granted: list[str] = []
        if needed:
            async with trio.open_nursery() as nursery:
                for peer in self._others():
                    nursery.start_soon(self._ask_claim, peer, body, granted)
        if len(granted) >= needed and await self._vote(job_id, claim, stands, fenced) is None:
            return claim
        for peer in self._others():  # also of those whose answer was lost
            await self._call(peer, "tenure.withdraw", {"job": job_id, "epoch": claim.epoch})
        return None

    async def _ask_claim(self, peer: str, body: Mapping[str, Any], granted: list[str]) -> None:
        answer = await self._call(peer, "tenure.claim", body)
        if isinstance(answer, Mapping) and answer.get("granted") is True:
            granted.append(peer)

    async def _vote(
        self, job_id: str, claim: Grant, named: Grant, fenced: bool
    ) -> Declined | None:
        """Grant a claim durably, or say why not; ``fenced``: so says who claims."""
        async with self._voting:
            row = self._rows.job(job_id)
            mine = None if row is None else Grant(epoch_of(row), str(row["runner"]))
            if row is not None:
                fenced = fenced and self._fenced(row)
            try:
                self._core.judge(job_id, claim, named, mine, fenced, self._now_s())
            except Declined as declined:
                return declined
            self._core.record(job_id, claim)
            await self._rows.store.write(partial(_keep, job_id, claim))
            return None

    def _fenced(self, row: Mapping[str, Any]) -> bool:
        server = self._rows.server(row.get("server")) or {}
        return fenced_device(row, server, plan_of(row), len(self._rows.site_nodes()))

    # -- the service -----------------------------------------------------------------------

    async def run(
        self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Renew, look and forget until cancelled."""
        for job, epoch, owner in self._rows.store.query("SELECT * FROM tenure_grant"):
            self._core.record(str(job), Grant(int(epoch), str(owner)))
        self._core.set_members(self._rows.site_nodes(), self._now_s())
        self._loaded = True
        task_status.started()
        async with trio.open_nursery() as nursery:
            while True:
                now, self._bell = self._now_s(), trio.Event()
                if self._core.tick(now):
                    log.warning("stood still")
                self._core.set_members(self._rows.site_nodes(), now)
                if now >= self._asked_s + self._pause_s(now):
                    self._asked_s = now
                    for peer in set(self._others()) - self._asking:
                        nursery.start_soon(self._renew, peer)
                    await self._forget_ended()
                self._say()
                self._changed()
                with trio.move_on_after(min(TICK_S, self._times.renew_s)):
                    await self._bell.wait()

    def _pause_s(self, now: float) -> float:
        """Return the time between two renewals: longer while the site has no open job."""
        version = self._rows.store.version
        if version != self._version:
            jobs = self._rows.jobs().values()
            self._version, self._open = version, any(j["state"] not in TERMINAL for j in jobs)
        woken = now < self._woken_s + self._times.lease_s
        return self._times.renew_s if self._open or woken else self._times.idle_s

    async def _renew(self, peer: str) -> None:
        self._asking.add(peer)
        try:
            asked = self._now_s()
            answer = await self._call(peer, "tenure.renew", {})
            self._answered[peer] = answer is not None
            if answer is None:
                if len(self._others()) == 1:
                    answered = await self._answers_elsewhere(peer)
                    self._core.on_probed(peer, answered, self._now_s())
                return
            vain = self._core.on_renewed(peer, asked, _read_grants(answer))
            self._changed()
            for job, grant in vain:
                if job not in self._claiming:
                    body = {"job": job, "epoch": grant.epoch}
                    await self._call(peer, "tenure.withdraw", body)
        finally:
            self._asking.discard(peer)

    async def _answers_elsewhere(self, peer: str) -> bool:
        """Say whether a node's HTTP answers on the provisioning network."""
        url = (self._rows.node_bodies().get(peer) or {}).get("boot_url")
        parts = urlsplit(url) if isinstance(url, str) else None
        if parts is None or not parts.hostname:
            return False
        ask = f"HEAD / HTTP/1.1\r\nHost: {parts.netloc}\r\nConnection: close\r\n\r\n"
        with trio.move_on_after(PROBE_S):
            try:
                stream = await trio.open_tcp_stream(parts.hostname, parts.port or 80)
                async with stream:
                    await stream.send_all(ask.encode("ascii", "replace"))
                    return bool(await stream.receive_some(16))
            except (OSError, ValueError, trio.BrokenResourceError):
                return False
        return False

    async def _call(self, peer: str, method: str, body: Mapping[str, Any]) -> Any:
        """Return a node's answer, None when it gives none."""
        try:
            return await self._peers.rpc(peer, method, body, self._times.renew_s)
        except RemoteRefused as exc:
            # A node of an older release votes for nobody, so nothing moves away by its word.
            return {} if method == "tenure.renew" and "no method" in str(exc) else None
        except MeshError:
            return None

    async def _forget_ended(self) -> None:
        jobs = self._rows.jobs()
        over = [
            job for job in self._core.grants
            if job in jobs and jobs[job]["state"] in TERMINAL
        ]  # fmt: skip
        if over:
            await self._drop(over)

    async def _drop(self, jobs: Collection[str]) -> None:
        try:
            await self._rows.store.write(partial(_let_go, tuple(jobs)))
        except StoreFull:
            return
        self._core.forget(jobs)

    def _say(self) -> None:
        trouble = self.trouble()
        if (trouble is None) != self._well:
            self._well = trouble is None
            if trouble is None:
                log.info("jobs go on")
            else:
                log.warning("jobs stand still", reason=trouble)

    def _others(self) -> list[str]:
        return [node for node in self._rows.site_nodes() if node != self._rows.node_id]

    # -- calls of others -------------------------------------------------------------------

    def rpc_handlers(self) -> dict[str, Callable[[str, Any], Any]]:
        """Return the calls that members may make on us."""
        return {
            "tenure.renew": self._rpc_renew,
            "tenure.claim": self._rpc_claim,
            "tenure.withdraw": self._rpc_withdraw,
        }

    async def _rpc_renew(self, peer: str, _body: Any) -> Any:
        self._check(peer)
        granted = self._core.on_renew(peer, self._now_s())
        return {"granted": {job: [g.epoch, g.owner] for job, g in granted.items()}}

    async def _rpc_claim(self, peer: str, body: Any) -> Any:
        self._check(peer)
        job_id, epoch = _job_and_epoch(body)
        holder, held = body.get("holder"), body.get("held")
        if not (isinstance(holder, str) and NODE_ID_PATTERN.match(holder)):
            raise Refused("tenure.claim names the node that has the job")
        if not (isinstance(held, int) and 0 <= held < epoch):
            raise Refused("tenure.claim names an epoch above the one that stands")
        if not isinstance(body.get("fenced"), bool):
            raise Refused("tenure.claim says whether the device can be fenced")
        named = Grant(held, holder)
        declined = await self._vote(job_id, Grant(epoch, peer), named, body["fenced"])
        if declined is None:
            log.info("job granted", job=job_id, peer=peer, epoch=epoch)
            return {"granted": True}
        return {"granted": False, "why": str(declined)}

    async def _rpc_withdraw(self, peer: str, body: Any) -> Any:
        self._check(peer)
        job_id, epoch = _job_and_epoch(body)
        async with self._voting:
            if self._core.grants.get(job_id) == Grant(epoch, peer):
                await self._drop([job_id])
        return {}

    def _check(self, peer: str) -> None:
        self._rows.check_near(peer)
        if not self._loaded:
            raise Refused("this node has only just started")


def epoch_of(job: Mapping[str, Any]) -> int:
    """Return the epoch of a job's row; rows of older releases have none."""
    epoch = job.get("epoch", 1)
    return epoch if isinstance(epoch, int) and 0 < epoch < EPOCH_MAX else 1


def ours(known: Mapping[str, Any], row: Mapping[str, Any]) -> bool:
    """Tell whether a runner may write its row of a job over the one that stands."""
    later = epoch_of(known) - epoch_of(row)
    return later < 0 or (later == 0 and known.get("runner") == row["runner"])


def _keep(job_id: str, grant: Grant, tx: Tx) -> None:
    tx.execute("REPLACE INTO tenure_grant VALUES (?, ?, ?)", (job_id, grant.epoch, grant.owner))


def _let_go(jobs: Collection[str], tx: Tx) -> None:
    for job in jobs:
        tx.execute("DELETE FROM tenure_grant WHERE job = ?", (job,))


def _job_and_epoch(body: Any) -> tuple[str, int]:
    if isinstance(body, Mapping):
        job_id, epoch = body.get("job"), body.get("epoch")
        named = isinstance(job_id, str) and UUID_PATTERN.match(job_id)
        if named and isinstance(epoch, int) and 0 < epoch < EPOCH_MAX:
            return str(job_id), epoch
    raise Refused("it takes {job: id, epoch: number}")


def _read_grants(answer: Any) -> dict[str, Grant]:
    """Return what a voter says that others have; what is no grant is left out."""
    told = answer.get("granted") if isinstance(answer, Mapping) else None
    found: dict[str, Grant] = {}
    for job, grant in list((told if isinstance(told, Mapping) else {}).items())[:GRANTS_MAX]:
        match grant:
            case [int(epoch), str(owner)] if isinstance(job, str) and 0 < epoch < EPOCH_MAX:
                found[job] = Grant(epoch, owner)
            case _:
                pass
    return found
