"""A release by the site's policy: held with the reason, thawed once, recorded and signed."""

from pathlib import Path
from typing import Any

import pytest

from mesh.proto import tables
from mesh.proto.erase_record import read_record
from mesh.proto.ids import node_id
from tests.support.work_site import WorkSite

SCOPE = tables.site_scope("lab")
ATA = ["ata-enhanced", "ata-normal", "overwrite"]


def names(site: WorkSite, methods: list[str], **more: Any) -> None:
    """Let the machine's disk say what it can."""
    disk = site.machine.hardware["disks"][0]
    disk |= {"erase": {"methods": methods, "frozen": False, "locked": False}, **more}


async def policy(site: WorkSite, **body: Any) -> None:
    await site.store.write(lambda tx: tx.put(SCOPE, tables.CLEANUP, "site", body))


def records(site: WorkSite) -> list[dict[str, Any]]:
    rows = site.store.rows(SCOPE, tables.ERASE_RECORD)
    return [read_record(row.body["signed"], site.org.root_fp) for row in rows]


async def release(site: WorkSite) -> dict[str, Any]:
    return dict(await site.end(await site.give("server.release", {"server": site.server})))


async def test_a_release_leaves_a_signed_record(tmp_path: Path) -> None:
    async with WorkSite(tmp_path).running() as site:
        names(site, ["nvme-format-user-data", "overwrite"])
        await site.accept()
        job = await release(site)
        assert job["state"] == "succeeded"
        (record,) = records(site)
        assert (record["job"], record["server"]) == (job["id"], site.server)
        assert (record["method"], record["level"]) == ("nvme-format-user-data", "clear")
        assert (record["proved"], record["disk"]["serial"]) == (True, "D1")
        assert record["session_key"] == job["agent"]["key"]
        assert len(record["node"]) == len(node_id(bytes(32)))


async def test_a_level_out_of_reach_holds_the_server_until_a_fallback_is_named(
    tmp_path: Path,
) -> None:
    async with WorkSite(tmp_path).running() as site:
        names(site, ["write-zeroes", "overwrite"])
        await policy(site, level="purge")
        await site.accept()
        job = await release(site)
        assert (
            "vda (D1) cannot be erased to the level purge: it can do overwrite" in job["error"]
        )
        assert site.server_row()["state"] == "cleaning failed"
        assert (site.machine.disk, records(site)) == ("old data", [])

        await policy(site, level="purge", fallback=["overwrite"])
        await site.give("job.retry", {"job": job["id"]})
        await site.until(lambda: site.job(job["id"])["state"] == "succeeded")
        (record,) = records(site)
        assert (record["level"], record["wanted"], record["fallback"]) == (
            "clear", "purge", True,
        )  # fmt: skip


async def test_a_disk_that_says_done_and_is_not_holds_the_server(tmp_path: Path) -> None:
    async with WorkSite(tmp_path).running() as site:
        names(site, ["nvme-format-crypto", "overwrite"])
        site.machine.wipe_leaves = 2
        await site.accept()
        job = await release(site)
        assert job["error"].endswith(
            "the disk D1 of srv1 still holds 2 sectors of what it held"
        )
        assert (site.server_row()["state"], records(site)) == ("cleaning failed", [])


@pytest.mark.parametrize(("frozen", "ends"), [(1, "succeeded"), (2, "failed")])
async def test_a_frozen_disk_gets_one_power_cycle(
    tmp_path: Path, frozen: int, ends: str
) -> None:
    async with WorkSite(tmp_path).running() as site:
        names(site, ATA, rotational=True)
        await policy(site, level="purge")
        await site.accept()
        site.machine.frozen_boots = frozen
        job = await release(site)
        assert (job["state"], job["attempt"]) == (ends, 2)
        if ends == "failed":
            assert "is frozen by the firmware" in job["error"]
            assert "also after a power cycle" in job["error"]
            assert site.server_row()["state"] == "cleaning failed"
        else:
            assert records(site)[0]["level"] == "purge"
            assert records(site)[0]["on_hardware"] == "not proven"


async def test_a_policy_that_cannot_be_read_is_never_the_default(tmp_path: Path) -> None:
    async with WorkSite(tmp_path).running() as site:
        await policy(site, level="sparkling")
        await site.accept()
        job = await release(site)
        assert "the cleanup policy of site cannot be read" in job["error"]
        assert site.machine.disk == "old data"
