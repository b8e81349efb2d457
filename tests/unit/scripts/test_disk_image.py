"""Disk images: a table that others read, GRUB's sector numbers, holes that stay holes."""

import shutil
import subprocess
from pathlib import Path

import pytest

from node.ramdisk.gpt import read_table
from scripts.lib import grub
from scripts.lib.disk_image import CORE_AT, EFI_SYSTEM, LINUX_ROOT, MIB, SECTOR, write_disk

CORE_BYTES = 1000


@pytest.fixture
def packages(tmp_path: Path) -> Path:
    """What GRUB's packages unpack to, with a stand-in that writes recognisable bytes."""
    root = tmp_path / "root"
    tool = root / "usr/bin/grub-mkimage"
    tool.parent.mkdir(parents=True)
    tool.write_text(
        '#!/bin/sh\nwhile [ "$1" != -o ]; do shift; done\n'
        f"head -c {CORE_BYTES} /dev/zero | tr '\\0' C > \"$2\"\n"
    )
    tool.chmod(0o755)
    (root / "usr/lib/grub/i386-pc").mkdir(parents=True)
    (root / "usr/lib/grub/i386-pc/boot.img").write_bytes(b"B" * SECTOR)
    return root


@pytest.fixture
def image(packages: Path, tmp_path: Path) -> Path:
    volume, system = tmp_path / "volume", tmp_path / "system"
    volume.write_bytes(b"V" * MIB)
    system.write_bytes(bytes(40 * MIB) + b"S" * 512)
    target = tmp_path / "disk.img"
    parts = [(EFI_SYSTEM, "efi", volume), (LINUX_ROOT, "root", system)]
    write_disk(target, packages, ("boot", ["linux"], "(,gpt2)/"), parts)
    return target


def test_the_boot_code_finds_the_core_and_the_core_the_rest_of_itself(image: Path) -> None:
    data = image.read_bytes()
    assert data[: grub.KERNEL_SECTOR_AT] == b"B" * grub.KERNEL_SECTOR_AT
    assert int.from_bytes(data[0x5C:0x64], "little") == CORE_AT
    assert data[0x66:0x68] == b"\x90\x90"
    core = data[CORE_AT * SECTOR :]
    assert int.from_bytes(core[SECTOR - 12 : SECTOR - 4], "little") == CORE_AT + 1
    assert core[SECTOR:CORE_BYTES] == b"C" * (CORE_BYTES - SECTOR)
    assert data[510:512] == b"\x55\xaa"


def test_the_table_names_core_and_partitions_and_what_is_zero_stays_a_hole(image: Path) -> None:
    with image.open("rb") as file:

        def read(offset: int, count: int) -> bytes:
            file.seek(offset)
            return file.read(count)

        size = image.stat().st_size
        table = read_table(read, size, SECTOR)
        assert table is not None
        assert [(p.slot, p.name) for p in table.partitions] == [
            (0, "bios"),
            (1, "efi"),
            (2, "root"),
        ]
        _, efi, root = table.partitions
        assert read(efi.first * SECTOR, MIB) == b"V" * MIB
        assert read(root.first * SECTOR + 40 * MIB, 512) == b"S" * 512
        assert root.last < size // SECTOR - 33
    assert image.stat().st_blocks * 512 < 8 * MIB
    if shutil.which("sgdisk"):
        verdict = subprocess.run(
            ["sgdisk", "-v", image], capture_output=True, text=True, check=False
        )
        assert "No problems found" in verdict.stdout
