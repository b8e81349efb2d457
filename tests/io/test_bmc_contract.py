"""The contract of a BMC driver, against BMCs of different make.

It asks for neither sessions nor `Once`: not every BMC has them.
"""

import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from drivers.api import Bmc, BmcCredentials, BmcLimits, open_bmc
from drivers.errors import DeviceRefused, NotOffered
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


async def test_sensors_have_names_units_and_a_state_that_fits_their_limits(
    target: Target,
) -> None:
    async with target.open() as bmc:
        await bmc.set_power(True)
        assert "sensors" in await bmc.capabilities()
        readings = await bmc.sensors()
    assert {one.kind for one in readings} >= {"temperature", "fan"}
    warm = [one for one in readings if one.kind == "temperature"]
    for one in warm:
        assert one.name
        assert (one.unit, one.state) == ("Cel", "ok")
        assert one.value is not None
        assert 0 < one.value < (one.thresholds.upper_critical or 0)
    assert all(one.unit == "RPM" for one in readings if one.kind == "fan")


@pytest.mark.parametrize("target", ["rack", "ipmi_sim"], indirect=True)
async def test_the_event_log_is_read_newest_first_and_nothing_is_cleared(
    target: Target,
) -> None:
    async with target.open() as bmc:
        await bmc.set_power(True)
        assert "events" in await bmc.capabilities()
        before, after = await bmc.events(), await bmc.events()
    assert before == after
    assert before.entries
    assert not before.more
    assert all(one.id and one.message for one in before.entries)
    numbers = [int(one.id) for one in before.entries]
    assert numbers == sorted(numbers, reverse=True)


async def test_what_is_offered_is_given_and_the_rest_is_one_sentence(target: Target) -> None:
    async with target.open() as bmc:
        offered = await bmc.capabilities()
        verbs = {"sensors": bmc.sensors, "events": bmc.events, "bios": bmc.bios,
                 "firmware": bmc.firmware, "accounts": bmc.accounts}  # fmt: skip
        given: dict[str, Any] = {}
        for name, verb in verbs.items():
            try:
                given[name] = await verb()
            except NotOffered as refusal:
                assert bmc.url in str(refusal)  # noqa: PT017
                assert "\n" not in str(refusal)  # noqa: PT017
    assert offered >= given.keys()
    assert given["sensors"]
    assert all(one.name and one.version for one in given.get("firmware", ()))
    if "accounts" in offered:
        assert target.username in {one.username for one in given["accounts"]}
    kind = "emulator" if "emulator" in target.password else target.url.partition(":")[0]
    assert given.keys() - {"sensors"} == {
        "emulator": {"bios", "firmware"}, "http": verbs.keys() - {"sensors"},
        "ipmi": {"events", "firmware", "accounts"},
    }[kind]  # fmt: skip


@only_redfish
async def test_bios_settings_wait_for_the_next_start_and_are_read_back(
    target: Target,
) -> None:
    async with target.open() as bmc:
        await bmc.set_power(False)
        before = await bmc.bios()
        name = next(n for n in ("HyperThreading", "ProcTurboMode") if n in before.current)
        value = "Disabled" if before.current[name] == "Enabled" else "Enabled"
        for _ in range(2):  # the second time nothing is left to do
            assert (await bmc.set_bios({name: value})).pending[name] == value
        with pytest.raises(DeviceRefused, match="no BIOS setting 'NoSuch'"):
            await bmc.set_bios({"NoSuch": "x"})
        await bmc.set_power(True)
        with trio.fail_after(10):
            while (now := await bmc.bios()).current[name] != value:
                await trio.sleep(0.1)
        assert now.pending.get(name, value) == value


async def test_each_attempt_is_recorded_and_a_dead_address_gives_way_to_the_next(
    target: Target,
) -> None:
    dead = f"http://127.0.0.1:{sim.free_port()}"
    who = BmcCredentials(username=target.username, password=target.password)
    async with open_bmc(f"{dead} {target.url}", who, limits=LIMITS) as bmc:
        await bmc.set_power(True)
        assert await bmc.power_state() == "on"
        first, second = bmc.attempts[:2]
    assert first.provider.startswith(dead)
    assert first.verb == "set_power"
    assert "cannot connect" in first.outcome
    assert (second.provider.partition("/redfish")[0], second.outcome) == (
        target.url.partition("/redfish")[0], "done",
    )  # fmt: skip
    assert target.password not in str(bmc.attempts)


@pytest.mark.parametrize("target", ["rack"], indirect=True)
async def test_a_way_that_cannot_take_the_secret_is_said_and_passed_over(
    target: Target,
) -> None:
    who = BmcCredentials(username=target.username, password=target.password)
    ways = f"ipmi://127.0.0.1:9 {target.url}"
    async with open_bmc(ways, who, limits=LIMITS) as bmc:
        assert await bmc.power_state() == "off"
        assert [one.verb for one in bmc.attempts] == ["open", "power_state"]
        assert "IPMI 2.0 takes at most 20" in bmc.attempts[0].outcome
    with pytest.raises(DeviceRefused, match="takes at most 20"):
        async with open_bmc("ipmi://127.0.0.1:9 ipmi://127.0.0.1:8", who, limits=LIMITS):
            raise AssertionError("must not open")


async def test_a_refused_password_is_not_tried_by_another_way(target: Target) -> None:
    who = BmcCredentials(username=target.username, password="wrong-password")
    async with open_bmc(f"{target.url} {target.url}", who, limits=LIMITS) as bmc:
        with pytest.raises(DeviceRefused, match="password was refused"):
            await bmc.sensors()
        assert len(bmc.attempts) == 1


@pytest.mark.parametrize("target", ["ipmi_sim"], indirect=True)
async def test_a_sensor_that_gets_too_warm_is_a_warning_and_an_event(
    target: Target, tmp_path: Path
) -> None:
    async with target.open() as bmc:
        (tmp_path / "sim" / "cpu_temp").write_text("95\n")
        with trio.fail_after(10):
            while (warm := (await bmc.sensors())[0]).value != 95:
                await trio.sleep(0.1)
            while len((log := await bmc.events()).entries) < 2:
                await trio.sleep(0.1)
    assert (warm.state, warm.thresholds.upper_warning) == ("warning", 90)
    newest = log.entries[0]
    assert newest.severity == "warning"
    assert newest.message == "Temperature CPU Temp: upper non-critical, going high"
