"""A machine made of files for the ramdisk agent: the hardware port without hardware."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from node.ramdisk.drive import BlockDrive
from node.ramdisk.hardware import Disk, Drive
from node.ramdisk.manifest import Manifest, parse_core
from tests.support.agent_peer import PeerAsset

MAC = "52:54:00:00:00:01"


class FakeMachine:
    """Hardware (node/ramdisk/hardware.py) whose time passes only while it sleeps."""

    boot_mac = MAC

    def __init__(self, *disks: Disk) -> None:
        self._disks = list(disks)
        self.time = 1000.0
        self.ends: list[str] = []
        self.said: list[str] = []

    def disks(self) -> list[Disk]:
        return self._disks

    def drive(self, disk: Disk) -> Drive:
        return BlockDrive(disk)

    def inventory(self) -> dict[str, Any]:
        return {"nics": [{"name": "eth0", "mac": MAC}], "disks": []}

    def reboot(self) -> None:
        self.ends.append("reboot")

    def poweroff(self) -> None:
        self.ends.append("poweroff")

    def now(self) -> float:
        self.time += 0.001
        return self.time

    def sleep(self, seconds: float) -> None:
        self.time += seconds

    def say(self, text: str) -> None:
        self.said.append(text)


class NoProgress:
    """Stands for Progress where nobody listens."""

    def __init__(self) -> None:
        self.done = 0
        self.total = 0
        self.fail_at: int | None = None

    def begin(self, total: int) -> None:
        self.done, self.total = 0, total

    def add(self, count: int) -> None:
        self.done += count
        self.tick()

    def tick(self) -> None:
        if self.fail_at is not None and self.done >= self.fail_at:
            raise KeyboardInterrupt("the power went")


class MemorySource:
    """Chunks out of memory; counts what is asked for."""

    def __init__(self, asset: PeerAsset) -> None:
        self.asset = asset
        self.asked: list[int] = []

    def manifest(self) -> Manifest:
        return parse_core(self.asset.core, self.asset.asset)

    def chunks(self, manifest: Manifest, first: int, count: int) -> Iterator[bytes]:
        for index in range(first, first + count):
            self.asked.append(index)
            offset, length = manifest.span(index)
            yield self.asset.data[offset : offset + length]


def file_disk(path: Path, size: int, serial: str = "S1", fill: bytes = b"") -> Disk:
    """Make a sparse file that stands for a disk."""
    with path.open("wb") as file:
        file.write(fill)
        file.truncate(size)
    return Disk("vda", str(path), serial, size)
