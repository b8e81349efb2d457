"""A bootable disk image: GPT with GRUB's core, an EFI system partition, and what else is given.

It knows tables and offsets, no file systems. Rule: the same partitions give the same bytes, and
what is zero stays a hole in the file.
"""

import os
import subprocess
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from node.ramdisk.gpt import Partition, Table, encode_table
from scripts.lib.grub import SECTOR, bios_loader

MIB = 1 << 20
ALIGN_SECTORS = 2048
CORE_AT = 2048  # first sector of the BIOS boot partition
CORE_SECTORS = 2048
BIOS_BOOT = uuid.UUID("21686148-6449-6e6f-744e-656564454649").bytes_le
EFI_SYSTEM = uuid.UUID("c12a7328-f81f-11d2-ba4b-00a0c93ec93b").bytes_le
LINUX_ROOT = uuid.UUID("4f68bce3-e8cd-4db1-96e7-fbcaf984b709").bytes_le
FAT_ROOM_MIB = 4


def fat_volume(tools: Path, folder: Path, label: str, target: Path) -> None:
    """Write a FAT volume with a folder's content; ``tools``: where mtools is unpacked."""
    used = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    with target.open("wb") as file:
        file.truncate((used // MIB + FAT_ROOM_MIB) * MIB)
    folders = [f"{tools}/usr/bin", f"{tools}/usr/sbin", f"{tools}/sbin", os.environ["PATH"]]
    environment = os.environ | {
        "PATH": ":".join(folders), "SOURCE_DATE_EPOCH": "315532800", "TZ": "UTC",
        "MTOOLS_SKIP_CHECK": "1",
    }  # fmt: skip
    entries = [str(path) for path in sorted(folder.iterdir())]
    for argv in (
        ["mkfs.fat", "--invariant", "-n", label, str(target)],
        ["mcopy", "-s", "-i", str(target), *entries, "::/"],
    ):
        done = subprocess.run(
            argv, env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise RuntimeError(f"{argv[0]}: {done.stderr.strip()}")


def write_disk(
    target: Path,
    grub: Path,
    bios: tuple[str, Sequence[str], str],
    parts: Sequence[tuple[bytes, str, Path]],
    mib: int = 0,
) -> None:
    """Write the disk: partition 1 holds GRUB's core for BIOS, ``parts`` (type, name, content)
    follow. ``bios``: configuration, modules and prefix of that core. ``mib``: least size."""
    code, core = bios_loader(grub, *bios, CORE_AT)
    assert len(core) <= CORE_SECTORS * SECTOR, "the core fits into its partition"
    table = [_partition(0, "bios", BIOS_BOOT, CORE_AT, CORE_SECTORS)]
    for kind, name, content in parts:
        first = table[-1].last + 1
        first += -first % ALIGN_SECTORS
        count = -(-content.stat().st_size // SECTOR)
        table.append(_partition(len(table), name, kind, first, count))
    sectors = max(mib, (table[-1].last + 1) * SECTOR // MIB + 1) * MIB // SECTOR
    disk_guid = uuid.uuid5(uuid.NAMESPACE_DNS, "disk.image.rackmesh").bytes_le
    part = target.with_name(target.name + ".part")
    with part.open("wb") as file:
        file.truncate(sectors * SECTOR)
        for writes in encode_table(
            Table(SECTOR, disk_guid, 2, 34, 128, 128, tuple(table)), sectors
        ):
            for offset, data in writes:
                _put(file, offset, data)
        _put(file, 0, _protective(code, sectors))
        _put(file, CORE_AT * SECTOR, core)
        for entry, (_, _, content) in zip(table[1:], parts, strict=True):
            with content.open("rb") as source:
                at = entry.first * SECTOR
                while data := source.read(MIB):
                    if data.count(0) != len(data):
                        _put(file, at, data)
                    at += len(data)
    os.replace(part, target)


def _partition(slot: int, name: str, kind: bytes, first: int, sectors: int) -> Partition:
    guid = uuid.uuid5(uuid.NAMESPACE_DNS, f"{name}.image.rackmesh").bytes_le
    return Partition(slot, kind, guid, first, first + sectors - 1, 0, name)


def _protective(code: bytes, sectors: int) -> bytes:
    """Return sector 0: boot code and the one MBR entry that covers the disk."""
    sector = bytearray(code.ljust(SECTOR, b"\0"))
    sector[446 + 1 : 446 + 8] = bytes.fromhex("000200eeffffff")
    sector[446 + 8 : 446 + 12] = (1).to_bytes(4, "little")
    sector[446 + 12 : 446 + 16] = min(sectors - 1, 0xFFFFFFFF).to_bytes(4, "little")
    sector[510:512] = b"\x55\xaa"
    return bytes(sector)


def _put(file: BinaryIO, offset: int, data: bytes) -> None:
    file.seek(offset)
    file.write(data)
