"""Words about jobs on the real store: skip, kill a job that hangs, hold, archive."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import trio

from drivers.errors import DeviceRefused
from mesh.proto import tables
from node.proto.caps import Caps
from tests.support.work_site import QUICK, WorkSite, step


async def told(site: WorkSite, kind: str, job: str, **params: Any) -> dict[str, Any]:
    """Say a word and return its own row once it was carried out."""
    return await site.end(await site.give(kind, {"job": job, **params}))


async def lines(site: WorkSite, job: str) -> list[str]:
    return [text for _, _, text in await site.work.logs(job, 0)]


async def test_a_failed_step_is_skipped_by_a_persons_word(tmp_path: Path) -> None:
    async with WorkSite(tmp_path).running() as site:
        await site.accept()
        site.bmc.trouble = [DeviceRefused(f"{site.bmc.url}: 403 Forbidden")] * 2
        job = await site.power(False)
        assert (await site.end(job))["state"] == "failed"
        wrong = await told(site, "job.skip", job, reason="x", step="nothing")
        assert wrong["error"] == (
            "step 'nothing' of the job has not failed; those that may be meant: power"
        )
        said = await told(site, "job.skip", job, reason="switched off by hand")
        assert (said["state"], said["error"]) == ("succeeded", None)
        await site.until(lambda: site.job(job)["state"] == "succeeded")
        entry = step(site.job(job), "power")
        assert (entry["state"], entry["evidence"]) == (
            "skipped", {"skipped by": "ann@hub", "reason": "switched off by hand"},
        )  # fmt: skip
        assert "skip by ann@hub: switched off by hand" in await lines(site, job)
        late = await told(site, "job.skip", job, reason="again")
        assert late["error"] == (
            "the job is succeeded; a step is skipped when its job failed or is parked"
        )


async def test_a_job_whose_call_never_comes_back_is_killed_and_holds_up_its_server_alone(
    tmp_path: Path,
) -> None:
    async with WorkSite(tmp_path).running() as site:
        await site.accept()
        back = trio.Event()
        site.bmc.hangs = back
        job = await site.deploy()
        await site.until(lambda: site.bmc.hung)
        dead = await told(site, "job.kill", job, reason="the BMC hangs")
        assert (dead["state"], dead["error"]) == ("succeeded", None)
        row, server = site.job(job), site.server_row()
        error = "killed by ann@hub (the BMC hangs): nobody knows how srv1 stands, look at it"
        assert (row["state"], row["error"]) == ("failed", error)
        assert (server["state"], server["job"], server["error"]) == (
            "deploying failed", None, error,
        )  # fmt: skip
        late = await told(site, "job.cancel", job)
        assert late["error"] == "the job has failed already"
        power = await site.power(True)
        await site.until(lambda: site.job(power).get("state") == "blocked")
        assert site.job(power)["waits_for"] == (
            "waits for the last call of server.deploy to srv1 to come back"
        )
        site.bmc.hangs = None
        back.set()
        assert (await site.end(power))["state"] == "succeeded"
        assert site.job(job)["error"] == error  # what came back late changed nothing
        await told(site, "job.retry", job)
        await site.until(lambda: site.job(job)["state"] == "succeeded")
        assert site.server_row()["state"] == "active"


async def test_a_cancelled_job_is_over_at_once_though_its_call_hangs(tmp_path: Path) -> None:
    async with WorkSite(tmp_path).running() as site:
        await site.accept()
        back = trio.Event()
        site.bmc.hangs = back
        job = await site.deploy()
        await site.until(lambda: site.bmc.hung)
        assert (await told(site, "job.cancel", job))["error"] is None
        assert site.job(job)["state"] == "cancelled"
        assert (await told(site, "job.kill", job))["error"] == (
            "the job has ended already: cancelled"
        )
        back.set()


async def test_a_cap_of_the_site_delays_the_younger_job_and_names_the_one_before(
    tmp_path: Path,
) -> None:
    limits = replace(QUICK, caps=Caps(site=4, device=1))
    async with WorkSite(tmp_path, limits).running() as site:
        await site.accept()
        other = {**site.server_row(), "id": site.new_id(), "name": "srv2", "macs": []}
        await site.store.write(lambda tx: tx.put(site.scope, tables.SERVER, other["id"], other))
        site.bmc.hangs = back = trio.Event()
        first = await site.power(False)
        await site.until(lambda: site.bmc.hung)
        second = await site.give("server.power", {"server": other["id"], "on": False})
        await site.until(lambda: "delayed" in str(site.job(second).get("waits_for")))
        assert (site.job(second)["state"], site.job(second)["waits_for"]) == (
            "queued",
            "delayed: at most 1 at the device bmc1 at a time: waits for server.power of srv1"
            " to end",
        )
        site.bmc.hangs = None
        back.set()
        assert (await site.end(first))["state"] == "succeeded"
        assert (await site.end(second))["state"] == "succeeded"


async def test_a_job_is_held_before_and_between_its_steps(tmp_path: Path) -> None:
    async with WorkSite(tmp_path).running() as site:
        await site.accept()
        back = trio.Event()
        site.bmc.hangs = back
        job = await site.deploy()
        await site.until(lambda: site.bmc.hung)
        next_one = await site.power(True)
        await site.until(lambda: site.job(next_one))
        await told(site, "job.hold", next_one)
        await told(site, "job.hold", job, reason="rack is moved")
        assert site.job(job)["state"] == "running"
        site.bmc.hangs = None
        back.set()
        await site.until(lambda: site.job(job)["state"] == "held")
        row = site.job(job)
        assert row["waits_for"] == "a person: held by ann@hub (rack is moved)"
        assert [e["state"] for e in row["steps"][1:3]] == ["done", "waiting"]
        assert (await told(site, "job.archive", job))["error"] == (
            "the job is held: only one that has ended goes to the archive"
        )
        assert (await told(site, "job.retry", job))["error"] == (
            "the job is held; only a failed, parked or cancelled job is tried again"
        )
        await told(site, "job.unhold", job)
        assert (await site.end(job))["state"] == "succeeded"
        await site.until(lambda: site.job(next_one)["waits_for"] == "a person: held by ann@hub")
        assert site.job(next_one)["started_ms"] is None
        await told(site, "job.unhold", next_one)
        assert (await site.end(next_one))["state"] == "succeeded"
        assert (await told(site, "job.unhold", job))["error"] == "the job is not held"
        archived = await told(site, "job.archive", job)
        assert archived["archived_ms"] and site.job(job)["archived_ms"]
