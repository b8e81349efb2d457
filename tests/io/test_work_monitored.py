"""Monitored servers: known, never touched, managed once they are promoted."""

from typing import Any

import pytest

from mesh.errors import Refused
from mesh.proto import tables
from node.boot.ports import Refusal
from tests.support.work_machine import IP, MAC
from tests.support.work_site import WorkSite


def adoption(site: WorkSite, **more: Any) -> dict[str, Any]:
    return {
        "server": site.server, "name": "db1", "macs": [MAC], "tags": ["rack:4"],
        "bmc": {"url": site.bmc.url, "secret": "bmc1"}, **more,
    }  # fmt: skip


async def adopt(site: WorkSite, **more: Any) -> None:
    job = await site.end(await site.give("server.adopt", adoption(site, **more)))
    assert (job["state"], job["error"]) == ("succeeded", None)


ORDERS = {
    "server.power": {"on": False}, "server.release": {}, "server.password": {},
    "server.deploy": {
        "image": "demo", "asset": "b3:" + "ab" * 32, "hostname": "web1", "ssh_keys": [],
    },
}  # fmt: skip


@pytest.mark.parametrize("kind", ORDERS)
async def test_an_order_that_came_round_the_front_door_never_touches_the_server(tmp_path, kind):
    async with WorkSite(tmp_path).running(machine=False) as site:
        await adopt(site)
        row = site.server_row()
        assert (row["state"], row["administration"], row["tags"]) == (
            "active", "monitored", ["rack:4"],
        )  # fmt: skip
        params = {"server": site.server, **ORDERS[kind]}
        with pytest.raises(Refused, match="db1 is monitored, so it is never powered"):
            await site.give(kind, params)
        order = site.new_id()  # as a hub gives it: a row, that nobody here was asked about
        body = {"signed": site.order(kind, params, id=order), "created_ms": 1}
        await site.store.write(lambda tx: tx.put(site.scope, tables.ORDER, order, body))
        job = await site.end(order)
        assert job["state"] == "failed"
        assert "db1 is monitored" in job["error"]
        assert site.bmc.orders == []
        assert site.server_row() == row


async def test_a_job_that_is_running_stops_at_its_next_step(tmp_path):
    """Whatever let it begin: the last bar is in front of every step."""
    async with WorkSite(tmp_path).running(machine=False) as site:
        await adopt(site)
        await site.end(await site.give("server.promote", {"server": site.server}))
        managed = {**site.server_row(), "state": "available"}
        await site.store.write(
            lambda tx: tx.put(site.scope, tables.SERVER, site.server, managed)
        )
        site.assets.waiting = "waits"
        job = await site.deploy()
        await site.until(lambda: site.job(job).get("state") == "running")
        row = {**site.server_row(), "administration": "monitored"}
        await site.store.write(lambda tx: tx.put(site.scope, tables.SERVER, site.server, row))
        site.assets.waiting = None
        assert "db1 is monitored" in (await site.end(job))["error"]
        assert site.bmc.orders == []


async def test_a_monitored_machine_is_given_nothing_to_boot_until_it_is_promoted(tmp_path):
    async with WorkSite(tmp_path).running(machine=False) as site:
        await adopt(site, inspect=None)
        script = await site.need_desk().script_for(MAC, IP)
        assert isinstance(script, Refusal)
        assert "db1 is monitored" in str(script)
        job = await site.end(await site.give("server.promote", {"server": site.server}))
        assert job["state"] == "succeeded"
        row = site.server_row()
        assert (row["state"], row["administration"], row["cleaned"]) == (
            "active", "managed", False,
        )  # fmt: skip
        assert site.bmc.orders == []
        with pytest.raises(Refused, match="managed already"):
            await site.give("server.promote", {"server": site.server})
        assert isinstance(await site.need_desk().script_for(MAC, IP), str)


async def test_a_promoted_server_is_wiped_at_its_release_and_not_before(tmp_path):
    async with WorkSite(tmp_path).running() as site:
        await adopt(site)
        await site.end(await site.give("server.promote", {"server": site.server}))
        with pytest.raises(Refused, match="release it first"):
            await site.deploy()
        job = await site.end(await site.give("server.release", {"server": site.server}))
        assert (job["state"], job["error"]) == ("succeeded", None)
        assert site.server_row()["state"] == "available"
        assert site.server_row()["cleaned"] is True


async def test_what_is_there_already_is_not_adopted_twice(tmp_path):
    async with WorkSite(tmp_path).running(machine=False) as site:
        await adopt(site, serial="CZ1234")
        other = {**adoption(site), "server": site.new_id(), "bmc": None}
        for change, says in (
            ({}, f"machine {MAC} is already accepted as db1"),
            ({"macs": ["52:54:00:00:00:99"]}, "the name db1 is taken"),
            ({"macs": ["52:54:00:00:00:99"], "name": "x", "serial": "cz1234"}, "serial number"),
        ):
            with pytest.raises(Refused, match=says):
                await site.give("server.adopt", {**other, **change})


def described(mac: str = MAC, serial: str = "CZ1") -> dict[str, Any]:
    return {
        "source": "redfish", "system": {"vendor": "HPE", "product": "DL", "serial": serial},
        "memory": {"bytes": 64 << 30}, "disks": [], "nics": [{"name": "n1", "mac": mac}],
    }  # fmt: skip


def by_bmc(site: WorkSite, **more: Any) -> dict[str, Any]:
    bmc = {"url": site.bmc.url, "secret": "bmc1"}
    return {"server": site.server, "name": "srv1", "bmc": bmc, "inspect": "oob", **more}


async def test_a_server_is_known_by_its_bmc_before_its_first_boot(tmp_path):
    async with WorkSite(tmp_path).running(machine=False) as site:
        site.bmc.described = described()
        job = await site.end(await site.give("server.accept", by_bmc(site)))
        assert (job["state"], job["error"]) == ("succeeded", None)
        row = site.server_row()
        assert (row["state"], row["macs"], row["serial"]) == ("available", [MAC], "CZ1")
        found = site.store.get(site.scope, tables.INVENTORY, MAC).body
        assert (found["source"], found["summary"]) == (
            "redfish", "HPE DL (CZ1) 64.0 GiB RAM",
        )  # fmt: skip
        assert site.bmc.orders == []


async def test_what_is_read_before_the_first_boot_is_deployed_like_any_other(tmp_path):
    async with WorkSite(tmp_path).running() as site:
        site.bmc.described = described()
        await site.end(await site.give("server.accept", by_bmc(site)))
        job = await site.end(await site.deploy())
        assert (job["state"], job["error"]) == ("succeeded", None)


async def test_a_bmc_that_describes_another_server_of_ours_makes_none(tmp_path):
    async with WorkSite(tmp_path).running(machine=False) as site:
        await adopt(site, serial="CZ1")
        for other, says in (
            (described(), f"its BMC says that machine {MAC} is already accepted as db1"),
            (described("52:54:00:00:00:77"), "serial number cz1 is that of db1 already"),
        ):
            site.bmc.described = other
            bmc = {"url": site.bmc.url.replace("Systems", "systems"), "secret": "bmc1"}
            params = by_bmc(site, server=site.new_id(), name=site.new_id(), bmc=bmc)
            site.bmc.url = bmc["url"]
            job = await site.end(await site.give("server.accept", params))
            assert job["state"] == "failed"
            assert says in job["error"]
            assert site.store.get(site.scope, tables.SERVER, params["server"]) is None
            site.bmc.url = "http://bmc1/redfish/v1/Systems/1"


async def test_a_bmc_without_macs_needs_a_boot_and_says_so(tmp_path):
    async with WorkSite(tmp_path).running(machine=False) as site:
        site.bmc.described = {"system": {}, "nics": [{"name": "n1", "mac": ""}, 7]}
        job = await site.end(await site.give("server.accept", by_bmc(site)))
        assert "its BMC tells no MAC address" in job["error"]
