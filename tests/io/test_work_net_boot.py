"""Live systems and ISOs on a real store: booted off the network, and the disk left alone."""

import json
from pathlib import Path
from typing import Any

import pytest

from mesh.errors import Refused
from mesh.proto.order import NORMAL, OrderRefused, check_params
from node.boot.ports import Refusal
from node.proto.net_boot_proof import READ_ENOUGH_BYTES
from node.work.boot_desk import BootDesk
from tests.support.work_machine import IP, MAC, Agent
from tests.support.work_site import CutStore, WorkSite, step

KERNEL, INITRD, DISC = ("b3:" + digit * 64 for digit in "123")


def live(cmdline: str = "console=ttyS0 boot=live") -> dict[str, Any]:
    files = [
        {"role": "kernel", "name": "vmlinuz", "asset": KERNEL},
        {"role": "initrd", "name": "initrd", "asset": INITRD},
    ]
    return {"kind": "live", "cmdline": cmdline, "files": files}


ISO = {
    "kind": "iso", "cmdline": "", "files": [{"role": "iso", "name": "cd", "asset": DISC}],
}  # fmt: skip


async def boot(site: WorkSite, what: dict[str, Any]) -> str:
    params = {"server": site.server, "image": "rescue", "hostname": "web1", "boot": what}
    return await site.give("server.deploy", params, order_class=NORMAL)


async def test_a_live_system_boots_phones_in_survives_a_reboot_and_is_released(
    tmp_path: Path,
) -> None:
    async with WorkSite(tmp_path).running() as site:
        await site.accept()
        job = await site.end(await boot(site, live()))
        assert (job["state"], site.machine.boots[-1]) == ("succeeded", "live")
        assert [entry["id"] for entry in job["steps"]] == [
            "fetch-0", "fetch-1", "power-off", "boot-network", "power-on", "booted",
        ]  # fmt: skip
        assert site.assets.held == {KERNEL, INITRD}
        assert step(job, "booted")["evidence"] == {"attempt": 1, "phoned_in": True}
        assert site.machine.media == [KERNEL, INITRD, None]
        assert site.machine.disk == "old data", "no disk was touched"
        row = site.server_row()
        assert (row["state"], row["image"], row["hostname"]) == ("active", "rescue", "web1")
        assert (row["cleaned"], row["boot"]["phoned_in"]) == (False, True)
        script = site.machine.scripts[0]
        assert "initrd=initrd console=ttyS0 boot=live rackmesh.phone=http://10.77" in script
        assert "rackmesh.hostname=web1" in script

        assert site.work.assets_in_use() >= {KERNEL, INITRD}, "not let go while it is booted"
        site.machine.reset()
        await site.until(lambda: site.machine.boots.count("live") == 2)
        await site.until(lambda: len(site.machine.media) == 6)

        release = await site.end(await site.give("server.release", {"server": site.server}))
        assert release["state"] == "succeeded"
        assert (site.server_row()["boot"], site.machine.disk) == (None, "zeros")
        assert site.work.assets_in_use().isdisjoint({KERNEL, INITRD})
        capability = script.split("?cap=")[1].split()[0]
        for name in (KERNEL[3:], "boots"):
            refused = await site.need_desk().media(capability, name, 0, IP)
            assert isinstance(refused, Refusal)
            assert "does not boot that any more" in refused.sentence


async def test_an_iso_counts_as_booted_when_more_is_read_than_firmware_reads(
    tmp_path: Path,
) -> None:
    async with WorkSite(tmp_path).running() as site:
        await site.accept()
        job = await site.end(await boot(site, ISO))
        assert (job["state"], site.machine.boots[-1]) == ("succeeded", "iso")
        evidence = step(job, "booted")["evidence"]
        assert evidence["phoned_in"] is False
        assert evidence["read_bytes"] >= READ_ENOUGH_BYTES
        assert site.server_row()["boot"]["phoned_in"] is False
        assert (
            "sanboot --no-describe http://10.77.0.1:8470/media/v1/" in (site.machine.scripts[0])
        )
        assert site.machine.disk == "old data"


async def test_a_live_system_that_is_silent_is_waited_for_and_the_job_says_so(
    tmp_path: Path,
) -> None:
    async with WorkSite(tmp_path).running() as site:
        await site.accept()
        site.machine.phones_in = False
        job = await boot(site, live())
        await site.until(
            lambda: (
                "has fetched its kernel and starts it" in str(site.job(job).get("waits_for"))
            )
        )
        assert site.server_row()["state"] == "deploy-wait"
        await site.give("job.cancel", {"job": job})
        assert (await site.end(job))["state"] == "cancelled"
        assert site.server_row()["state"] == "deploy-wait failed"
        await site.end(await site.deploy())
        row = site.server_row()
        assert (row["state"], row["boot"], row["image"]) == ("active", None, "demo")


async def test_without_a_bmc_it_is_powered_on_by_hand(tmp_path: Path) -> None:
    async with WorkSite(tmp_path).running() as site:
        await site.accept(bmc=False)
        job = await boot(site, live())
        await site.until(lambda: "by hand" in str(site.job(job).get("waits_for")))
        site.machine.reset()
        assert (await site.end(job))["state"] == "succeeded"
        assert site.server_row()["boot"]["files"][0]["asset"] == KERNEL


async def test_another_node_that_serves_the_machine_tells_the_runner(tmp_path: Path) -> None:
    site = WorkSite(tmp_path)
    async with site.running(machine=False):
        second = site.org.admit("node2")
        site.peers.witness = second.node_id
        work = site.build(CutStore(site.store, site.cut, schema=False), second)
        other = BootDesk(work, site.is_bound)
        handlers = site.need_desk().rpc_handlers()
        site.peers.nodes = {site.node.node_id: handlers, second.node_id: {}}
        params = {"machine": MAC, "name": "srv1", "server": site.server, "bmc": None}
        await Agent(other, None, site.machine.hardware).hello()
        await site.end(await site.mine("server.accept", params))
        order = {"server": site.server, "image": "rescue", "hostname": "web1", "boot": ISO}
        job = await site.mine("server.deploy", order, order_class=NORMAL)
        await site.until(lambda: step(site.job(job), "booted").get("state") == "running")
        script = await other.script_for(MAC, IP)
        assert isinstance(script, str)
        capability = script.split("?cap=")[1].split()[0]
        for _ in range(READ_ENOUGH_BYTES // 2048):
            assert await other.media(capability, DISC[3:], 2048, IP) == DISC
        assert (await site.end(job))["state"] == "succeeded"
        assert step(site.job(job), "booted")["evidence"]["read_bytes"] == READ_ENOUGH_BYTES
        for body in (b"garbage", b'{"cap": 1}', json.dumps({"cap": capability}).encode()):
            message = {"path": "/media/v1", "body": body, "headers": {}, "ip": IP}
            try:
                answer = await handlers["agent.call"](second.node_id, message)
            except Refused:
                continue
            assert answer["status"] >= 400


@pytest.mark.parametrize("capability", ["", "x", "a" * 300])
async def test_garbage_gets_a_sentence_and_no_file(tmp_path: Path, capability: str) -> None:
    async with WorkSite(tmp_path).running(machine=False) as site:
        desk = site.need_desk()
        assert isinstance(await desk.media(capability, KERNEL[3:], 0, IP), Refusal)
        phone = site.work.capabilities.mint(
            "phone:", site.server, site.new_id(), 1, site.clock.now_ms()
        )
        assert isinstance(await desk.media(str(phone), KERNEL[3:], 0, IP), Refusal)


@pytest.mark.parametrize(
    "change",
    [
        {"cmdline": "a || shell"},
        {"files": []},
        {"files": [{"role": "initrd", "name": "i", "asset": INITRD}]},
        {"files": [{"role": "kernel", "name": "k", "asset": "b3:no"}]},
        {"kind": "iso"},
        {"kind": "disk"},
    ],
)
def test_an_order_that_could_not_be_booted_is_refused(change: dict[str, Any]) -> None:
    server = "01890000-0000-7000-8000-000000000001"
    params = {"server": server, "image": "rescue", "hostname": "h", "boot": live()}
    check_params("server.deploy", params)
    with pytest.raises(OrderRefused, match=r"server\.deploy cannot be carried out"):
        check_params("server.deploy", {**params, "boot": {**live(), **change}})
    with pytest.raises(OrderRefused, match="asset and boot exclude each other"):
        check_params("server.deploy", {**params, "asset": KERNEL})
