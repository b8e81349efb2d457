"""Simulated servers against the real boot services of a node: store, DHCP, TFTP and HTTP."""

import json
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import trio

from mesh.proto import tables
from node.boot.files import BootFiles
from node.boot.service import BootConfig
from node.proto.boot_script import local_disk_script, ramdisk_script
from node.proto.first_boot import first_boot
from node.proto.rack_disk import MAGIC
from node.rack.config import RackConfig
from node.rack.main import RackInfo, run_rack
from node.ramdisk.fat import VOLUME_BYTES, fat_volume
from tests.support.boot_node import SCOPE, Node, boot_node

SUBNET = {
    "cidr": "127.92.0.0/24",
    "first": "127.92.0.10",
    "last": "127.92.0.99",
    "lease_s": 600,
    "salt": "5a17",
}
LOOPBACK = BootConfig(site="lab", listen="127.0.0.1", dhcp_port=0, tftp_port=0, http_port=0)
FILES = {"undionly.kpxe": b"u" * 70_000, "vmlinuz": b"k" * 99_000, "initrd": b"i" * 99_000}
DISK_BYTES = 16 << 20


class Heard(list[tuple[Any, ...]]):
    """What the decisions were asked; wakes who waits for more."""

    def __init__(self) -> None:
        super().__init__()
        self.more = trio.Event()

    def append(self, asked: tuple[Any, ...]) -> None:
        super().append(asked)
        self.more.set()
        self.more = trio.Event()

    async def until(self, true: Callable[[], object]) -> None:
        """Wait for a level; the node's guard bounds it."""
        while not true():
            await self.more.wait()


@asynccontextmanager
async def node_and_rack(
    folder: Path, servers: int, before: Callable[[Node, list[str]], None]
) -> AsyncGenerator[tuple[Node, RackInfo, Heard]]:
    """Run both; ``before`` may set up decisions for the machines' MAC addresses."""
    config = RackConfig(
        servers=servers, node_data=folder, data=folder / "rack", disk_bytes=DISK_BYTES,
        seed=3, power_on=True,
    )  # fmt: skip
    files = BootFiles(entries=FILES)
    async with boot_node(folder, LOOPBACK, subnet=SUBNET, files=files) as node:
        async with trio.open_nursery() as nursery:
            info: RackInfo = await nursery.start(partial(run_rack, config))
            heard = node.decisions.asked = Heard()
            before(node, [server.mac for server in info.servers])
            (folder / "run").mkdir(exist_ok=True)
            ports = {**node.boot.ports, "address": "127.0.0.1", "subnet": SUBNET["cidr"]}
            (folder / "run" / "ports.json").write_text(json.dumps(ports))
            yield node, info, heard
            nursery.cancel_scope.cancel()


async def test_two_unknown_machines_boot_the_ramdisk_and_are_bound(tmp_path: Path) -> None:
    def ramdisk(node: Node, macs: list[str]) -> None:
        node.decisions.script = ramdisk_script(node.boot.urls(macs[0]), macs[0])

    async with node_and_rack(tmp_path, 2, ramdisk) as (node, info, heard):

        def hellos() -> list[str]:
            return [asked[-1] for asked in heard if asked[0] == "agent"]

        await heard.until(lambda: len(set(hellos())) == 2)
        bound = {row.key: row.body["ip"] for row in node.store.rows(SCOPE, tables.BINDING)}
    assert bound.keys() == {server.mac for server in info.servers}
    assert set(hellos()) == set(bound.values())


async def test_an_installed_system_comes_up_from_disk_and_phones_in(tmp_path: Path) -> None:
    told = first_boot({"hostname": "web"}, "id", 1, ["http://127.0.0.1:1/phone/v1/dead"])
    rack = tmp_path / "rack"

    def installed(node: Node, macs: list[str]) -> None:
        node.decisions.script = local_disk_script(node.boot.urls(macs[0]))
        alive = f"{node.boot.boot_url}/phone/v1/alive"
        meta = told["meta_data"].replace('/dead"]', f'/dead", "{alive}"]')
        volume = fat_volume(
            "CIDATA",
            {"meta-data": meta.encode(), "user-data": told["user_data"].encode()},
            sector_bytes=512,
            hidden_sectors=0,
        )
        with (rack / "disks" / "sim-1.img").open("r+b") as disk:
            disk.write(MAGIC + b"{}")
            disk.seek(DISK_BYTES - VOLUME_BYTES)
            disk.write(volume)

    async with node_and_rack(tmp_path, 1, installed) as (node, _, heard):

        def phoned() -> list[tuple[object, ...]]:
            return [asked for asked in heard if asked[0] == "phone"]

        await heard.until(phoned)
        (bound,) = [row.body["ip"] for row in node.store.rows(SCOPE, tables.BINDING)]
    fields = {"instance_id": "id-1", "hostname": "web"}
    assert phoned() == [("phone", "alive", fields, bound)]
