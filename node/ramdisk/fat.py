"""A FAT12 volume with files in its root, as bytes: where cloud-init finds its first-boot data.

It knows nothing of disks or of cloud-init. Rule: the same files give the same bytes (no clock,
no randomness), and names are long names (``user-data`` is no 8.3 name). Source: Microsoft's FAT
specification 1.03; 4096-byte clusters keep it FAT12 for sectors of 512 and of 4096 bytes.
"""

import struct
from collections.abc import Mapping
from typing import Final

from blake3 import blake3

VOLUME_BYTES: Final = 8 << 20
CLUSTER_BYTES: Final = 4096
FAT_BYTES: Final = 4096
ROOT_ENTRIES: Final = 512
RESERVED_BYTES: Final = 4096
DATA_AT: Final = RESERVED_BYTES + 2 * FAT_BYTES + ROOT_ENTRIES * 32
CLUSTERS: Final = (VOLUME_BYTES - DATA_AT) // CLUSTER_BYTES
FILES_BYTES_MAX: Final = 4 << 20
END_OF_CHAIN: Final = 0xFFF
MEDIA: Final = 0xF8
DATE_1980: Final = 0x0021
LABEL_ATTRIBUTE: Final = 0x08
LONG_NAME_ATTRIBUTE: Final = 0x0F
ARCHIVE_ATTRIBUTE: Final = 0x20


def fat_volume(
    label: str, files: Mapping[str, bytes], *, sector_bytes: int, hidden_sectors: int
) -> bytes:
    """Return a volume of VOLUME_BYTES. ``hidden_sectors`` is the partition's first sector."""
    assert label.isascii(), "a label is ASCII"
    assert len(label) <= 11, "a label has at most 11 characters"
    assert sum(map(len, files.values())) <= FILES_BYTES_MAX, "the files exceed the volume"
    volume = bytearray(VOLUME_BYTES)
    text = label.upper().ljust(11).encode()
    digest = blake3(b"".join(files[name] for name in sorted(files))).digest()
    volume[:512] = _boot_sector(text, digest[:4], sector_bytes, hidden_sectors)
    chain = [0xF00 | MEDIA, END_OF_CHAIN]
    entries = bytearray(_entry(text, LABEL_ATTRIBUTE, 0, 0))
    for number, (name, data) in enumerate(sorted(files.items()), 1):
        clusters = -(-len(data) // CLUSTER_BYTES)
        first = len(chain) if clusters else 0
        if clusters:
            at = DATA_AT + (first - 2) * CLUSTER_BYTES
            volume[at : at + len(data)] = data
            chain += [*range(first + 1, first + clusters), END_OF_CHAIN]
        short = _short_name(name, number)
        entries += _long_name(name, short)
        entries += _entry(short, ARCHIVE_ATTRIBUTE, first, len(data))
    assert len(chain) <= CLUSTERS + 2, "the files exceed the clusters"
    assert len(entries) <= ROOT_ENTRIES * 32, "too many files"
    table = _pack12(chain)
    for copy in range(2):
        at = RESERVED_BYTES + copy * FAT_BYTES
        volume[at : at + len(table)] = table
    root_at = RESERVED_BYTES + 2 * FAT_BYTES
    volume[root_at : root_at + len(entries)] = entries
    return bytes(volume)


def _boot_sector(label: bytes, serial: bytes, sector_bytes: int, hidden: int) -> bytes:
    sectors = VOLUME_BYTES // sector_bytes
    block = struct.pack(
        "<3s8sHBHBHHBHHHIIBBB4s11s8s",
        b"\xeb\x3c\x90", b"RACKMESH", sector_bytes, CLUSTER_BYTES // sector_bytes,
        RESERVED_BYTES // sector_bytes, 2, ROOT_ENTRIES, sectors if sectors < 65536 else 0,
        MEDIA, FAT_BYTES // sector_bytes, 32, 64, hidden, 0, 0x80, 0, 0x29, serial, label,
        b"FAT12   ",
    )  # fmt: skip
    return block.ljust(510, b"\0") + b"\x55\xaa"


def _entry(name: bytes, attributes: int, cluster: int, size: int) -> bytes:
    return struct.pack(
        "<11sBBBHHHHHHHI",
        name, attributes, 0, 0, 0, DATE_1980, DATE_1980, 0, 0, DATE_1980, cluster, size,
    )  # fmt: skip


def _short_name(name: str, number: int) -> bytes:
    """Return a made-up 8.3 name; ``number`` keeps them different."""
    base = "".join(char for char in name.upper() if char.isascii() and char.isalnum())
    return f"{base[:5]}~{number}".ljust(11).encode()


def _long_name(name: str, short: bytes) -> bytes:
    checksum = 0
    for byte in short:
        checksum = (((checksum & 1) << 7) + (checksum >> 1) + byte) & 0xFF
    units = name.encode("utf-16-le")
    if len(units) % 26:
        units = (units + b"\0\0").ljust(-(-(len(units) + 2) // 26) * 26, b"\xff")
    parts = [units[at : at + 26] for at in range(0, len(units), 26)]
    packed = b""
    for order in range(len(parts), 0, -1):
        part = parts[order - 1]
        last = 0x40 if order == len(parts) else 0
        packed += struct.pack(
            "<B10sBBB12sH4s",
            order | last, part[:10], LONG_NAME_ATTRIBUTE, 0, checksum, part[10:22], 0,
            part[22:],
        )  # fmt: skip
    return packed


def _pack12(values: list[int]) -> bytes:
    packed = bytearray()
    for at in range(0, len(values), 2):
        low, high = values[at], values[at + 1] if at + 1 < len(values) else 0
        packed += bytes((low & 0xFF, low >> 8 | (high & 0xF) << 4, high >> 4))
    return bytes(packed)
