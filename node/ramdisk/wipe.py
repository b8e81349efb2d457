"""Overwrite a disk with zeros, then read all of it back: the evidence of an erase.

It knows the disk as a row of bytes. Rule: the last byte counts as much as the first, and the
erase is only as good as what was read back. What a drive keeps outside its addressable sectors
(spares, over-provisioning) is not reached this way; README says so.
"""

from dataclasses import dataclass
from typing import Final

from node.ramdisk.disk import IO_BYTES, DiskHandle
from node.ramdisk.errors import StepFailed
from node.ramdisk.progress import Progress

ZEROS: Final = bytes(IO_BYTES)


@dataclass(frozen=True, slots=True)
class Wiped:
    """Evidence: all of ``size`` bytes were read back and none of them was set."""

    size: int
    verified_bytes: int
    direct: bool


def wipe_disk(disk: DiskHandle, progress: Progress) -> Wiped:
    """Write zeros over the whole disk and read it back; StepFailed when a byte is not zero.

    The holes of a sparse file (a simulated disk) hold nothing that could be overwritten.
    """
    progress.begin(2 * disk.size)
    for begin, end in disk.data_extents():
        progress.done = begin
        for offset in range(begin, end, IO_BYTES):
            piece = min(IO_BYTES, end - offset)
            disk.write(offset, ZEROS[:piece])
            progress.add(piece)
    disk.sync()
    progress.done = disk.size
    verified, nonzero, first_bad = 0, 0, -1
    for data in disk.blocks():
        bad = 0 if data == ZEROS[: len(data)] else len(data) - data.count(0)
        if bad and first_bad < 0:
            first_bad = verified + next(at for at, byte in enumerate(data) if byte)
        nonzero += bad
        verified += len(data)
        progress.add(len(data))
    if nonzero or verified != disk.size:
        raise StepFailed(
            f"{nonzero} bytes are not zero after the overwrite, the first at {first_bad}"
        )
    return Wiped(disk.size, verified, disk.direct)
