"""A small FAT12 volume with one EFI program, as UEFI wants it inside a disc (El Torito).

It knows no GRUB. Rule: the same program gives the same bytes. Source: Microsoft's FAT
specification 1.03; UEFI 2.10 section 13.3.1.
"""

import struct

SECTOR = 512
CLUSTER = 2048
ROOT_ENTRIES = 16
MEDIA = 0xF8
END = 0xFFF
DIRECTORY, FILE = 0x10, 0x20
DATE_1980 = 0x0021


def efi_volume(program: bytes) -> bytes:
    """Return a volume with EFI/BOOT/BOOTX64.EFI."""
    clusters = -(-len(program) // CLUSTER) + 2
    assert clusters < 4085, "FAT12"
    table_sectors = -(-(clusters + 2) * 3 // 2 // SECTOR) + 1
    sectors = 1 + 2 * table_sectors + ROOT_ENTRIES * 32 // SECTOR
    sectors += clusters * CLUSTER // SECTOR
    boot = struct.pack(
        "<3s8sHBHBHHBHHHIIBBB4s11s8s",
        b"\xeb\x3c\x90", b"RACKMESH", SECTOR, CLUSTER // SECTOR, 1, 2, ROOT_ENTRIES, sectors,
        MEDIA, table_sectors, 32, 2, 0, 0, 0x80, 0, 0x29, b"RMEF", b"RACKMESHEFI", b"FAT12   ",
    )  # fmt: skip
    chain = [0xF00 | MEDIA, END, END, END, *range(5, clusters + 2), END]
    table = _pack12(chain).ljust(table_sectors * SECTOR, b"\0")
    root = _entry(b"EFI        ", DIRECTORY, 2, 0).ljust(ROOT_ENTRIES * 32, b"\0")
    efi = _folder(2, 0) + _entry(b"BOOT       ", DIRECTORY, 3, 0)
    inner = _folder(3, 2) + _entry(b"BOOTX64 EFI", FILE, 4, len(program))
    data = b"".join(part.ljust(CLUSTER, b"\0") for part in (efi, inner)) + program
    volume = boot.ljust(510, b"\0") + b"\x55\xaa" + table * 2 + root + data
    return volume.ljust(sectors * SECTOR, b"\0")


def _folder(own: int, above: int) -> bytes:
    dots = (b".".ljust(11), b"..".ljust(11))
    return _entry(dots[0], DIRECTORY, own, 0) + _entry(dots[1], DIRECTORY, above, 0)


def _entry(name: bytes, attributes: int, cluster: int, size: int) -> bytes:
    return struct.pack(
        "<11sBBBHHHHHHHI",
        name, attributes, 0, 0, 0, DATE_1980, DATE_1980, 0, 0, DATE_1980, cluster, size,
    )  # fmt: skip


def _pack12(values: list[int]) -> bytes:
    packed = bytearray()
    for at in range(0, len(values), 2):
        low, high = values[at], values[at + 1] if at + 1 < len(values) else 0
        packed += bytes((low & 0xFF, low >> 8 | (high & 0xF) << 4, high >> 4))
    return bytes(packed)
