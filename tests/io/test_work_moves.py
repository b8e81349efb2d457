"""A node that cannot reach a BMC gives the job to another one, once each."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from drivers.errors import DeviceRefused, DeviceUnreachable
from mesh.proto import tables
from node.proto import job as job_core
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
