"""The contract of a BMC driver, against BMCs of different make.

It asks for neither sessions nor `Once`: not every BMC has them.
"""

import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
import trio

from drivers.api import Bmc, BmcCredentials, BmcLimits, open_bmc
from drivers.errors import DeviceRefused
from node.rack.config import RackConfig
from node.rack.main import RackInfo, run_rack
from tests.support import ipmi_sim as sim
from tests.support.redfish_emulator import PASSWORD, need_emulator, redfish_emulator

LIMITS = BmcLimits(request_s=10, power_wait_s=20, boot_wait_s=10, poll_s=0.2)


@dataclass(frozen=True)
class Target:
    url: str
    username: str
    password: str

    def open(self, password: str | None = None) -> AsyncIterator[Bmc]:
        who = BmcCredentials(username=self.username, password=password or self.password)
        return open_bmc(self.url, who, limits=LIMITS)


@asynccontextmanager
async def emulator(folder: Path) -> AsyncGenerator[Target]:
    need_emulator()
    async with redfish_emulator(folder) as url:
        yield Target(url, "admin", PASSWORD)


@asynccontextmanager
async def rack(folder: Path) -> AsyncGenerator[Target]:
    config = RackConfig(servers=2, node_data=folder, data=folder / "rack")
    async with trio.open_nursery() as nursery:
        info: RackInfo = await nursery.start(partial(run_rack, config))
        who = json.loads(info.credentials.read_text())
        yield Target(info.servers[0].bmc, who["username"], who["password"])
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def ipmi(folder: Path) -> AsyncGenerator[Target]:
    sim.need_ipmi_sim()
    async with sim.ipmi_sim(folder / "sim") as port:
        yield Target(f"ipmi://127.0.0.1:{port}", sim.USERNAME, sim.PASSWORD)


REDFISH = {"rack": rack, "emulator": emulator}
KINDS = {**REDFISH, "ipmi_sim": ipmi}


@pytest.fixture(params=KINDS)
async def target(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncGenerator[Target]:
    with trio.fail_after(60):
        async with KINDS[request.param](tmp_path) as found:
            yield found


only_redfish = pytest.mark.parametrize("target", REDFISH, indirect=True)


async def test_power_goes_where_it_is_told_and_stays_there(target: Target) -> None:
    async with target.open() as bmc:
        for on, state in ((True, "on"), (True, "on"), (False, "off"), (False, "off")):
            await bmc.set_power(on)
            assert await bmc.power_state() == state


async def test_boot_goes_where_it_is_told_whatever_the_power(target: Target) -> None:
    async with target.open() as bmc:
        for on in (False, True):
            await bmc.set_power(on)
            for device, uefi in (
                ("network", None), ("network", True), ("disk", True), ("network", False),
            ):  # fmt: skip
                await bmc.set_boot(device, uefi=uefi)
                assert await bmc.boot_device() == device


async def test_what_was_set_is_seen_by_the_next_caller(target: Target) -> None:
    async with target.open() as bmc:
        await bmc.set_power(False)
        await bmc.set_boot("network")
    async with target.open() as bmc:
        assert await bmc.power_state() == "off"
        assert await bmc.boot_device() == "network"


async def test_a_wrong_password_is_refused_in_one_sentence(target: Target) -> None:
    async with target.open(password="wrong-password") as bmc:
        with pytest.raises(DeviceRefused, match="password was refused") as caught:
            await bmc.set_power(True)
    assert "wrong-password" not in str(caught.value)


@only_redfish
async def test_the_service_root_is_address_enough_or_the_systems_are_named(
    target: Target,
) -> None:
    root = target.url.partition("/redfish")[0]
    who = BmcCredentials(username=target.username, password=target.password)
    async with open_bmc(root, who, limits=LIMITS) as bmc:
        try:
            assert await bmc.power_state() in ("on", "off")
        except DeviceRefused as refusal:
            assert target.url in str(refusal)  # noqa: PT017


@only_redfish
async def test_a_system_that_does_not_exist_is_refused_with_its_status(target: Target) -> None:
    who = BmcCredentials(username=target.username, password=target.password)
    async with open_bmc(f"{target.url}-not", who, limits=LIMITS) as bmc:
        with pytest.raises(DeviceRefused, match="status 404"):
            await bmc.power_state()


@pytest.mark.parametrize("target", ["rack", "ipmi_sim"], indirect=True)
async def test_a_new_password_counts_at_once_and_the_old_one_no_more(target: Target) -> None:
    async with target.open() as bmc:
        before = await bmc.power_state()
        await bmc.set_password("fresh-Passw0rd.7")
        with pytest.raises(DeviceRefused, match="password was refused"):
            await bmc.power_state()  # whoever still says the old one is a stranger
    async with target.open(password="fresh-Passw0rd.7") as bmc:
        assert await bmc.power_state() == before
        await bmc.set_password(target.password)
    async with target.open() as bmc:
        assert await bmc.power_state() == before


@pytest.mark.parametrize("target", ["emulator"], indirect=True)
async def test_a_service_without_accounts_says_so(target: Target) -> None:
    async with target.open() as bmc:
        with pytest.raises(DeviceRefused, match="no accounts that can be changed"):
            await bmc.set_password("fresh-Passw0rd.7")
