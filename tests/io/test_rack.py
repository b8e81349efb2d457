"""A simulated server over sockets: it boots, is deployed, comes up, and loses its power."""

import json
import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from drivers.api import Bmc, BmcLimits, open_bmc
from mesh.errors import Refused
from node.proto.first_boot import first_boot
from node.proto.rack_disk import MAGIC
from node.rack.config import RackConfig
from node.rack.main import RackInfo, run_rack
from tests.support.agent_peer import PeerAsset
from tests.support.rack_site import rack_site

LIMITS = BmcLimits(request_s=5, power_wait_s=10, boot_wait_s=5, poll_s=0.1)
DISK_BYTES = 16 << 20


def settings(folder: Path, **changes: Any) -> RackConfig:
    values: dict[str, Any] = {
        "servers": 1, "node_data": folder, "data": folder / "rack", "disk_bytes": DISK_BYTES,
        "seed": 7, **changes,
    }  # fmt: skip
    return RackConfig(**values)


@asynccontextmanager
async def rack(config: RackConfig) -> AsyncGenerator[RackInfo]:
    async with trio.open_nursery() as nursery:
        yield await nursery.start(partial(run_rack, config))
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def bmc_of(info: RackInfo, index: int = 0) -> AsyncGenerator[Bmc]:
    credentials = json.loads(info.credentials.read_text())
    async with open_bmc(info.servers[index].bmc, credentials, limits=LIMITS) as bmc:
        yield bmc


def console(info: RackInfo, folder: Path) -> str:
    return (folder / "rack" / "console" / f"{info.servers[0].name}.log").read_text()


def image() -> bytes:
    return (MAGIC + b'{"name": "demo"}\n').ljust(512, b"\0") + os.urandom(1 << 20)


async def test_an_unknown_machine_boots_the_ramdisk_and_tells_what_it_is(
    tmp_path: Path,
) -> None:
    async with rack_site(tmp_path) as site:
        site.bound = False
        site.script = site.ramdisk_script
        async with rack(settings(tmp_path, power_on=True)) as info:
            await site.until(lambda: len(site.hellos) >= 2)
    (server,) = info.servers
    assert site.roles == ["rom", "ipxe"]
    assert site.paths[:3] == [
        f"/boot/v1/script?mac={server.mac}",
        "/boot/v1/file/vmlinuz",
        "/boot/v1/file/initrd",
    ]
    hello = site.hellos[0]
    assert (hello["mac"], hello["cap"]) == (server.mac, "capability")
    assert hello["inventory"]["system"]["uuid"] == server.uuid
    assert hello["inventory"]["disks"][0]["bytes"] == DISK_BYTES
    assert "capability" not in console(info, tmp_path)


async def test_a_server_is_deployed_and_phones_in_from_its_disk(tmp_path: Path) -> None:
    async with rack_site(tmp_path) as site:
        site.script = site.ramdisk_script
        asset = PeerAsset.of(image())
        site.assets[asset.asset] = asset
        told = first_boot({"hostname": "web-1"}, "server-id", 1, [f"{site.url}/phone/v1/cap"])
        site.plan = [
            {"do": "write_image", "disk": {"first": True}, "asset": asset.asset,
             "size": len(asset.data), "urls": [f"{site.url}/assets/{asset.asset}"]},
            {"do": "first_boot", "disk": {"first": True}, "image_bytes": len(asset.data),
             **told},
        ]  # fmt: skip
        async with rack(settings(tmp_path)) as info, bmc_of(info) as bmc:
            await bmc.set_boot("network")
            await bmc.set_power(True)
            await site.until(lambda: len(site.results) == 2)
            assert [result["error"] for result in site.results] == [None, None]
            await bmc.set_boot("disk")
            await bmc.set_power(False)
            assert await bmc.power_state() == "off"
            await bmc.set_power(True)
            await site.until(lambda: site.phone_ins)
            assert await bmc.power_state() == "on"
        disk = Path(info.servers[0].disk).read_bytes()
    phoned = {"path": "/phone/v1/cap", "instance_id": "server-id-1", "hostname": "web-1"}
    assert site.phone_ins == [phoned]
    assert site.roles == ["rom", "ipxe", "os"]
    assert disk.startswith(asset.data)
    assert "/phone/v1/cap" not in console(info, tmp_path)


async def test_a_plug_pulled_in_the_middle_of_an_image_only_costs_time(tmp_path: Path) -> None:
    async with rack_site(tmp_path) as site:
        site.script = site.ramdisk_script
        asset = PeerAsset.of(image() + os.urandom(6 << 20))
        site.assets[asset.asset] = asset
        urls = [f"{site.url}/assets/{asset.asset}"]
        size = len(asset.data)
        step = {"do": "write_image", "disk": {"first": True}, "asset": asset.asset}
        site.plan = [{**step, "size": size, "urls": urls}]
        async with rack(settings(tmp_path, power_on=True)) as info, bmc_of(info) as bmc:
            await site.until(lambda: site.seen_ranges)
            await bmc.set_power(False)
            assert await bmc.power_state() == "off"
            await bmc.set_power(True)
            await site.until(lambda: site.results)
        assert site.results[0]["error"] is None
        assert Path(info.servers[0].disk).read_bytes()[:size] == asset.data


async def test_a_blank_disk_does_not_boot_and_the_server_stays_on(tmp_path: Path) -> None:
    async with rack_site(tmp_path) as site:
        site.script = lambda mac: "#!ipxe\nsanboot --no-describe --drive 0x80 || exit\n"
        async with rack(settings(tmp_path)) as info, bmc_of(info) as bmc:
            await bmc.set_boot("network")
            await bmc.set_power(True)
            with trio.fail_after(10):
                while "no bootable device" not in console(info, tmp_path):
                    assert await bmc.power_state() == "on"
            assert await bmc.power_state() == "on"


async def test_power_off_ends_a_running_agent_at_once(tmp_path: Path) -> None:
    async with rack_site(tmp_path) as site:
        site.script = site.ramdisk_script
        site.poll_s = 600
        async with rack(settings(tmp_path, power_on=True)) as info, bmc_of(info) as bmc:
            await site.until(lambda: site.hellos)
            with trio.fail_after(3):
                await bmc.set_power(False)
            assert await bmc.power_state() == "off"


async def test_a_server_waits_for_its_node_and_finds_it_after_a_restart(
    tmp_path: Path,
) -> None:
    async with rack(settings(tmp_path, power_on=True, rom="ipxe")) as info:
        for _ in range(2):  # the second site has other ports: the file is read again
            async with rack_site(tmp_path) as site:
                site.script = lambda mac: "#!ipxe\nreboot\n"
                await site.until(lambda site=site: len(site.paths) >= 2)
    assert "restarting" in console(info, tmp_path)


async def test_a_rack_that_was_killed_comes_back_as_it_was(tmp_path: Path) -> None:
    config = settings(tmp_path, servers=2)
    async with rack(config) as before, bmc_of(before, 1) as bmc:
        await bmc.set_boot("disk")
        await bmc.set_power(True)
    Path(before.servers[1].disk).write_bytes(b"kept".ljust(DISK_BYTES, b"\0"))
    async with rack(config) as after, bmc_of(after, 1) as bmc:
        assert after == before
        assert await bmc.power_state() == "on"
        assert await bmc.boot_device() == "disk"
        async with bmc_of(after, 0) as other:
            assert await other.power_state() == "off"
    assert Path(after.servers[1].disk).read_bytes().startswith(b"kept")
    assert after.credentials.stat().st_mode & 0o777 == 0o600


async def test_two_racks_do_not_share_a_folder(tmp_path: Path) -> None:
    async with rack(settings(tmp_path)):
        with pytest.RaisesGroup(
            pytest.RaisesExc(Refused, match="already runs"), flatten_subgroups=True
        ):
            async with rack(settings(tmp_path)):
                raise AssertionError("must not run")


@pytest.mark.parametrize(
    "wrong",
    [
        {"servers": 0},
        {"servers": 501},
        {"name_prefix": "Sim_"},
        {"disk_bytes": 1},
        {"disk_bytes": (16 << 20) + 1},
        {"seed": -1},
        {"bmc_port": 70000},
        {"bmc_host": "0.0.0.0"},
        {"relay": "10.0.0.1"},
    ],
)
def test_bad_settings_are_refused_in_one_sentence(
    tmp_path: Path, wrong: dict[str, Any]
) -> None:
    with pytest.raises(Refused) as caught:
        settings(tmp_path, **wrong)
    assert str(next(iter(wrong.values()))) in str(caught.value) or "16 MiB" in str(caught.value)


@pytest.mark.parametrize(
    "content", ["", "[]", "{", '{"dhcp": "x", "tftp": 1}', '{"dhcp": 0, "tftp": 99999}']
)
def test_a_ports_file_that_makes_no_sense_is_no_node(tmp_path: Path, content: str) -> None:
    from node.rack.ports import read_nodes

    assert read_nodes([tmp_path]) == []
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "ports.json").write_text(content)
    assert read_nodes([tmp_path]) == []
