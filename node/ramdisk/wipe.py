"""Overwrite a disk with zeros, and read all of it back.

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
    """Write zeros over the whole disk and read it back; StepFailed when a byte is not zero."""
    progress.begin(2 * disk.size)
    overwrite(disk, progress)
    return read_zeros(disk, progress)


def overwrite(disk: DiskHandle, progress: Progress) -> None:
    """Write zeros over the whole disk.

    The holes of a sparse file (a simulated disk) hold nothing that could be overwritten.
    """
    for begin, end in disk.data_extents():
        progress.done = begin
        for done in disk.write_zeros(begin, end):
            progress.add(done)
    disk.sync()
    progress.done = disk.size


def read_zeros(disk: DiskHandle, progress: Progress) -> Wiped:
    """Read the whole disk; StepFailed when a byte is not zero."""
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
