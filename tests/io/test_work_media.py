"""Jobs of servers that boot from a disc in their BMC's virtual drive."""

import re
from pathlib import Path
from typing import Any

import pytest
import trio

from drivers.errors import DeviceRefused, DeviceUnreachable
from node.boot.ports import Refusal
from node.proto.boot_script import redacted
from tests.support.work_machine import IP, MAC, SHA256
from tests.support.work_site import WorkSite, step

pytestmark = pytest.mark.slow


async def accepted(site: WorkSite) -> None:
    await site.accept(boot_by="media")
    site.bmc.orders.clear()
    site.machine.boots.clear()


async def test_deploy_and_release_by_disc_ask_for_no_script(tmp_path: Path) -> None:
    async with WorkSite(tmp_path).running() as site:
        await accepted(site)
        job = await site.end(await site.deploy())
        assert (job["state"], job["error"]) == ("succeeded", None)
        names = [item["id"] for item in job["steps"]]
        assert names == [
            "fetch", "power-off", "insert", "boot-cd", "power-on", "ramdisk", "write",
            "first-boot", "boot-disk", "restart-off", "eject", "restart-on", "phone-in",
        ]  # fmt: skip
        assert site.bmc.orders == ["off", "insert", "on", "off", "eject", "on"]
        assert site.machine.boots == ["disc", "disk"]
        assert (site.machine.disk, site.bmc.boot, site.bmc.disc) == (SHA256, "disk", None)
        assert f"rackmesh.ip={IP}/24 rackmesh.gw=10.77.0.1" in site.machine.scripts[-1]
        assert site.machine.cidata is not None
        network = site.machine.cidata["network_config"]
        assert MAC in network
        assert f"{IP}/24" in network
        release = await site.end(await site.give("server.release", {"server": site.server}))
        assert (release["state"], release["error"]) == ("succeeded", None)
        assert (site.machine.disk, site.bmc.power, site.bmc.disc) == ("zeros", "off", None)


async def test_a_disc_is_worth_nothing_when_its_attempt_or_job_has_ended(
    tmp_path: Path,
) -> None:
    async with WorkSite(tmp_path).running() as site:
        await accepted(site)
        site.machine.hold_write = trio.Event()
        job = await site.deploy()
        await site.until(lambda: step(site.job(job), "write").get("state") == "running")
        url = str(site.bmc.disc)
        capability = url.rpartition("/")[2].removesuffix(".iso")
        first = await site.need_desk().disc(capability, "10.0.0.9")
        assert first == await site.need_desk().disc(capability, "10.0.0.9"), "bytes stay"
        assert capability not in redacted(url)
        for wrong in (capability[:-6] + "AAAAA=", "", "x" * 76, capability[4:]):
            assert isinstance(await site.need_desk().disc(wrong, "10.0.0.9"), Refusal)
        site.machine.hold_write.set()
        assert (await site.end(job))["state"] == "succeeded"
        refused = await site.need_desk().disc(capability, "10.0.0.9")
        assert isinstance(refused, Refusal)
        assert refused.sentence == "srv1 does not boot from that disc any more"
        for row in (site.job(job), site.server_row()):
            assert capability not in repr(row)


async def test_a_bmc_without_a_drive_fails_the_job_in_one_sentence(tmp_path: Path) -> None:
    async with WorkSite(tmp_path).running() as site:
        await accepted(site)

        async def refuse(url: str) -> None:
            raise DeviceRefused(f"{site.bmc.url}: has no virtual CD drive")

        site.bmc.insert_medium = refuse  # type: ignore[method-assign]
        job = await site.end(await site.deploy())
        assert job["state"] == "failed"
        said = f"insert boot disc: {site.bmc.url}: has no virtual CD drive"
        assert job["error"] == said


async def test_a_drive_that_says_it_holds_the_disc_but_does_not_is_waited_for(
    tmp_path: Path,
) -> None:
    async with WorkSite(tmp_path).running() as site:
        await accepted(site)
        real, urls = site.bmc.insert_medium, list[str]()

        async def pretend(url: str) -> None:
            await real("http://elsewhere/other.iso")
            urls.append(url)

        site.bmc.insert_medium = pretend  # type: ignore[method-assign]
        job = await site.deploy()
        await site.until(lambda: site.machine.refused)
        await site.until(lambda: site.job(job).get("waits_for"))
        assert "waits for the ramdisk of srv1" in site.job(job)["waits_for"]
        site.bmc.disc = urls[-1]
        assert (await site.end(job))["state"] == "succeeded"


async def test_an_insert_without_an_answer_is_looked_at_and_said_again(tmp_path: Path) -> None:
    async with WorkSite(tmp_path).running() as site:
        await accepted(site)
        real = site.bmc.insert_medium
        calls: list[str] = []

        async def slow(url: str) -> None:
            calls.append(url)
            await real(url)
            if len(calls) == 1:
                raise DeviceUnreachable(f"{site.bmc.url}: no answer within 15 s")

        site.bmc.insert_medium = slow  # type: ignore[method-assign]
        job = await site.end(await site.deploy())
        assert job["state"] == "succeeded"
        assert step(job, "insert")["attempts"] == 2


async def test_a_machine_that_dies_while_it_is_written_gets_a_new_disc(tmp_path: Path) -> None:
    async with WorkSite(tmp_path).running() as site:
        await accepted(site)
        site.machine.hold_write = trio.Event()
        job = await site.deploy()
        await site.until(lambda: step(site.job(job), "write").get("state") == "running")
        first = site.bmc.disc
        await site.give("job.cancel", {"job": job})
        assert (await site.end(job))["state"] == "cancelled"
        assert site.bmc.disc == first, "nobody takes it out, but it is worth nothing"
        assert site.server_row()["state"] == "deploying failed"
        site.machine.hold_write.set()
        again = await site.end(await site.deploy())
        assert (again["state"], again["error"]) == ("succeeded", None)
        assert site.bmc.disc is None


async def test_no_reserved_address_is_said_before_anything_is_inserted(tmp_path: Path) -> None:
    async with WorkSite(tmp_path).running() as site:
        await accepted(site)
        places: Any = site.work.discs._places
        object.__setattr__(places, "network_of", lambda mac: None)
        job = await site.end(await site.deploy())
        assert job["state"] == "failed"
        assert re.match(r"insert boot disc: no address is reserved for srv1: ", job["error"])
        assert "insert" not in site.bmc.orders


async def test_the_way_to_boot_can_be_changed_later(tmp_path: Path) -> None:
    async with WorkSite(tmp_path).running() as site:
        await accepted(site)
        for way, boots in (("network", "ramdisk"), ("media", "disc")):
            job = await site.end(
                await site.give("server.boot-by", {"server": site.server, "by": way})
            )
            assert (job["state"], job["error"]) == ("succeeded", None)
            row = site.server_row()
            assert (row["bmc"]["boot_by"], row["state"]) == (way, "available")
            assert row["bmc"]["secret"] == "bmc1"
            assert (await site.end(await site.deploy()))["state"] == "succeeded"
            assert site.machine.boots[-2:] == [boots, "disk"]
            release = await site.give("server.release", {"server": site.server})
            assert (await site.end(release))["state"] == "succeeded"
