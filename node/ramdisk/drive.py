"""A drive of which only sectors are known: overwritten by us, or by the kernel's one command.

It knows nothing of NVMe (``nvme.py``) or ATA (``ata.py``), which fall back on it. Rule: a
method that the kernel does not name for the device is not offered.
"""

import contextlib
import fcntl
import os
import struct
from pathlib import Path
from typing import Any, Final

from node.ramdisk.disk import BLKZEROOUT, DiskHandle
from node.ramdisk.errors import MethodRefused, StepFailed
from node.ramdisk.hardware import (
    OVERWRITE,
    WRITE_ZEROES,
    Capabilities,
    Disk,
    Identity,
    Tick,
)

BLKFLSBUF: Final = 0x1261
ZEROOUT_BYTES: Final = 256 << 20
"""One request to make zeros: a device without the command is written by the kernel meanwhile,
and no word goes to the node."""


class BlockDrive:
    """A block device or file of which only sectors are known."""

    def __init__(self, disk: Disk, root: Path = Path("/")) -> None:
        self.disk = disk
        self._root = root

    def identify(self) -> Identity:
        """Return what the kernel knows; the size comes from the open device."""
        with DiskHandle(self.disk.path, self.disk.sector_bytes) as handle:
            return Identity(self.disk.model, self.disk.serial, handle.size)

    def capabilities(self) -> Capabilities:
        """Return overwrite, and write-zeroes where the kernel says that the device has it."""
        return Capabilities(self.block_methods())

    def block_methods(self) -> tuple[str, ...]:
        """Return the methods that need no command of the drive's own."""
        name = self.disk.path.removeprefix("/dev/").replace("/", "!")
        place = self._root / "sys/block" / name / "queue/write_zeroes_max_bytes"
        with contextlib.suppress(OSError, ValueError):
            if int(place.read_text("ascii")) > 0:
                return (WRITE_ZEROES, OVERWRITE)
        return (OVERWRITE,)

    def erase(self, method: str, tick: Tick) -> dict[str, Any]:
        """Make zeros by the device's own command (BLKZEROOUT; it keeps blocks allocated)."""
        if method != WRITE_ZEROES:
            raise MethodRefused(f"{self.disk.name} does not know the method {method}")
        descriptor = os.open(self.disk.path, os.O_RDWR | os.O_CLOEXEC)
        at = 0
        try:
            for at in range(0, self.disk.bytes, ZEROOUT_BYTES):
                length = min(ZEROOUT_BYTES, self.disk.bytes - at)
                fcntl.ioctl(descriptor, BLKZEROOUT, struct.pack("QQ", at, length))
                tick((at + length) / self.disk.bytes)
            os.fsync(descriptor)
        except OSError as exc:
            text = f"{self.disk.name} refuses to write zeros at {at}: {exc.strerror}"
            raise (StepFailed if at else MethodRefused)(text) from exc
        finally:
            os.close(descriptor)
        return {}

    def settle(self) -> None:
        """Flush, and drop what the kernel keeps of the device."""
        descriptor = os.open(self.disk.path, os.O_RDWR | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            with contextlib.suppress(OSError):
                fcntl.ioctl(descriptor, BLKFLSBUF)
        finally:
            os.close(descriptor)
