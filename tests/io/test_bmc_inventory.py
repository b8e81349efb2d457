"""What a server is made of, read from BMCs of different make; the machine is not touched."""

import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio

from drivers.api import BmcCredentials, BmcLimits, open_bmc
from drivers.errors import DeviceRefused, DriverError
from node.rack.config import RackConfig
from node.rack.hardware import MEMORY_BYTES
from node.rack.main import RackInfo, run_rack
from tests.support.redfish_emulator import PASSWORD, need_emulator, redfish_emulator

LIMITS = BmcLimits(request_s=10)


@asynccontextmanager
async def a_rack(folder: Path) -> AsyncGenerator[tuple[RackInfo, BmcCredentials]]:
    config = RackConfig(servers=2, node_data=folder, data=folder / "rack")
    async with trio.open_nursery() as nursery:
        info: RackInfo = await nursery.start(partial(run_rack, config))
        who = json.loads(info.credentials.read_text())
        yield info, BmcCredentials(username=who["username"], password=who["password"])
        nursery.cancel_scope.cancel()


async def test_the_virtual_bmc_shows_the_machine_that_its_ramdisk_will_see(tmp_path):
    with trio.fail_after(30):
        async with a_rack(tmp_path) as (info, who):
            sim = info.servers[1]
            async with open_bmc(sim.bmc, who, limits=LIMITS) as bmc:
                found = await bmc.inventory()
                assert await bmc.power_state() == "off"
    record = json.loads((tmp_path / "rack" / "rack.json").read_text())["servers"][sim.name]
    assert found["source"] == "redfish"
    assert found["system"]["serial"] == record["serial"]
    assert found["system"]["uuid"] == record["uuid"]
    assert [nic["mac"] for nic in found["nics"]] == [record["mac"]]
    assert [(d["serial"], d["bytes"]) for d in found["disks"]] == [
        (f"{record['serial']}-D0", record["disk_bytes"])
    ]
    assert found["memory"] == {"bytes": MEMORY_BYTES}
    assert found["cpu"] == {"model": "Simulated CPU", "sockets": 1, "cores": 8, "threads": 16}


@pytest.mark.parametrize("fake", [False, True])
async def test_sushy_tools_shows_what_it_has(tmp_path, fake):
    need_emulator()
    with trio.fail_after(60):
        async with redfish_emulator(tmp_path, fake=fake) as url:
            who = BmcCredentials(username="admin", password=PASSWORD)
            async with open_bmc(url, who, limits=LIMITS) as bmc:
                found = await bmc.inventory()
            wrong = BmcCredentials(username="admin", password="wrong-password")
            async with open_bmc(url, wrong, limits=LIMITS) as bmc:
                with pytest.raises(DeviceRefused, match="password was refused"):
                    await bmc.inventory()
    assert found["system"]["uuid"]
    assert len(found["nics"]) == 1
    assert fake or found["memory"]["bytes"]  # the fake driver has none to show


async def test_ipmi_says_that_it_cannot():
    async with open_bmc("ipmi://127.0.0.1", BmcCredentials(username="u", password="p")) as bmc:
        with pytest.raises(DriverError, match="IPMI does not tell"):
            await bmc.inventory()
