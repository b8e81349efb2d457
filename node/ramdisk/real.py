"""The hardware port on a real machine: the kernel's files, its clock, its power.

It knows that it runs in our initramfs, where busybox is at /bin/busybox. Rule: before the power
goes, everything written is on the disks.
"""

import os
import sys
import time
from typing import Any, Final, NoReturn

from node.ramdisk.hardware import Disk
from node.ramdisk.inventory import read_disks, read_inventory, usable_disks

BUSYBOX: Final = "/bin/busybox"


class RealHardware:
    """Hardware (hardware.py) of the machine that this program runs on."""

    def __init__(self, boot_mac: str) -> None:
        self.boot_mac = boot_mac

    def disks(self) -> list[Disk]:
        """Return the writable, fixed disks."""
        return usable_disks(read_disks())

    def inventory(self) -> dict[str, Any]:
        """Describe the machine."""
        return read_inventory(self.boot_mac)

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
