"""Partition tables: round trips with our writer, and with sgdisk where it is installed."""

import dataclasses
import shutil
import struct
import subprocess
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.ramdisk import gpt
from node.ramdisk.errors import StepFailed

SECTOR = 512
LINUX = bytes.fromhex("af3dc60f838472478e793d69d8477de4")


def table_of(*spans: tuple[int, int], sector: int = SECTOR) -> gpt.Table:
    parts = tuple(
        gpt.Partition(slot, LINUX, bytes([slot + 1] * 16), first, last, 4, f"part {slot}")
        for slot, (first, last) in enumerate(spans)
    )
    return gpt.Table(sector, bytes(range(16)), 2, 34, 128, 128, parts)


def disk_with(table: gpt.Table, sectors: int) -> bytearray:
    disk = bytearray(sectors * table.sector_bytes)
    disk[510:512] = b"\x55\xaa"
    struct.pack_into("<B3sB3sII", disk, 446, 0, b"", 0xEE, b"", 1, sectors - 1)
    for writes in gpt.encode_table(table, sectors):
        for offset, data in writes:
            disk[offset : offset + len(data)] = data
    return disk


def reader(disk: bytes | bytearray):
    return lambda offset, length: bytes(disk[offset : offset + length])


@pytest.mark.parametrize("sector", [512, 4096])
def test_a_written_table_reads_back_as_it_was(sector):
    table = table_of((2048, 4095), (4096, 8191), sector=sector)
    disk = disk_with(table, 20_000)
    assert gpt.read_table(reader(disk), len(disk), sector) == table


def test_a_disk_without_a_table_has_none():
    disk = bytes(1 << 20)
    assert gpt.read_table(reader(disk), len(disk), SECTOR) is None
    assert gpt.read_table(reader(b""), 0, SECTOR) is None


@pytest.mark.parametrize("at", [512 + 16, 512 + 60, 1024 + 5])
def test_a_table_with_a_wrong_checksum_is_refused(at):
    disk = disk_with(table_of((2048, 4095)), 20_000)
    disk[at] ^= 0xFF
    with pytest.raises(StepFailed, match="partition table"):
        gpt.read_table(reader(disk), len(disk), SECTOR)


def test_the_backup_stands_in_the_last_sector_and_names_the_primary():
    sectors = 50_000
    disk = disk_with(table_of((2048, 4095)), sectors)
    fields = gpt.HEADER.unpack_from(disk, (sectors - 1) * SECTOR)
    assert fields[0] == gpt.SIGNATURE
    assert fields[5:7] == (sectors - 1, 1)
    entries = disk[fields[10] * SECTOR : fields[10] * SECTOR + 128 * 128]
    assert zlib.crc32(entries) == fields[13]


def test_a_partition_is_placed_on_a_mebibyte_near_the_end():
    sectors = 100_000
    start = gpt.place_at_end(table_of((2048, 4095)), sectors, 16_384)
    assert start % 2048 == 0
    assert start + 16_384 - 1 <= sectors - 34


def test_where_the_image_leaves_no_aligned_room_the_partition_goes_unaligned():
    image_sectors, disk_sectors = 100_352, 100_352 + 16_384
    full = table_of((2048, image_sectors - 34))
    start = gpt.place_at_end(full, disk_sectors, 16_384)
    assert start == image_sectors - 33
    with pytest.raises(StepFailed, match="no room"):
        gpt.place_at_end(full, disk_sectors - 1, 16_384)


def test_a_full_table_takes_no_more_partitions():
    spans = [(2048 + slot, 2048 + slot) for slot in range(128)]
    with pytest.raises(StepFailed, match="in use"):
        gpt.with_partition(table_of(*spans), table_of((9000, 9001)).partitions[0])


def test_the_protective_entry_grows_and_the_boot_code_stays():
    disk = disk_with(table_of((2048, 4095)), 20_000)
    disk[:440] = b"B" * 440
    grown = gpt.grown_protective_mbr(bytes(disk[:512]), 1 << 33)
    assert grown[:446] == disk[:446]
    assert struct.unpack_from("<I", grown, 446 + 12)[0] == 0xFFFFFFFF


@given(st.binary(min_size=92, max_size=512))
def test_garbage_never_raises_anything_but_a_sentence(data):
    disk = bytearray(1 << 16)
    disk[512 : 512 + len(data)] = data
    disk[512:520] = gpt.SIGNATURE
    struct.pack_into("<I", disk, 512 + 16, 0)
    size = struct.unpack_from("<I", disk, 512 + 12)[0]
    if 92 <= size <= 512:  # a right checksum, so that the rest of the header is looked at
        struct.pack_into("<I", disk, 528, zlib.crc32(disk[512 : 512 + size]))
    try:
        gpt.read_table(reader(disk), len(disk), SECTOR)
    except StepFailed:
        pass


@pytest.mark.skipif(not shutil.which("sgdisk"), reason="sgdisk (gdisk) is not installed")
def test_sgdisk_accepts_a_table_that_moved_to_a_larger_disk(tmp_path: Path):
    path = tmp_path / "disk.img"
    with path.open("wb") as file:
        file.truncate(64 << 20)
    subprocess.run(
        ["sgdisk", "-n1:2048:+20M", "-t1:8300", "-c1:root", path],
        check=True,
        capture_output=True,
    )
    disk = bytearray(path.read_bytes()) + bytes(32 << 20)
    sectors = len(disk) // SECTOR
    table = gpt.read_table(reader(disk), len(disk), SECTOR)
    assert table is not None
    assert [part.name for part in table.partitions] == ["root"]
    start = gpt.place_at_end(table, sectors, 16_384)
    added = dataclasses.replace(
        table.partitions[0],
        guid=bytes([9] * 16),
        first=start,
        last=start + 16_383,
        name="CIDATA",
    )
    for writes in gpt.encode_table(gpt.with_partition(table, added), sectors):
        for offset, data in writes:
            disk[offset : offset + len(data)] = data
    disk[:512] = gpt.grown_protective_mbr(bytes(disk[:512]), sectors)
    path.write_bytes(disk)
    verdict = subprocess.run(["sgdisk", "-v", path], capture_output=True, text=True, check=True)
    assert "No problems found" in verdict.stdout
    listing = subprocess.run(["sgdisk", "-p", path], capture_output=True, text=True, check=True)
    assert "CIDATA" in listing.stdout
