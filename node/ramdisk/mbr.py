"""MBR partition tables, for images that have no GPT: add a partition behind the others.

It knows sector 0 as bytes. Rule: what is not certainly a partition table (a file system's boot
sector ends in 55AA, too) is not touched.
"""

import struct
from typing import Final

from node.ramdisk.errors import StepFailed

ENTRY: Final = struct.Struct("<B3sB3sII")
ENTRIES_AT: Final = 446
SLOTS: Final = 4
FAT_LBA: Final = 0x0C
NO_CHS: Final = b"\xfe\xff\xff"
SECTORS_MAX: Final = 0xFFFFFFFF


def spans(sector0: bytes, disk_sectors: int) -> list[tuple[int, int, int]] | None:
    """Return (slot, first sector, sectors) of each used entry; None where there is no table."""
    if sector0[510:512] != b"\x55\xaa":
        return None
    found: list[tuple[int, int, int]] = []
    for slot in range(SLOTS):
        status, _, kind, _, first, count = ENTRY.unpack_from(sector0, ENTRIES_AT + slot * 16)
        if status not in (0, 0x80):
            return None
        if not kind:
            continue
        if first == 0 or count == 0 or first + count > disk_sectors:
            return None
        found.append((slot, first, count))
    return found or None


def with_partition(sector0: bytes, disk_sectors: int, first: int, sectors: int) -> bytes:
    """Return sector 0 with a FAT partition at that place, the same when it is there already."""
    used = spans(sector0, disk_sectors)
    assert used is not None, "there is a table"
    if any((start, count) == (first, sectors) for _, start, count in used):
        return sector0
    if any(start + count > first for _, start, count in used):
        raise StepFailed("there is no room for the first-boot partition at the disk's end")
    free = set(range(SLOTS)) - {slot for slot, _, _ in used}
    if not free:
        raise StepFailed("all 4 entries of the partition table are in use")
    if first + sectors > SECTORS_MAX:
        raise StepFailed("an MBR partition table does not reach the end of so large a disk")
    changed = bytearray(sector0)
    entry = (0, NO_CHS, FAT_LBA, NO_CHS, first, sectors)
    ENTRY.pack_into(changed, ENTRIES_AT + min(free) * 16, *entry)
    return bytes(changed)
