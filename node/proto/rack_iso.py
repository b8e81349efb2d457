"""What firmware reads of an ISO to boot it (El Torito 1.0), as simulated servers do.

It knows bytes, no network. Rule: an ISO is hostile; whatever it holds, it either names one
place within it to boot from, or it does not boot.
"""

import struct
from typing import Final

SECTOR_BYTES: Final = 2048
RECORD_AT: Final = 17 * SECTOR_BYTES
RECORD: Final = b"\0CD001\1EL TORITO SPECIFICATION"
IMAGE_SECTORS_MAX: Final = 16
"""So much of a boot image is loaded; more would be read by what it starts."""


def catalog_at(record: bytes) -> int | None:
    """Return where the boot catalog is by the boot record (sector 17), or None."""
    if len(record) < 75 or not record.startswith(RECORD):
        return None
    return int(struct.unpack_from("<I", record, 71)[0]) * SECTOR_BYTES


def image_at(catalog: bytes) -> tuple[int, int] | None:
    """Return (offset, bytes to load) of the image to boot by the boot catalog, or None."""
    if len(catalog) < 64 or catalog[0] != 1 or catalog[30:32] != b"\x55\xaa":
        return None
    if sum(struct.unpack("<16H", catalog[:32])) & 0xFFFF or catalog[32] != 0x88:
        return None
    count, first = struct.unpack_from("<HI", catalog, 38)
    sectors = min(max(1, -(-count * 512 // SECTOR_BYTES)), IMAGE_SECTORS_MAX)
    return first * SECTOR_BYTES, sectors * SECTOR_BYTES
