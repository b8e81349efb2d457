"""What work believes and whom: inventories, wipes, phone-ins, calls of other members."""

import re
from pathlib import Path
from typing import Any

import pytest
import trio

from mesh.errors import Refused
from mesh.proto import tables
from tests.support.work_machine import MAC, Agent
from tests.support.work_site import WorkSite, step


async def test_only_the_servers_own_address_changes_its_inventory(tmp_path: Path) -> None:
    async with WorkSite(tmp_path).running() as site:
        await site.accept()

        def disks() -> list[str]:
            row = site.store.get(site.scope, tables.INVENTORY, MAC)
            assert row is not None
            return [disk["serial"] for disk in row.body["inventory"]["disks"]]

        forged = {"system": {}, "disks": [{"name": "vda", "serial": "other"}]}
        liar = Agent(site.need_desk(), None, forged)
        status, _ = await liar.hello("10.77.0.66")
        assert (status, disks()) == (200, ["D1"])
        changed = {**site.machine.hardware, "disks": [{"name": "vda", "serial": "D2"}]}
        assert (await Agent(site.need_desk(), None, changed).hello())[0] == 200
        assert disks() == ["D2"]

        site.machine.hold_write = trio.Event()
        job = await site.deploy()
        await site.until(lambda: step(site.job(job), "write").get("done") == 1)
        status, answer = await liar.hello()  # names neither UUID nor serial
        assert (status, disks()) == (409, ["D1"])
        assert answer["detail"] == (
            "a second machine says it is srv1: uuid unknown instead of u-1"
        )
        twin = {**site.machine.hardware, "disks": []}
        assert (await Agent(site.need_desk(), None, twin).hello())[0] == 200
        assert disks() == ["D1"]  # one is bound: only it is believed
        site.machine.hold_write.set()
        assert (await site.end(job))["state"] == "succeeded"


async def test_what_is_wiped_is_what_the_bound_machine_named(tmp_path: Path) -> None:
    async with WorkSite(tmp_path).running() as site:
        await site.accept()
        site.bmc.switch("off")
    async with site.running(machine=False):
        job = await site.give("server.release", {"server": site.server})
        await site.until(lambda: step(site.job(job), "ramdisk").get("state") == "running")
        script = await site.need_desk().script_for(MAC, "10.77.0.101")
        assert isinstance(script, str)
        cap = script.partition("rackmesh.cap=")[2].split()[0]
        two = [{"name": name, "serial": name.upper()} for name in ("sda", "sdb")]
        agent = Agent(site.need_desk(), cap, {**site.machine.hardware, "disks": two})
        assert (await agent.hello())[1]["bound"] is True

        async def wiped_next() -> Any:
            order = None
            with trio.fail_after(10):
                while order is None:
                    order = (await agent.call("next", {"done": None}))[1]["step"]
            return order

        first = await wiped_next()
        assert first["disk"] == {"serial": "SDA"}
        row = site.store.get(site.scope, tables.INVENTORY, MAC)
        assert row is not None
        forged = {**row.body, "inventory": {"disks": [{"name": "x", "serial": "X"}]}}
        await site.store.write(lambda tx: tx.put(site.scope, tables.INVENTORY, MAC, forged))
        report = {
            "step": first["id"], "ok": False, "error": "again", "evidence": {"passing": True},
        }  # fmt: skip
        await agent.call("next", {"done": report})
        again = await wiped_next()
        assert (again["disk"], again["id"] == first["id"]) == ({"serial": "SDA"}, False)
        kept = site.job(job)["agent"]["inventory"]["disks"]
        assert [disk["serial"] for disk in kept] == ["SDA", "SDB"]


async def test_a_machine_that_booted_its_old_disk_is_started_again_at_once(
    tmp_path: Path,
) -> None:
    site = WorkSite(tmp_path)
    async with site.running():
        await site.accept()
        assert (await site.end(await site.deploy()))["state"] == "succeeded"
    site.bmc.orders.clear()
    async with site.running(machine=False):
        assert site.machine.cidata is not None
        found = re.search(r"phone/v1/([^\"]+)", site.machine.cidata["meta_data"])
        assert found is not None
        desk, capability = site.need_desk(), found.group(1)
        assert (await desk.phone_in(capability, {}, "10.77.0.101"))[0] == 200
        job = await site.give("server.release", {"server": site.server})
        for attempt in (1, 2, 3):
            await site.until(lambda: step(site.job(job), "ramdisk").get("state") == "running")
            assert site.job(job)["attempt"] == attempt
            assert await desk.phone_in(capability, {}, "10.77.0.101") == (
                409, {"detail": "another job works on srv1 now"},
            )  # fmt: skip
        row = await site.end(job)
        assert (row["state"], row["error"]) == (
            "failed",
            "ramdisk reports: the machine booted from its disk instead of the network",
        )
        assert site.bmc.orders == ["off", "on"] * 3
        lines = [line for _, _, line in await site.work.logs(job, 0)]
        assert any(line.endswith("of the network; attempt 2") for line in lines)


async def test_only_members_near_may_read_logs_or_speak_for_machines(tmp_path: Path) -> None:
    async with WorkSite(tmp_path).running() as site:
        await site.accept()
        job = await site.end(await site.power(False))
        logs = site.work.rpc_handlers()["job.logs"]
        speak = site.need_desk().rpc_handlers()["agent.call"]
        ask = {"job": job["id"], "after": 0}
        call = {"path": "/phone/v1", "body": b"x", "ip": "10.0.0.9", "headers": {}}
        near = site.org.admit("node2")
        hub = site.org.admit("hub1", "", ("hub",))
        far = site.org.admit("node9", "far")
        gone = site.org.admit("node3")
        site.org.register.merge(site.org.roster(gone, "lab", ("node",), "revoked", version=2))
        for peer in (near, hub):
            assert (await logs(peer.node_id, ask))["lines"]
        for peer in (far, gone):
            with pytest.raises(Refused, match="only nodes of site lab"):
                await logs(peer.node_id, ask)
        with pytest.raises(Refused, match="the job does not run here"):
            await speak(near.node_id, call)
        for peer in (hub, far, gone):
            with pytest.raises(Refused, match="only nodes of site lab"):
                await speak(peer.node_id, call)
