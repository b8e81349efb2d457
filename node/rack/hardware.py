"""The machine that the ramdisk agent finds in a simulated server.

Knows no network and no power supply. Rule: once the plug is pulled nothing sleeps any more, and
the agent is told to leave; whatever was on the disk by then is what stays there.
"""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from node.rack.drive import SimulatedDrive
from node.rack.state import ServerRecord
from node.ramdisk.hardware import Disk, Drive

MEMORY_BYTES: Final = 16 << 30
KERNEL: Final = "6.1.0-simulated"


class FakeHardware:
    """The agent's hardware port (node.ramdisk.hardware.Hardware) over a sparse file."""

    def __init__(
        self,
        server: ServerRecord,
        disk: Path,
        say: Callable[[str], None],
        *,
        thawed: bool = False,
    ) -> None:
        """``thawed``: the power was off and on again since the rack began."""
        self.boot_mac = server.mac
        self._server = server
        self._disk = disk
        self._say = say
        self._thawed = thawed
        self._started = time.monotonic()
        self._pulled = threading.Event()

    def pull_plug(self) -> None:
        """End every sleep, now and later."""
        self._pulled.set()

    def pulled(self) -> bool:
        """Say whether the power is gone."""
        return self._pulled.is_set()

    def disks(self) -> list[Disk]:
        """Return the server's one disk."""
        return [
            Disk(
                name="vda",
                path=str(self._disk),
                serial=f"{self._server.serial}-D0",
                bytes=self._server.disk_bytes,
                model="Simulated disk",
            )
        ]

    def drive(self, disk: Disk) -> Drive:
        """Return the port to the disk, which may be told to lie (SimulatedDrive)."""
        return SimulatedDrive(disk, self._server.disk_kind, thawed=self._thawed)

    def inventory(self) -> dict[str, Any]:
        """Describe the machine in the shape of node.ramdisk.inventory."""
        (disk,) = self.disks()
        return {
            "system": {
                "vendor": "Rackmesh",
                "product": "Simulated server",
                "serial": self._server.serial,
                "uuid": self._server.uuid,
                "board": "sim",
            },
            "firmware": {"type": "bios", "vendor": "Rackmesh", "version": "1", "date": ""},
            "cpu": {"model": "Simulated CPU", "sockets": 1, "cores": 8, "threads": 16},
            "memory": {"bytes": MEMORY_BYTES},
            "disks": [
                {
                    "name": disk.name,
                    "serial": disk.serial,
                    "model": disk.model,
                    "bytes": disk.bytes,
                    "sector_bytes": disk.sector_bytes,
                    "rotational": False,
                    "bus": "virtio",
                    "fixed": True,
                    "writable": True,
                    "erase": self.drive(disk).capabilities().dump(),
                }
            ],
            "nics": [
                {
                    "name": "net0",
                    "mac": self.boot_mac,
                    "link": True,
                    "speed_mbps": 10_000,
                    "driver": "simulated",
                    "boot": True,
                }
            ],
            "kernel": KERNEL,
            "uptime_s": round(time.monotonic() - self._started, 1),
        }

    def reboot(self) -> None:
        """Nothing to do here: the server sees how the agent ended."""

    def poweroff(self) -> None:
        """Nothing to do here: the server sees how the agent ended."""

    def now(self) -> float:
        """Return monotonic seconds."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Wait, or return at once when the power goes."""
        self._pulled.wait(seconds)

    def say(self, text: str) -> None:
        """Print on the server's console."""
        self._say(text)
