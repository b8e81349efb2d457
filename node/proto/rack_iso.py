"""What firmware and loaders read of an ISO (El Torito 1.0, ECMA-119), as simulated servers do.

It knows bytes, no network. Rule: an ISO is hostile; whatever it holds, it either names one
place within it to boot from, or it does not boot.
"""

import struct
from typing import Final

SECTOR_BYTES: Final = 2048
VOLUME_AT: Final = 16 * SECTOR_BYTES
RECORD_AT: Final = 17 * SECTOR_BYTES
RECORD: Final = b"\0CD001\1EL TORITO SPECIFICATION"
DIRECTORY_BYTES_MAX: Final = 64 << 10
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


def root_at(volume: bytes) -> tuple[int, int] | None:
    """Return (offset, bytes) of the root directory by the volume descriptor (sector 16)."""
    if len(volume) < 190 or not volume.startswith(b"\1CD001\1"):
        return None
    first, size = (
        struct.unpack_from("<I", volume, 158)[0],
        struct.unpack_from("<I", volume, 166)[0],
    )
    return int(first) * SECTOR_BYTES, min(int(size), DIRECTORY_BYTES_MAX)


def files_in(directory: bytes) -> dict[str, tuple[int, int]]:
    """Return name -> (offset, bytes) of the files of a directory; versions are cut off."""
    found: dict[str, tuple[int, int]] = {}
    at = 0
    while at + 34 <= len(directory):
        length = directory[at]
        if length < 34:  # records do not cross sectors
            at = (at // SECTOR_BYTES + 1) * SECTOR_BYTES
            continue
        record = directory[at : at + length]
        name = record[33 : 33 + record[32]].decode("ascii", "replace").partition(";")[0]
        if not record[25] & 2:
            first, size = (
                struct.unpack_from("<I", record, 2)[0],
                struct.unpack_from("<I", record, 10)[0],
            )
            found[name.rstrip(".")] = (int(first) * SECTOR_BYTES, int(size))
        at += length
    return found
