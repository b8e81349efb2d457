"""Jobs that move for want of a way to a BMC, and leases as the service keeps them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from drivers.errors import DeviceRefused, DeviceUnreachable
from mesh.errors import Unreachable
from mesh.proto import tables
from node.proto import job as job_core
from node.proto.tenure import Times
from tests.support.work_site import QUICK, WorkSite

GONE = [DeviceUnreachable("http://bmc1: no route to it") for _ in range(40)]


@asynccontextmanager
async def two_nodes(path: Path) -> AsyncIterator[tuple[WorkSite, str]]:
    """A site whose second node runs jobs, holds the BMC's secret and is heard of."""
    site = WorkSite(path, replace(QUICK, rescan_s=0.1))
    other = site.org.admit("node2").node_id
    site.peers.nodes, site.peers.witness = {other: {}}, other
    async with site.running():
        await site.work.rpc_handlers()["tenure.renew"](other, {})
        await site.accept()
        yield site, other


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Try again at once."""
    monkeypatch.setattr(job_core, "BACKOFF_FIRST_MS", 1)
    monkeypatch.setattr(job_core, "BACKOFF_MAX_MS", 5)


async def moved(site: WorkSite, other: str) -> str:
    """Let a job fail here; return it once it is the other's."""
    site.work._orders.able_to_run = lambda _job: [site.node.node_id, other]
    site.work._takeover._capable = site.work._orders.able_to_run
    site.bmc.trouble = list(GONE)
    job = await site.mine("server.power", {"server": site.server, "on": False})
    await site.until(lambda: site.job(job).get("runner") == other)
    return job


async def test_a_step_that_fails_for_want_of_a_way_is_tried_by_another_node(
    tmp_path: Path,
) -> None:
    async with two_nodes(tmp_path) as (site, other):
        job = await moved(site, other)
        row = site.job(job)
        assert (row["state"], row["epoch"], row["tried_by"]) == (
            "running", 2, [site.node.node_id],
        )  # fmt: skip
        (step,) = [s for s in row["steps"] if s["error"]]
        assert (step["state"], step["attempts"]) == ("waiting", 0)
        assert "no route" in step["error"]
        await site.until(lambda: site.work.runner(job) is None)
        site.bmc.trouble = []
        assert site.job(job) == row, "nothing more is done of it here"
        assert site.bmc.power == "on"


async def test_a_job_that_another_node_gave_is_begun_and_goes_to_nobody_twice(
    tmp_path: Path,
) -> None:
    async with two_nodes(tmp_path) as (site, other):
        job = await moved(site, other)
        tried = [site.node.node_id, other]
        given = {**site.job(job), "runner": tried[0], "epoch": 3, "tried_by": tried}
        await site.store.write(lambda tx: tx.put(site.scope, tables.JOB, job, given))
        ended = await site.end(job)
        assert ended["state"] == "failed"
        assert "no route" in ended["error"]
        assert ended["runner"] == site.node.node_id
        site.bmc.trouble = []
        await site.give("job.retry", {"job": job})
        await site.until(lambda: site.job(job)["state"] == "succeeded")
        assert site.job(job)["tried_by"] == []
        assert site.bmc.power == "off"


async def test_a_refusal_is_tried_nowhere_else(tmp_path: Path) -> None:
    async with two_nodes(tmp_path) as (site, other):
        site.work._takeover._capable = lambda _job: [site.node.node_id, other]
        site.bmc.trouble = [DeviceRefused("http://bmc1: the password was refused")] * 9
        job = await site.mine("server.power", {"server": site.server, "on": False})
        ended = await site.end(job)
        assert (ended["state"], ended["runner"]) == ("failed", site.node.node_id)


async def test_a_site_without_work_renews_seldom_and_at_once_when_there_is_some(
    tmp_path: Path,
) -> None:
    times = Times(renew_s=0.05, idle_s=60, lease_s=0.5, margin_s=0.1, guard_s=2.0, order_s=0.3)
    site = WorkSite(tmp_path, replace(QUICK, rescan_s=0.1, tenure=times))
    others = [site.org.admit(name).node_id for name in ("node2", "node3")]
    asked: list[str] = []

    async def renew(node: str, _body: object) -> dict[str, object]:
        asked.append(node)
        return {}

    site.peers.nodes = {other: {"tenure.renew": renew} for other in others}
    site.peers.witness = others[0]
    async with site.running():
        await site.accept()
        await trio.sleep(times.lease_s)
        asked.clear()
        await trio.sleep(10 * times.renew_s)
        assert asked == []
        assert not site.work.tenure.may_work()
        assert site.work.tenure.trouble() is None, "nothing is wrong"
        job = await site.mine("server.power", {"server": site.server, "on": False})
        assert (await site.end(job))["state"] == "succeeded"
        assert set(asked) == set(others)


async def test_jobs_stand_still_while_too_few_nodes_answer_and_it_is_said(
    tmp_path: Path,
) -> None:
    times = Times(renew_s=0.05, idle_s=0.1, lease_s=0.5, margin_s=0.1, guard_s=2.0, order_s=0.3)
    site = WorkSite(tmp_path, replace(QUICK, rescan_s=0.1, tenure=times))
    others = [site.org.admit(name).node_id for name in ("node2", "node3")]

    async def dead(_node: str, _body: object) -> object:
        raise Unreachable("nobody answers")

    site.peers.nodes = {other: {} for other in others}
    site.peers.witness = others[0]
    async with site.running():
        await site.accept()
        site.peers.nodes = {other: {"tenure.renew": dead} for other in others}
        await site.until(site.work.tenure.trouble)
        assert "1 of 3 nodes of the site answer" in str(site.work.tenure.trouble())
        job = await site.mine("server.power", {"server": site.server, "on": False})
        await trio.sleep(2 * times.lease_s)
        assert site.bmc.power == "on"
        site.peers.nodes = {others[0]: {}, others[1]: {"tenure.renew": dead}}
        assert (await site.end(job))["state"] == "succeeded"
        assert site.work.tenure.trouble() is None
