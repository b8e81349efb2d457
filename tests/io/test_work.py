"""Work at a node, on the real store: orders, jobs, the agent, and what goes wrong."""

import random
from pathlib import Path
from typing import Any

import pytest
import trio

from drivers.errors import DeviceRefused, DeviceUnreachable
from mesh.errors import Refused, StoreFull
from mesh.proto import tables
from node.work.boot_desk import BootDesk
from node.work.ports import Limits
from tests.support.work_machine import MAC, SHA256, Agent, Crash
from tests.support.work_site import ASSET, QUICK, CutStore, WorkSite, step

pytestmark = pytest.mark.slow


async def test_accept_deploy_and_release_with_a_bmc(tmp_path: Path) -> None:
    async with WorkSite(tmp_path).running() as site:
        await site.accept()
        row = site.server_row()
        assert (row["state"], row["cleaned"], row["job"]) == ("available", False, None)
        assert row["summary"].startswith("Acme One (S1)")
        assert site.machine.disk == "old data"

        job = await site.end(await site.deploy(user_data=None))
        assert (job["state"], job["error"]) == ("succeeded", None)
        row = site.server_row()
        assert (row["state"], row["image"], row["hostname"]) == ("active", "demo", "web1")
        assert (site.machine.disk, site.bmc.boot, site.bmc.power) == (SHA256, "disk", "on")
        assert site.machine.cidata is not None
        assert '"ssh-ed25519 AAAA ann"' in site.machine.cidata["user_data"]
        assert site.bmc.orders == ["off", "on", "off", "on"]
        assert set(site.bmc.told_uefi) == {True}, "the inventory says so"
        assert all(step["solo"] for step in job["steps"] if step["kind"] != "observe")

        with pytest.raises(Refused, match="srv1 is active; release it first"):
            await site.deploy()

        job = await site.end(await site.give("server.release", {"server": site.server}))
        assert job["state"] == "succeeded"
        row = site.server_row()
        assert (row["state"], row["cleaned"], row["image"]) == ("available", True, None)
        assert (site.machine.disk, site.bmc.power) == ("zeros", "off")


async def test_without_a_bmc_an_idle_ramdisk_restarts_and_the_agent_switches(
    tmp_path: Path,
) -> None:
    async with WorkSite(tmp_path).running() as site:
        await site.accept(bmc=False)
        job = await site.end(await site.deploy())
        assert job["state"] == "succeeded"
        assert site.machine.boots == ["discovery", "ramdisk", "disk"]
        assert site.bmc.orders == []
        release = await site.give("server.release", {"server": site.server})
        await site.until(lambda: site.job(release).get("waits_for"))
        await site.until(
            lambda: site.job(release)["waits_for"] == "power it on by hand: srv1 has no BMC"
        )
        site.machine.reset()
        assert (await site.end(release))["state"] == "succeeded"
        assert site.server_row()["cleaned"] is True


async def test_power_is_ordered_and_read_back(tmp_path: Path) -> None:
    async with WorkSite(tmp_path).running() as site:
        await site.accept()
        off = await site.end(
            await site.give("server.power", {"server": site.server, "on": False})
        )
        assert (off["state"], site.bmc.power) == ("succeeded", "off")
        assert off["steps"][0]["evidence"] == {"power": "off", "was": "on"}
        assert site.server_row()["state"] == "available"
        assert site.server_row()["job"] is None


async def test_a_bmc_that_lies_or_refuses_is_named_with_what_it_said(tmp_path: Path) -> None:
    async with WorkSite(tmp_path).running() as site:
        await site.accept()
        site.bmc.power, site.bmc.lies = "on", True
        job = await site.give("server.power", {"server": site.server, "on": True})
        await site.until(lambda: site.job(job).get("state") == "retry_wait")
        assert (
            f"{site.bmc.url} took the order power on but says off"
            in (site.job(job)["waits_for"])
        )
        await site.give("job.cancel", {"job": job})
        assert (await site.end(job))["error"] == "cancelled by ann@hub"
        site.bmc.lies = False
        site.bmc.trouble = [DeviceRefused(f"{site.bmc.url}: 401 Unauthorized")] * 2
        job = await site.give("server.power", {"server": site.server, "on": True})
        assert (await site.end(job))["error"] == (f"power on: {site.bmc.url}: 401 Unauthorized")


async def test_a_bmc_out_of_reach_is_tried_again(tmp_path: Path) -> None:
    async with WorkSite(tmp_path).running() as site:
        await site.accept()
        site.bmc.trouble = [DeviceUnreachable(f"{site.bmc.url}: no answer within 15 s")]
        job = await site.end(
            await site.give("server.power", {"server": site.server, "on": False})
        )
        assert job["state"] == "succeeded"
        assert job["steps"][0]["attempts"] == 2


async def test_an_image_larger_than_the_disk_fails_with_a_sentence(tmp_path: Path) -> None:
    async with WorkSite(tmp_path).running() as site:
        await site.accept()
        site.machine.disk_bytes = 1 << 20
        job = await site.end(await site.deploy())
        assert job["state"] == "failed"
        assert job["error"] == (
            "write image: srv1: the disk vda has 1048576 bytes, the image 4194304"
        )
        row = site.server_row()
        assert (row["state"], row["cleaned"]) == ("deploying failed", False)
        assert row["error"] == job["error"]

        site.machine.disk_bytes = 1 << 30
        await site.give("job.retry", {"job": job["id"]})
        await site.until(lambda: site.job(job["id"])["state"] != "failed")
        again = await site.end(job["id"])
        assert (again["state"], again["attempt"]) == ("succeeded", 2)
        assert site.server_row()["state"] == "active"


async def test_a_wipe_that_leaves_data_fails_loudly(tmp_path: Path) -> None:
    async with WorkSite(tmp_path).running() as site:
        await site.accept()
        site.machine.wipe_leaves = 3
        job = await site.end(await site.give("server.release", {"server": site.server}))
        assert job["error"] == (
            "wipe disks: srv1 still has 3 bytes that are not zero after the wipe"
        )
        row = site.server_row()
        assert (row["state"], row["cleaned"]) == ("cleaning failed", False)


async def test_a_machine_reset_in_the_middle_of_an_image_goes_on(tmp_path: Path) -> None:
    async with WorkSite(tmp_path).running() as site:
        await site.accept()
        site.machine.hold_write = trio.Event()
        job = await site.deploy()
        await site.until(lambda: step(site.job(job), "write").get("done") == 1)
        runner = site.work.runner(job)
        assert runner is not None
        site.machine.reset()
        runner.desk._heard -= 20_000  # the time of a self-test
        site.machine.hold_write.set()
        row = await site.end(job)
        assert (row["state"], row["attempt"]) == ("succeeded", 2)
        assert site.machine.writes_begun == 2
        lines = [line for _, _, line in await site.work.logs(job, 0)]
        assert "the machine began again: attempt 2" in lines


async def test_two_live_machines_with_one_mac_park_the_job(tmp_path: Path) -> None:
    async with WorkSite(tmp_path).running() as site:
        await site.accept()
        site.machine.hold_write = trio.Event()
        job = await site.deploy()
        await site.until(lambda: step(site.job(job), "write").get("done") == 1)
        desk = site.need_desk()
        script = await desk.script_for(MAC, "10.77.0.9")
        assert isinstance(script, str)
        cap = script.partition("rackmesh.cap=")[2].split()[0]
        other = {"system": {"serial": "S2", "uuid": "u-2"}}
        status, answer = await Agent(desk, None, other).hello()
        assert (status, site.job(job)["state"]) == (409, "running")  # no capability: refused
        status, answer = await Agent(desk, cap, other).hello()
        assert status == 409
        assert answer["detail"].startswith("a second machine says it is srv1 while the first")
        row = await site.end(job)
        assert (row["state"], site.server_row()["job"]) == ("parked", job)
        assert "a second machine says it is srv1" in site.server_row()["error"]
        site.machine.hold_write.set()
        await site.give("job.retry", {"job": job})
        await site.until(lambda: site.job(job)["state"] != "parked")
        assert (await site.end(job))["state"] == "succeeded"


async def test_orders_on_a_busy_server_wait_and_say_for_what(tmp_path: Path) -> None:
    async with WorkSite(tmp_path).running() as site:
        await site.accept()
        site.machine.hold_write = trio.Event()
        first = await site.deploy()
        await site.until(lambda: step(site.job(first), "write").get("done") == 1)
        second = await site.give("server.power", {"server": site.server, "on": False})
        await site.until(lambda: site.job(second).get("state") == "blocked")
        assert site.job(second)["waits_for"] == (
            "waits for server.deploy of srv1 to end (it is working)"
        )
        site.machine.hold_write.set()
        assert (await site.end(second))["state"] == "succeeded"
        assert site.job(first)["state"] == "succeeded"


async def test_the_destructive_budget_blocks_with_a_sentence(tmp_path: Path) -> None:
    async with WorkSite(tmp_path, per_hour=1).running() as site:
        await site.accept()
        release = {"server": site.server}
        assert (await site.end(await site.give("server.release", release)))[
            "state"
        ] == "succeeded"
        assert (await site.end(await site.deploy()))["state"] == "succeeded"  # cleaned: free
        job = await site.give("server.release", release)
        await site.until(lambda: site.job(job).get("state") == "blocked")
        assert site.job(job)["waits_for"] == (
            "the site begins at most 1 destructive works an hour, 1 have begun;"
            " looks again in 60 min at the latest"
        )
        await site.give("job.cancel", {"job": job})
        assert (await site.end(job))["state"] == "cancelled"
        assert site.server_row()["state"] == "active"


async def test_bad_orders_become_failed_jobs_or_are_refused(tmp_path: Path) -> None:
    async with WorkSite(tmp_path).running() as site:
        await site.accept()
        with pytest.raises(Refused, match="is already accepted as srv1"):
            await site.give(
                "server.accept", {"machine": MAC, "name": "srv2", "server": site.new_id()}
            )
        with pytest.raises(Refused, match="is not known at this site; accept it first"):
            await site.give("server.power", {"server": site.new_id(), "on": True})
        lie = site.order(
            "server.deploy",
            {"server": site.server, "image": "demo", "asset": ASSET, "hostname": "x"},
            order_class="normal",
        )
        job = await site.end((await site.work.submit(lie))[0])
        assert (job["state"], site.server_row()["state"]) == ("failed", "available")
        assert "would destroy data" in job["error"]
        bad = {"signed": b"garbage", "created_ms": 1}
        key = site.new_id()
        await site.store.write(lambda tx: tx.put(site.scope, tables.ORDER, key, bad))
        await site.until(lambda: key in site.work._refused)
        assert site.job(key) == {}


async def test_another_node_forwards_the_agent_to_the_runner(tmp_path: Path) -> None:
    site = WorkSite(tmp_path)
    async with site.running(machine=False):
        second = site.org.admit("node2")
        site.peers.witness = second.node_id
        work = site.build(CutStore(site.store, site.cut, schema=False), second)
        other = BootDesk(work, site.is_bound)
        handlers = site.need_desk().rpc_handlers()
        site.peers.nodes = {site.node.node_id: handlers, second.node_id: {}}
        params = {"machine": MAC, "name": "srv1", "server": site.server, "bmc": None}
        agent = Agent(other, None, site.machine.hardware)
        await agent.hello()
        assert (await site.end(await site.mine("server.accept", params)))[
            "state"
        ] == "succeeded"
        job = await site.mine(
            "server.deploy",
            {"server": site.server, "image": "demo", "asset": ASSET, "hostname": "x"},
        )
        await site.until(lambda: step(site.job(job), "ramdisk").get("state") == "running")
        script = await other.script_for(MAC, "10.77.0.9")
        assert isinstance(script, str)
        agent.cap = script.partition("rackmesh.cap=")[2].split()[0]
        status, answer = await agent.hello()
        assert (status, answer["bound"]) == (200, True)
        await site.until(lambda: step(site.job(job), "write").get("state") == "running")
        status, answer = await agent.call("next", {"done": None})
        assert (status, answer["step"]["do"]) == (200, "write_image")
        assert answer["step"]["urls"] == [f"http://10.77.0.1:8470/assets/{ASSET}"]
        assert step(site.job(job), "fetch")["solo"] is False
        assert site.peers.receipts


async def test_a_clean_stop_leaves_the_job_resumable(tmp_path: Path) -> None:
    site = WorkSite(tmp_path)
    async with trio.open_nursery() as world:
        world.start_soon(site.machine.run)
        async with site.running(machine=False):
            await site.accept()
            site.machine.hold_write = trio.Event()
            job = await site.deploy()
            await site.until(lambda: step(site.job(job), "write").get("done") == 1)
            before = site.job(job)["state"]
        assert before == "running"
        site.machine.hold_write.set()
        async with site.running(machine=False):
            assert (await site.end(job))["state"] == "succeeded"
            assert site.bmc.orders == ["off", "on", "off", "on"]
            assert site.machine.writes_begun == 1  # the agent told its report again
        world.cancel_scope.cancel()


async def one_life(site: WorkSite, order: bytes) -> bool:
    """Give the order (again) and live until its job has ended, or until the node is killed."""
    try:
        async with site.running(machine=False):
            await site.end((await site.work.submit(order))[0])
            return True
    except* Crash:
        site.cut.at = None
    return False


async def deploy_killed_at(path: Path, at: int | None) -> int:
    """Deploy with the node killed at one boundary; return how many boundaries there were."""
    site = WorkSite(path)
    async with trio.open_nursery() as world:
        world.start_soon(site.machine.run)
        async with site.running(machine=False):
            await site.accept()
            order = site.order("server.deploy", site.deploy_params())
        site.cut.count, site.cut.at = 0, at
        lives = 1
        while not await one_life(site, order):
            lives += 1
        assert lives <= 2
        site.cut.at = None
        async with site.running(machine=False):
            rows = [row.body for row in site.store.rows(site.scope, tables.JOB)]
            deploys = [row for row in rows if row["kind"] == "server.deploy"]
            assert [row["state"] for row in deploys] == ["succeeded"]
            assert site.server_row()["state"] == "active"
            assert (site.machine.disk, site.bmc.power) == (SHA256, "on")
            assert site.bmc.orders == ["off", "on", "off", "on"]
            assert site.machine.boots.count("disk") == 1
            assert site.machine.writes_begun == 1
        world.cancel_scope.cancel()
    return site.cut.count


async def test_killed_at_every_seventh_boundary_a_deploy_completes_once(tmp_path: Path) -> None:
    last = await deploy_killed_at(tmp_path / "clean", None)
    assert last > 30
    for at in range(1, last, 7):
        await deploy_killed_at(tmp_path / str(at), at)


@pytest.mark.slow
async def test_killed_at_every_boundary_a_deploy_completes_once(tmp_path: Path) -> None:
    last = await deploy_killed_at(tmp_path / "clean", None)
    for at in range(1, last):
        await deploy_killed_at(tmp_path / str(at), at)


async def test_a_fetch_says_from_its_start_what_it_waits_for(tmp_path: Path) -> None:
    async with WorkSite(tmp_path).running() as site:
        await site.accept()
        site.assets.waiting = "waits for site one to read the origin of demo"
        job = await site.deploy()
        await site.until(lambda: site.job(job).get("waits_for") == site.assets.waiting)
        site.assets.waiting = None
        assert (await site.end(job))["state"] == "succeeded"
        assert site.job(job)["waits_for"] is None


@pytest.mark.parametrize("at", ["fetch", "write"])
async def test_a_full_disk_stops_jobs_where_they_stand_and_they_go_on(
    tmp_path: Path, at: str
) -> None:
    async with WorkSite(tmp_path).running() as site:
        await site.accept()
        site.machine.hold_write = trio.Event()
        if at == "fetch":
            site.assets.waiting = "waits for the origin"
        job = await site.deploy()
        if at == "fetch":
            await site.until(lambda: step(site.job(job), "fetch").get("state") == "running")
        else:
            await site.until(lambda: step(site.job(job), "write").get("done") == 1)
        site.cut.full = True
        with pytest.raises(StoreFull):
            await site.power(True)
        status, answer = await site.need_desk().agent("/agent/v1/next", b"{}", {}, "10.9.9.9")
        assert (status, "room" in answer["detail"]) == (503, True)
        site.assets.waiting = None
        site.machine.hold_write.set()  # what is under way ends, and nobody can write it down
        refused = site.cut.refused
        await site.until(lambda: site.cut.refused > refused or site.work.runner(job) is None)
        assert step(site.job(job), at)["state"] == "running"
        site.cut.full = False
        done = await site.end(job)
        assert (done["state"], done["error"]) == ("succeeded", None)
        assert site.bmc.orders == ["off", "on", "off", "on"]
        assert site.machine.disk == SHA256
        assert any(
            "goes on after a break" in line for _, _, line in await site.work.logs(job, 0)
        )


async def test_a_full_disk_at_the_start_holds_nobody_up(tmp_path: Path) -> None:
    site = WorkSite(tmp_path)
    site.cut.full = True
    async with site.running():
        with pytest.raises(StoreFull):
            await site.give("server.accept", site.accept_params(bmc=False))
        assert site.store.rows(site.scope, tables.BUDGET) == []
        site.cut.full = False
        await site.accept()
        assert [row.key for row in site.store.rows(site.scope, tables.BUDGET)] == ["policy"]


async def test_cancel_in_the_middle_leaves_a_failed_twin_and_says_who(tmp_path: Path) -> None:
    async with WorkSite(tmp_path).running() as site:
        await site.accept()
        site.assets.refusing = "no node has it and its origin answers 503"
        job = await site.deploy()
        await site.until(lambda: "503" in str(site.job(job).get("waits_for")))
        await site.give("job.cancel", {"job": job})
        assert (await site.end(job))["state"] == "cancelled"
        row = site.server_row()
        assert (row["state"], row["job"]) == ("available", None)  # nothing was touched
        site.assets.refusing, site.machine.hold_write = None, trio.Event()
        job = await site.deploy()
        await site.until(lambda: step(site.job(job), "write").get("done") == 1)
        verb = await site.give("job.cancel", {"job": job})
        await site.end(job)
        row = site.server_row()
        assert (row["state"], row["error"]) == ("deploying failed", "cancelled by ann@hub")
        again = await site.give("job.cancel", {"job": job})
        await site.until(lambda: site.job(again).get("state"))
        assert site.job(verb)["state"] == site.job(again)["state"] == "succeeded"
        done = [row.key for row in site.store.rows(site.scope, tables.JOB)]
        accepted = next(key for key in done if site.job(key)["kind"] == "server.accept")
        late = await site.give("job.cancel", {"job": accepted})
        assert (await site.end(late))["error"] == "the job has succeeded already"
        with pytest.raises(Refused, match="there is no job"):
            await site.give("job.retry", {"job": site.new_id()})


async def test_garbage_at_the_agents_endpoints_is_answered_and_counted(tmp_path: Path) -> None:
    async with WorkSite(tmp_path).running() as site:
        await site.accept()
        site.machine.hold_write = trio.Event()
        job = await site.deploy()
        await site.until(lambda: step(site.job(job), "write").get("done") == 1)
        runner = site.work.runner(job)
        assert runner is not None
        desk, rng, session = site.need_desk(), random.Random(7), str(runner.desk.session)
        headers = {
            "x-rackmesh-session": session, "x-rackmesh-counter": "99",
            "x-rackmesh-signature": "00" * 64,
        }  # fmt: skip
        call = desk.rpc_handlers()["agent.call"]
        bodies = [
            b"",
            b"{}",
            b"[]",
            b'{"done":{}}',
            b'{"step":"x","done":1,"total":2}',
            b"\xff",
        ]
        bodies += [rng.randbytes(rng.randrange(200)) for _ in range(20)]
        for body in bodies:
            for path in ("hello", "next", "progress", "nonsense"):
                for given in ({}, headers, {**headers, "x-rackmesh-session": "x"}):
                    status, answer = await desk.agent(
                        f"/agent/v1/{path}", body, given, "10.0.0.9"
                    )
                    assert 400 <= status < 500
                    assert answer["detail"]
            text = body.decode("latin-1")
            status, _ = await desk.phone_in(text, {}, "10.0.0.9")
            assert 400 <= status < 500
            with pytest.raises(Refused):
                await call(site.node.node_id, {"path": text, "body": body})
        assert desk.dropped > 50
        site.machine.hold_write.set()
        assert (await site.end(job))["state"] == "succeeded"


async def test_job_logs_are_bounded_and_followed(tmp_path: Path) -> None:
    limits = Limits(**{**QUICK.__dict__, "log_lines_max": 5})
    async with WorkSite(tmp_path, limits=limits).running() as site:
        await site.accept()
        job = await site.deploy()
        seen: list[Any] = []
        with trio.fail_after(20):
            async for lines in site.work.follow(job):
                seen += lines
        assert seen[-1][2].startswith("phone-in: done")
        kept = await site.work.logs(job, 0)
        assert len(kept) <= 5
        logs, me = site.work.rpc_handlers()["job.logs"], site.node.node_id
        answer = await logs(me, {"job": job, "after": 0})
        assert answer["ended"] is True
        with pytest.raises(Refused):
            await logs(me, {"job": 3})


def test_the_desk_is_the_boot_listeners_port() -> None:
    from node.boot.ports import BootDecisions

    def takes(decisions: BootDecisions) -> None: ...

    assert callable(takes)
    assert all(hasattr(BootDesk, name) for name in ("script_for", "agent", "phone_in"))
