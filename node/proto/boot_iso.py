"""A disc for one server: ISO 9660 with El Torito for BIOS and UEFI, as bytes and parts.

Knows no files and no network. The rule that makes two hundred discs as cheap as one: whatever
differs from server to server stands in a head of fixed length; loaders, kernel and ramdisk
stand behind it in one order, so they are parts of the same files for every server. The same
input gives the same bytes (no clock, no randomness), because a BMC reads by range, from any
node, in any order. Sources: ECMA-119 (2nd edition), El Torito 1.0, UEFI 2.10 section 13.3.2.1;
the boot information table of mkisofs, which GRUB's cdboot.S reads.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

SECTOR: Final = 2048
CONFIG_SECTORS: Final = 4
"""Room for the loader's configuration: the head keeps its length."""
CONFIG_BYTES_MAX: Final = CONFIG_SECTORS * SECTOR
CATALOG_AT, PATHS_AT, ROOT_AT, CONFIG_AT = 19, 20, 22, 23
FILES_AT: Final = CONFIG_AT + CONFIG_SECTORS
END_SECTORS: Final = 150
"""Zeros at the end, as mkisofs pads: GRUB on a BIOS reads in units of 32 KiB, and what is left
of a disc that ends within one comes out wrong (seen with SeaBIOS: a damaged initrd)."""
CONFIG_NAME: Final = "GRUB.CFG"
BIOS_NAME, EFI_NAME, KERNEL_NAME, RAMDISK_NAME = "BIOS.IMG", "EFI.IMG", "VMLINUZ", "INITRD"
LABEL: Final = b"RACKMESH"
INFO_TABLE_AT, INFO_TABLE_BYTES = 8, 56
SIZE_MAX: Final = 0xFFFFFFFF
"""A file of ISO 9660 without extents, and the volume with it, ends at 4 GiB."""
_TIME: Final = bytes((126, 1, 1, 0, 0, 0, 0))
_NO_TIME: Final = b"0" * 16 + b"\0"


@dataclass(frozen=True, slots=True)
class Member:
    """One file of the disc: its name there and its length."""

    name: str
    size: int


@dataclass(frozen=True, slots=True)
class Layout:
    """Where everything stands: ``head`` comes first; ``members`` follow, each padded to whole
    sectors, then END_SECTORS; ``size`` is the whole disc in bytes."""

    head: bytes
    members: tuple[Member, ...]
    size: int


def with_boot_info(loader: bytes) -> bytes:
    """Return GRUB's BIOS loader with the table that says where on the disc it stands."""
    assert len(loader) > INFO_TABLE_AT + INFO_TABLE_BYTES, "no loader"
    body = loader[INFO_TABLE_AT + INFO_TABLE_BYTES :]
    body += bytes(-len(body) % 4)
    total = sum(struct.unpack(f"<{len(body) // 4}I", body)) & 0xFFFFFFFF
    table = struct.pack("<IIII", 16, FILES_AT, len(loader), total).ljust(
        INFO_TABLE_BYTES, b"\0"
    )
    return loader[:INFO_TABLE_AT] + table + loader[INFO_TABLE_AT + INFO_TABLE_BYTES :]


def layout(config: bytes, bios: int, efi: int, kernel: int, ramdisk: int) -> Layout:
    """Lay out a disc; the numbers are lengths in bytes of what stands behind the head."""
    assert len(config) <= CONFIG_BYTES_MAX, "the configuration exceeds its room"
    members = (
        Member(BIOS_NAME, bios), Member(EFI_NAME, efi), Member(KERNEL_NAME, kernel),
        Member(RAMDISK_NAME, ramdisk),
    )  # fmt: skip
    at, places = FILES_AT, list[int]()
    for member in members:
        places.append(at)
        at += _sectors(member.size)
    at += END_SECTORS
    assert at * SECTOR <= SIZE_MAX, "the disc exceeds 4 GiB"
    entries = [(CONFIG_NAME, CONFIG_AT, len(config))]
    entries += [(m.name, place, m.size) for m, place in zip(members, places, strict=True)]
    head = bytearray(FILES_AT * SECTOR)

    def put(sector: int, data: bytes) -> None:
        head[sector * SECTOR : sector * SECTOR + len(data)] = data

    put(16, _volume(at))
    put(
        17, b"\0CD001\1EL TORITO SPECIFICATION".ljust(71, b"\0") + struct.pack("<I", CATALOG_AT)
    )
    put(18, b"\xffCD001\1")
    put(CATALOG_AT, _catalog(places[0], places[1], efi))
    put(PATHS_AT, struct.pack("<BBIH2s", 1, 0, ROOT_AT, 1, b"\0\0"))
    put(PATHS_AT + 1, struct.pack(">BBIH2s", 1, 0, ROOT_AT, 1, b"\0\0"))
    put(ROOT_AT, _directory(entries))
    put(CONFIG_AT, config)
    return Layout(bytes(head), members, at * SECTOR)


def padding(size: int) -> int:
    """Return the zero bytes behind a member of so many bytes."""
    return -size % SECTOR


def _sectors(size: int) -> int:
    return -(-size // SECTOR)


def _volume(sectors: int) -> bytes:
    """The primary volume descriptor (ECMA-119 section 8.4)."""
    blank, name = b" " * 32, LABEL.ljust(32)
    fields = b"".join((
        b"\1CD001\1\0", blank, name, bytes(8), _both32(sectors), bytes(32), _both16(1),
        _both16(1), _both16(SECTOR), _both32(10), struct.pack("<II", PATHS_AT, 0),
        struct.pack(">II", PATHS_AT + 1, 0), _record(b"\0", ROOT_AT, SECTOR, folder=True),
        b" " * 128 * 4, b" " * 37 * 3, _NO_TIME * 4, b"\1\0",
    ))  # fmt: skip
    return fields.ljust(SECTOR, b"\0")


def _directory(entries: Sequence[tuple[str, int, int]]) -> bytes:
    own = _record(b"\0", ROOT_AT, SECTOR, folder=True)
    above = _record(b"\1", ROOT_AT, SECTOR, folder=True)
    files = [
        _record(f"{name if '.' in name else name + '.'};1".encode(), place, size)
        for name, place, size in sorted(entries)
    ]
    data = b"".join((own, above, *files))
    assert len(data) <= SECTOR, "one sector holds the directory"
    return data


def _record(name: bytes, place: int, size: int, *, folder: bool = False) -> bytes:
    """A directory record (ECMA-119 section 9.1)."""
    length = 33 + len(name) + (len(name) + 1) % 2
    fixed = struct.pack("<BB", length, 0) + _both32(place) + _both32(size) + _TIME
    return (fixed + struct.pack("<BBB", 2 if folder else 0, 0, 0) + _both16(1) +
            bytes([len(name)]) + name).ljust(length, b"\0")  # fmt: skip


def _catalog(bios: int, efi: int, efi_bytes: int) -> bytes:
    """The boot catalog: the default entry for BIOS, one section with the image for UEFI."""
    check = bytearray(struct.pack("<BBH24sHBB", 1, 0, 0, LABEL, 0, 0x55, 0xAA))
    total = sum(struct.unpack("<16H", bytes(check))) & 0xFFFF
    check[28:30] = struct.pack("<H", -total & 0xFFFF)
    default = struct.pack("<BBHBBHI", 0x88, 0, 0, 0, 0, 4, bios).ljust(32, b"\0")
    section = struct.pack("<BBH28s", 0x91, 0xEF, 1, LABEL)
    count = min(-(-efi_bytes // 512), 0xFFFF)
    entry = struct.pack("<BBHBBHI", 0x88, 0, 0, 0, 0, count, efi).ljust(32, b"\0")
    return bytes(check) + default + section + entry


def _both16(value: int) -> bytes:
    return struct.pack("<H", value) + struct.pack(">H", value)


def _both32(value: int) -> bytes:
    return struct.pack("<I", value) + struct.pack(">I", value)
