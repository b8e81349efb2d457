"""The hardware port on a real machine: the kernel's files, its clock, its power.

It knows that it runs in our initramfs, where busybox is at /bin/busybox. Rule: before the power
goes, everything written is on the disks.
"""

import contextlib
import os
import sys
import time
from typing import Any, Final, NoReturn

from node.ramdisk.ata import AtaDrive
from node.ramdisk.drive import BlockDrive
from node.ramdisk.errors import StepFailed
from node.ramdisk.hardware import Disk, Drive
from node.ramdisk.inventory import read_disks, read_inventory, usable_disks
from node.ramdisk.nvme import NvmeDrive
from node.ramdisk.passthrough import AtaPort, NvmePort

BUSYBOX: Final = "/bin/busybox"


class RealHardware:
    """Hardware (hardware.py) of the machine that this program runs on."""

    def __init__(self, boot_mac: str) -> None:
        self.boot_mac = boot_mac
        self._drives: dict[tuple[str, str], Drive] = {}

    def disks(self) -> list[Disk]:
        """Return the writable, fixed disks."""
        return usable_disks(read_disks())

    def drive(self, disk: Disk) -> Drive:
        """Return the port to a disk by its bus; any other is a plain block device."""
        known = self._drives.get((disk.name, disk.serial))
        if known is None:
            known = self._drives[(disk.name, disk.serial)] = self._made(disk)
        return known

    def _made(self, disk: Disk) -> Drive:
        try:
            if disk.bus == "nvme":
                port = NvmePort(disk.path)
                return NvmeDrive(disk, port, port.namespace, port.reset, self.sleep)
            if disk.bus == "ata":
                return AtaDrive(disk, AtaPort(disk.path))
        except OSError as exc:
            self.say(f"{disk.name} cannot be asked: {exc}")
        return BlockDrive(disk)

    def inventory(self) -> dict[str, Any]:
        """Describe the machine; of each usable disk also how it can be erased."""
        found = read_inventory(self.boot_mac)
        usable = {disk.name: disk for disk in usable_disks(found["disks"])}
        for entry in found["disks"]:
            disk = usable.get(entry["name"])
            if disk is not None:
                with contextlib.suppress(OSError, StepFailed):
                    entry["erase"] = self.drive(disk).capabilities().dump()
        return found

    def reboot(self) -> NoReturn:
        """Restart at once."""
        self._end("reboot")

    def poweroff(self) -> NoReturn:
        """Switch off at once."""
        self._end("poweroff")

    def now(self) -> float:
        """Return monotonic seconds."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Wait."""
        time.sleep(seconds)

    def say(self, text: str) -> None:
        """Print a line on the console."""
        print(f"RACKMESH {time.monotonic():.1f} {text}", flush=True)

    def _end(self, word: str) -> NoReturn:
        self.say(word)
        sys.stdout.flush()
        os.sync()
        os.execv(BUSYBOX, [word, "-f"])  # noqa: S606  a fixed program, no shell
