"""The two kernel interfaces behind ``nvme.Admin`` and ``ata.Pass``, on a real machine.

It knows the structures of linux/nvme_ioctl.h and scsi/sg.h on 64-bit machines, and the SAT-4
ATA PASS-THROUGH (16) block (section 12.2.3); no command set. Rule: an ATA command has an
outcome only when the drive's registers came back (CK_COND); without them it has failed.
"""

import contextlib
import errno
import fcntl
import os
import re
import struct
import time
from collections.abc import Callable, Generator
from typing import Final

from node.ramdisk.errors import StepFailed
from node.ramdisk.ioctl import address, buffer, call, call_slowly

NVME_ID: Final = 0x4E40
NVME_ADMIN: Final = 0xC0484E41
NVME_RESET: Final = 0x4E44
NVME_COMMAND: Final = struct.Struct("<BBHIIIQQII6III")
SLOW_MS: Final = 24 * 3600 * 1000
SHORT_MS: Final = 60_000
RESET_S: Final = 60.0
SG_IO: Final = 0x2285
SG_HEADER: Final = struct.Struct("@iiBBHIPPPIIiPBBBBHHiII4x")
HOST_STATUS: Final = 17
"""Its place in the header's fields."""
SENSE_BYTES: Final = 64
NO_DATA, FROM_DRIVE, TO_DRIVE = (-1, 3, 0x20), (-3, 4, 0x2E), (-2, 5, 0x26)
"""(sg's direction, SAT's protocol, SAT's flags with CK_COND)."""


class NvmePort:
    """Admin commands through a namespace's block device."""

    def __init__(self, path: str) -> None:
        self._path = path
        with _opened(path) as descriptor:
            self.namespace = fcntl.ioctl(descriptor, NVME_ID)

    def __call__(
        self,
        opcode: int,
        namespace: int,
        cdw10: int,
        read_bytes: int = 0,
        tick: Callable[[], None] | None = None,
    ) -> tuple[int, bytes]:
        """Do one command; return (status, what was read)."""
        data = buffer(read_bytes)
        limit = SHORT_MS if tick is None else SLOW_MS
        place = address(data) if read_bytes else 0
        command = bytearray(
            NVME_COMMAND.pack(
                opcode, 0, 0, namespace, 0, 0, 0, place, 0, read_bytes, cdw10, 0, 0, 0, 0, 0,
                limit, 0,
            )
        )  # fmt: skip
        with _opened(self._path) as descriptor:
            if tick is None:
                status = call(descriptor, NVME_ADMIN, command)
            else:
                status = call_slowly(descriptor, NVME_ADMIN, command, tick)
        return status, bytes(data)

    def reset(self) -> None:
        """Reset the controller and wait until it answers; StepFailed when it does not."""
        controller = re.sub(r"n\d+$", "", self._path)
        with contextlib.suppress(OSError), _opened(controller) as descriptor:
            fcntl.ioctl(descriptor, NVME_RESET)
        limit = time.monotonic() + RESET_S
        while True:
            with contextlib.suppress(OSError), _opened(self._path) as descriptor:
                os.pread(descriptor, 512, 0)
                return
            if time.monotonic() > limit:
                raise StepFailed(f"{self._path} does not come back after a reset")
            time.sleep(0.5)


class AtaPort:
    """ATA commands through SG_IO."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __call__(
        self,
        command: int,
        timeout_s: int,
        read: bool = False,
        data: bytes = b"",
        tick: Callable[[], None] | None = None,
    ) -> tuple[int, int, bytes]:
        """Do one command; return (status register, error register, what was read)."""
        direction, protocol, flags = FROM_DRIVE if read else TO_DRIVE if data else NO_DATA
        memory = buffer(512 if read else data)
        sense = buffer(SENSE_BYTES)
        count = 1 if memory else 0
        block = buffer(
            bytes((0x85, protocol << 1, flags, 0, 0, 0, count, *[0] * 6, 0x40, command, 0))
        )
        header = bytearray(
            SG_HEADER.pack(
                ord("S"), direction, len(block), SENSE_BYTES, 0, len(memory),
                address(memory) if memory else 0, address(block), address(sense),
                timeout_s * 1000, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
            )
        )  # fmt: skip
        with _opened(self._path) as descriptor:
            if tick is None:
                call(descriptor, SG_IO, header)
            else:
                call_slowly(descriptor, SG_IO, header, tick, sense)
        host = SG_HEADER.unpack(header)[HOST_STATUS]
        registers = ata_registers(bytes(sense))
        if host or registers is None:
            raise OSError(errno.EIO, f"the drive gave no outcome (host {host:#x})")
        return (*registers, bytes(memory))


def ata_registers(sense: bytes) -> tuple[int, int] | None:
    """Return (status, error) out of the sense data of a pass-through, or None."""
    code = sense[0] & 0x7F
    if code in (0x70, 0x71):  # fixed: INFORMATION holds error and status (SAT-4 12.2.7)
        return sense[4], sense[3]
    if code not in (0x72, 0x73):
        return None
    at, end = 8, min(len(sense), 8 + sense[7])
    while at + 14 <= end:
        if sense[at] == 0x09:
            return sense[at + 13], sense[at + 3]
        at += 2 + sense[at + 1]
    return None


@contextlib.contextmanager
def _opened(path: str) -> Generator[int]:
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
