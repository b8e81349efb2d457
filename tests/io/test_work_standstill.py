"""A process that stood still begins nothing that others may have begun meanwhile."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import trio

from mesh.proto import tables
from tests.support.work_site import QUICK, WorkSite

STALL_S = 0.6
LIMITS = replace(QUICK, stall_s=STALL_S, rescan_s=0.1, settle_s=5.0, meet_s=0.1)


@asynccontextmanager
async def two_nodes(path: Path) -> AsyncIterator[tuple[WorkSite, str]]:
    """A running site whose second node runs jobs, too; its name is yielded."""
    site = WorkSite(path, LIMITS)
    other = site.org.admit("node2").node_id
    site.peers.nodes = {other: {}}
    site.peers.witness = other
    async with site.running():
        await site.accept()
        yield site, other


async def test_a_job_begins_only_when_another_node_knows_whose_it_is(tmp_path: Path) -> None:
    async with two_nodes(tmp_path) as (site, other):
        told = trio.Event()
        site.peers.before_receipt = told.wait
        job = await site.mine("server.power", {"server": site.server, "on": False})
        await site.until(lambda: site.job(job))
        await trio.sleep(5 * LIMITS.coalesce_s)
        assert (site.job(job)["state"], site.server_row()["job"]) == ("queued", None)
        point = site.peers.receipts[-1]
        assert point == (site.scope, *site.store.head(site.scope)), "the row itself is told"
        told.set()
        assert (await site.end(job))["state"] == "succeeded"
        assert site.job(job)["runner"] != other


async def test_nobody_to_tell_keeps_no_job_from_being_done(tmp_path: Path) -> None:
    async with two_nodes(tmp_path) as (site, _):
        site.peers.witness = None
        job = await site.mine("server.power", {"server": site.server, "on": False})
        assert (await site.end(job))["state"] == "succeeded"
        site.peers.nodes = {}
        job = await site.mine("server.power", {"server": site.server, "on": True})
        assert (await site.end(job))["state"] == "succeeded"


async def test_a_process_that_stops_before_it_told_leaves_the_job_to_who_took_it(
    tmp_path: Path,
) -> None:
    async with two_nodes(tmp_path) as (site, other):
        stopped = trio.Event()

        async def stop() -> None:
            await trio.lowlevel.checkpoint()
            if not stopped.is_set():
                stand_still(site)
                stopped.set()

        site.peers.before_receipt = stop
        job = await site.mine("server.power", {"server": site.server, "on": False})
        await stopped.wait()
        await trio.sleep(5 * LIMITS.coalesce_s)
        assert site.job(job)["state"] == "queued", "it holds"
        await goes_to(site, other, job)


async def test_a_process_that_stops_while_it_takes_an_order_does_not_take_it(
    tmp_path: Path,
) -> None:
    async with two_nodes(tmp_path) as (site, other):
        stopped, boundary, job = trio.Event(), site.cut.boundary, site.mine_id()
        await site.until(lambda: not site.work._runners)

        def stop() -> None:
            """Stop between the decision to take the order and the write of its job."""
            boundary()
            if not stopped.is_set():
                stand_still(site)
                stopped.set()

        signed = site.order("server.power", {"server": site.server, "on": False}, id=job)
        site.cut.boundary = stop
        body = {"signed": signed, "created_ms": 1}
        await site.store.write(lambda tx: tx.put(site.scope, tables.ORDER, job, body))
        await stopped.wait()
        await trio.sleep(5 * LIMITS.coalesce_s)
        assert site.job(job) == {}, "it does not even write that the job is its own"
        await goes_to(site, other, job)


def stand_still(site: WorkSite) -> None:
    """Stop the whole process; its links are gone when it goes on."""
    time.sleep(2 * STALL_S)
    site.peers.nodes, site.peers.witness = {}, None


async def goes_to(site: WorkSite, other: str, job: str) -> None:
    """The other's row comes, then its link; nothing of ours happens to the job."""
    taken = {
        "id": job, "kind": "server.power", "server": site.server, "runner": other,
        "state": "running", "params": {"on": False}, "steps": [],
    }  # fmt: skip
    await site.store.write(lambda tx: tx.put(site.scope, tables.JOB, job, taken))
    site.peers.nodes = {other: {}}
    await trio.sleep(LIMITS.meet_s + 5 * LIMITS.rescan_s)
    assert site.job(job) == taken
    assert site.bmc.power == "on"
