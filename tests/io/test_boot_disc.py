"""Boot discs over HTTP: ranges, conditions, refusals; and simulated servers that boot them."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import pytest
import trio

from drivers.api import BmcCredentials, BmcLimits, open_bmc
from drivers.errors import DeviceRefused
from node.boot.files import BootFiles
from node.boot.service import BootConfig
from node.proto.boot_iso import END_SECTORS, FILES_AT, SECTOR
from node.proto.boot_script import CONSOLE
from node.proto.disc_config import ramdisk_config
from node.rack.config import RackConfig
from node.rack.main import RackInfo, run_rack
from tests.support.boot_node import Node, boot_node

SUBNET = {
    "cidr": "127.93.0.0/24", "first": "127.93.0.10", "last": "127.93.0.99", "lease_s": 600,
    "salt": "5a17", "router": "127.93.0.1", "dns": ["127.93.0.2"],
}  # fmt: skip
LOOPBACK = BootConfig(site="lab", listen="127.0.0.1", dhcp_port=0, tftp_port=0, http_port=0)
CONTENT = {
    "mediaboot.bios": b"b" * 9_001, "mediaboot.efi": b"e" * 30_720, "vmlinuz": b"k" * 99_001,
    "initrd": b"i" * 300_001,
}  # fmt: skip
PATH = "/boot/v1/media/"


@asynccontextmanager
async def serving(folder: Path) -> AsyncIterator[tuple[Node, httpx2.AsyncClient]]:
    boot = folder / "boot"
    boot.mkdir()
    for name, content in CONTENT.items():
        (boot / name).write_bytes(content)
    async with boot_node(folder, LOOPBACK, subnet=SUBNET, files=BootFiles(boot)) as node:
        async with httpx2.AsyncClient(base_url=node.boot.boot_url, trust_env=False) as client:
            yield node, client


async def test_a_disc_is_the_same_by_ranges_as_whole(tmp_path: Path) -> None:
    async with serving(tmp_path) as (_node, client):
        url = f"{PATH}good.iso"
        whole = await client.get(url)
        assert whole.status_code == 200
        assert whole.headers["cache-control"] == "no-store"
        disc = whole.content
        assert len(disc) % SECTOR == 0
        assert disc[FILES_AT * SECTOR + 64 :].startswith(CONTENT["mediaboot.bios"][64:])
        assert disc.endswith(bytes(END_SECTORS * SECTOR))
        for content in (CONTENT["vmlinuz"], CONTENT["initrd"]):
            assert disc.count(content) == 1
            assert disc.index(content) % SECTOR == 0
        head = await client.head(url)
        assert head.headers["content-length"] == str(len(disc))
        assert head.headers["accept-ranges"] == "bytes"
        for first, last in ((0, 0), (17 * SECTOR, 18 * SECTOR - 1), (60_000, 250_000)):
            part = await client.get(url, headers={"Range": f"bytes={first}-{last}"})
            assert part.status_code == 206
            assert part.content == disc[first : last + 1]
        tail = await client.get(url, headers={"Range": "bytes=-7"})
        assert tail.content == disc[-7:]
        past = await client.get(url, headers={"Range": f"bytes={len(disc)}-"})
        assert past.status_code == 416
        assert past.headers["content-range"] == f"bytes */{len(disc)}"
        same = await client.get(url, headers={"If-None-Match": whole.headers["etag"]})
        assert same.status_code == 304


async def test_another_machine_shares_all_but_the_head(tmp_path: Path) -> None:
    async with serving(tmp_path) as (node, client):
        one = await client.get(f"{PATH}good.iso")
        node.decisions.config = "set timeout=1\nlinux /vmlinuz other\n"
        two = await client.get(f"{PATH}good.iso")
        assert one.headers["etag"] != two.headers["etag"]
        assert one.content[FILES_AT * SECTOR :] == two.content[FILES_AT * SECTOR :]
        ranged = {"Range": "bytes=0-9", "If-Range": one.headers["etag"]}
        assert (await client.get(f"{PATH}good.iso", headers=ranged)).status_code == 200


@pytest.mark.parametrize("name", ["", "good", "x.iso/..", ".iso", "a" * 600 + ".iso"])
async def test_what_is_no_disc_is_not_there(tmp_path: Path, name: str) -> None:
    async with serving(tmp_path) as (_node, client):
        assert (await client.get(PATH + name)).status_code in (403, 404)


async def test_a_revoked_capability_and_missing_files_are_one_sentence(tmp_path: Path) -> None:
    async with serving(tmp_path) as (_node, client):
        refused = await client.get(f"{PATH}revoked.iso")
        assert (refused.status_code, refused.json()["detail"]) == (403, "revoked")
        (tmp_path / "boot" / "mediaboot.efi").unlink()
        lacking = await client.get(f"{PATH}good.iso")
        assert lacking.status_code == 503
        assert "lack mediaboot.efi" in lacking.json()["detail"]
        (tmp_path / "boot" / "mediaboot.efi").write_bytes(b"e")
        (tmp_path / "boot" / "mediaboot.bios").write_bytes(b"b")
        small = await client.get(f"{PATH}good.iso")
        assert "hold no loader" in small.json()["detail"]


async def test_a_known_server_has_its_address_reserved(tmp_path: Path) -> None:
    async with serving(tmp_path) as (node, _client):
        found = node.boot.network_of("02:00:00:00:00:07")
        assert found is not None
        assert str(found.address).startswith("127.93.0.")
        assert found.words()[1:] == ["rackmesh.gw=127.93.0.1", "rackmesh.dns=127.93.0.2"]
        assert node.boot.disc_base() == node.boot.boot_url


async def test_a_simulated_server_boots_its_disc_without_dhcp_and_tftp(tmp_path: Path) -> None:
    async with serving(tmp_path) as (node, _client), trio.open_nursery() as nursery:
        config = RackConfig(
            servers=1, node_data=tmp_path, data=tmp_path / "rack", disk_bytes=16 << 20, seed=5
        )
        info: RackInfo = await nursery.start(partial(run_rack, config))
        mac = info.servers[0].mac
        network = node.boot.network_of(mac)
        assert network is not None
        node.decisions.config = ramdisk_config([node.boot.boot_url], mac, "cap-7", network)
        who = BmcCredentials.parse(json.loads(info.credentials.read_text()))
        limits = BmcLimits(power_wait_s=20, poll_s=0.1)
        async with open_bmc(info.servers[0].bmc, who, limits=limits) as bmc:
            with pytest.raises(DeviceRefused, match="status 403"):
                await bmc.insert_medium(f"{node.boot.boot_url}{PATH}revoked.iso")
            await bmc.set_boot("cd")
            await bmc.insert_medium(f"{node.boot.boot_url}{PATH}good.iso")
            await bmc.set_power(True)
            hello = await _hello(node)
            await bmc.set_power(False)
            await bmc.eject_medium()
        assert hello[4] == str(network.address)
        said: dict[str, Any] = json.loads(hello[2])
        assert (said["mac"], said["cap"]) == (mac, "cap-7")
        counts = node.boot.statistics()
        assert counts["http"]["requests"] > 5
        assert not any(counts["dhcp"].values()), counts["dhcp"]
        assert not any(counts["tftp"].values()), counts["tftp"]
        console = (tmp_path / "rack" / "console" / "sim-1.log").read_text()
        assert "booting from the virtual CD" in console
        assert "cap-7" not in console
        assert CONSOLE in node.decisions.config
        nursery.cancel_scope.cancel()


async def _hello(node: Node) -> tuple[Any, ...]:
    with trio.fail_after(20):
        while True:
            for asked in node.decisions.asked:
                if asked[0] == "agent":
                    return asked
            await trio.sleep(0.05)


async def test_bmcs_read_discs_on_their_own_network_and_nothing_else(tmp_path: Path) -> None:
    entries: dict[str, Path | bytes] = dict(CONTENT)
    config = BootConfig(
        site="lab", listen="127.0.0.1", dhcp_port=0, tftp_port=0, http_port=0, oob="127.0.0.9"
    )
    files = BootFiles(entries=entries)
    async with boot_node(tmp_path, config, subnet=SUBNET, files=files) as node:
        base = node.boot.disc_base()
        assert base is not None
        assert base.startswith("http://127.0.0.9:")
        async with httpx2.AsyncClient(base_url=base, trust_env=False) as client:
            assert (await client.get(f"{PATH}good.iso")).status_code == 200
            assert (await client.get(f"{PATH}revoked.iso")).status_code == 403
            for path in ("/boot/v1/script", "/boot/v1/file/vmlinuz", "/assets/b3:00", "/"):
                assert (await client.get(path)).status_code == 404
