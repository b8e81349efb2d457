"""GUID partition tables (UEFI 2.10, 5.3): read, add a partition, write for a larger disk.

It knows bytes and sectors, no disk. Rule: a table is believed only when both its CRCs hold;
what is written is the whole table for the disk as it is, so that its backup stands at the
disk's end.
"""

import dataclasses
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from node.ramdisk.errors import StepFailed

SIGNATURE: Final = b"EFI PART"
REVISION: Final = 0x00010000
HEADER: Final = struct.Struct("<8sIIIIQQQQ16sQIII")
ENTRY: Final = struct.Struct("<16s16sQQQ72s")
ENTRIES_MIN_BYTES: Final = 16 * 1024
ENTRIES_MAX: Final = 1024
MBR_ENTRIES_AT: Final = 446
PROTECTIVE: Final = 0xEE
BASIC_DATA: Final = bytes.fromhex("a2a0d0ebe5b9334487c068b6b72699c7")
"""Type EBD0A0A2-B9E5-4433-87C0-68B6B72699C7 as it stands on disk."""

Read = Callable[[int, int], bytes]


@dataclass(frozen=True, slots=True)
class Partition:
    """One used entry; sectors are inclusive."""

    slot: int
    type_guid: bytes
    guid: bytes
    first: int
    last: int
    attributes: int
    name: str


@dataclass(frozen=True, slots=True)
class Table:
    """A partition table less what depends on the size of its disk."""

    sector_bytes: int
    disk_guid: bytes
    entries_at: int
    first_usable: int
    slots: int
    entry_bytes: int
    partitions: tuple[Partition, ...]

    @property
    def entries_sectors(self) -> int:
        """Sectors that the array of entries takes."""
        return -(-self.slots * self.entry_bytes // self.sector_bytes)

    @property
    def backup_sectors(self) -> int:
        """Sectors kept for the backup of the entries; the standard asks for 16 KiB."""
        return max(self.entries_sectors, ENTRIES_MIN_BYTES // self.sector_bytes)

    def last_usable(self, disk_sectors: int) -> int:
        """Return the last sector that a partition may use on a disk of that size."""
        return disk_sectors - self.backup_sectors - 2


def read_table(read: Read, disk_bytes: int, sector_bytes: int) -> Table | None:
    """Return the primary table, None where there is none; StepFailed for a broken one."""
    if disk_bytes < 64 * sector_bytes:
        return None
    raw = read(sector_bytes, sector_bytes)
    if not raw.startswith(SIGNATURE):
        return None
    fields = HEADER.unpack_from(raw)
    _sig, _rev, size, crc, _zero, this_lba, _other, first, _last = fields[:9]
    disk_guid, entries_lba, slots, entry_bytes, entries_crc = fields[9:]
    if not HEADER.size <= size <= sector_bytes or this_lba != 1:
        raise StepFailed("the image's partition table has a header of impossible shape")
    if zlib.crc32(raw[:16] + bytes(4) + raw[20:size]) != crc:
        raise StepFailed("the image's partition table has a wrong header checksum")
    if not 0 < slots <= ENTRIES_MAX or not 128 <= entry_bytes <= 1024 or entry_bytes % 128:
        raise StepFailed(f"the image's partition table has {slots} entries of {entry_bytes}")
    begin, length = entries_lba * sector_bytes, slots * entry_bytes
    if entries_lba < 2 or begin + length > disk_bytes:
        raise StepFailed("the image's partition entries are outside the disk")
    data = read(begin, length)
    if zlib.crc32(data) != entries_crc:
        raise StepFailed("the image's partition table has a wrong checksum of its entries")
    found: list[Partition] = []
    for slot in range(slots):
        kind, guid, start, end, attributes, name = ENTRY.unpack_from(data, slot * entry_bytes)
        if any(kind):
            text = name.decode("utf-16-le", "replace").split("\0")[0]
            found.append(Partition(slot, kind, guid, start, end, attributes, text))
    return Table(sector_bytes, disk_guid, entries_lba, first, slots, entry_bytes, tuple(found))


def place_at_end(table: Table, disk_sectors: int, sectors: int) -> int:
    """Return the first sector of a free stretch at the disk's end, on a MiB where one fits."""
    align = (1 << 20) // table.sector_bytes
    taken = max((part.last for part in table.partitions), default=table.first_usable - 1)
    latest = table.last_usable(disk_sectors) + 1 - sectors
    aligned = latest - latest % align
    start = aligned if aligned > taken else latest
    if start <= taken or start < table.first_usable:
        raise StepFailed("there is no room for the first-boot partition at the disk's end")
    return start


def with_partition(table: Table, partition: Partition) -> Table:
    """Return the table with one more partition, in the first free slot (``slot`` is set)."""
    used = {part.slot for part in table.partitions}
    free = next((slot for slot in range(table.slots) if slot not in used), None)
    if free is None:
        raise StepFailed(f"all {table.slots} entries of the partition table are in use")
    added = dataclasses.replace(partition, slot=free)
    ordered = sorted((*table.partitions, added), key=lambda part: part.slot)
    return dataclasses.replace(table, partitions=tuple(ordered))


def encode_table(table: Table, disk_sectors: int) -> tuple[list[tuple[int, bytes]], ...]:
    """Return (backup, primary) writes as (byte offset, bytes); the backup goes first."""
    sector = table.sector_bytes
    data = bytearray(table.entries_sectors * sector)
    for part in table.partitions:
        name = part.name.encode("utf-16-le")[:72].ljust(72, b"\0")
        fields = (part.type_guid, part.guid, part.first, part.last, part.attributes, name)
        ENTRY.pack_into(data, part.slot * table.entry_bytes, *fields)
    entries_crc = zlib.crc32(data[: table.slots * table.entry_bytes])
    last = disk_sectors - 1
    backup_entries = last - table.backup_sectors
    primary = _header(table, disk_sectors, 1, last, table.entries_at, entries_crc)
    backup = _header(table, disk_sectors, last, 1, backup_entries, entries_crc)
    entries = bytes(data)
    return (
        [(backup_entries * sector, entries), (last * sector, backup)],
        [(table.entries_at * sector, entries), (sector, primary)],
    )


def _header(
    table: Table, disk_sectors: int, this: int, other: int, entries: int, entries_crc: int
) -> bytes:
    def packed(crc: int) -> bytes:
        return HEADER.pack(
            SIGNATURE, REVISION, HEADER.size, crc, 0, this, other, table.first_usable,
            table.last_usable(disk_sectors), table.disk_guid, entries, table.slots,
            table.entry_bytes, entries_crc,
        )  # fmt: skip

    return packed(zlib.crc32(packed(0))).ljust(table.sector_bytes, b"\0")


def grown_protective_mbr(mbr: bytes, disk_sectors: int) -> bytes:
    """Return sector 0 with its protective entry grown over the whole disk; code is kept."""
    changed = bytearray(mbr)
    for at in range(MBR_ENTRIES_AT, MBR_ENTRIES_AT + 64, 16):
        if changed[at + 4] == PROTECTIVE:
            (start,) = struct.unpack_from("<I", changed, at + 8)
            struct.pack_into("<I", changed, at + 12, min(disk_sectors - start, 0xFFFFFFFF))
    return bytes(changed)
