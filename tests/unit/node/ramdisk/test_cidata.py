"""First-boot data behind an image: in a partition of its GPT, or raw."""

import base64
import json
import struct
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite
from hypothesis import given
from hypothesis import strategies as st

from node.ramdisk import mbr
from node.ramdisk.cidata import open_first_boot, write_cidata
from node.ramdisk.disk import DiskHandle
from node.ramdisk.errors import StepFailed
from node.ramdisk.fat import VOLUME_BYTES
from node.ramdisk.gpt import read_table
from tests.support.fake_machine import file_disk
from tests.unit.node.ramdisk.test_fat import read_volume
from tests.unit.node.ramdisk.test_gpt import disk_with, table_of

MIB = 1 << 20
FILES = {"user-data": b"#cloud-config\nhostname: one\n", "meta-data": b"instance-id: i\n"}


def sealed(value, session="s1", key=None):
    key = key or X25519PrivateKey.generate()
    suite = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
    info = b"rackmesh/first-boot/1\0" + session.encode()
    blob = suite.encrypt(json.dumps(value).encode(), key.public_key(), info=info)
    return base64.b64encode(blob).decode(), key


def test_sealed_data_opens_only_in_its_own_session():
    text, key = sealed({"user_data": "u", "meta_data": "m", "network_config": "n"})
    opened = open_first_boot(text, "s1", key)
    assert opened == {"user-data": b"u", "meta-data": b"m", "network-config": b"n"}
    with pytest.raises(StepFailed, match="not sealed"):
        open_first_boot(text, "s2", key)
    with pytest.raises(StepFailed, match="not sealed"):
        open_first_boot(text, "s1", X25519PrivateKey.generate())
    with pytest.raises(StepFailed, match="not sealed"):
        open_first_boot("?", "s1", key)
    with pytest.raises(StepFailed, match="lacks"):
        open_first_boot(sealed({}, key=key)[0], "s1", key)


def test_behind_an_image_with_gpt_it_is_a_partition(tmp_path: Path):
    image = disk_with(table_of((2048, 40_000)), 32 * MIB // 512)
    disk = file_disk(tmp_path / "disk", 64 * MIB, fill=bytes(image))
    with DiskHandle(disk.path) as handle:
        placed = write_cidata(handle, len(image), FILES)
        again = write_cidata(handle, len(image), FILES | {"user-data": b"changed"})
    assert placed == again
    assert placed.kind == "partition"
    data = Path(disk.path).read_bytes()
    table = read_table(lambda at, length: data[at : at + length], len(data), 512)
    assert table is not None
    root, ours = table.partitions
    assert (root.first, root.last) == (2048, 40_000)
    assert ours.first * 512 == placed.offset
    assert ours.name == "CIDATA"
    assert data[placed.offset - 512 : placed.offset] == bytes(512)
    volume = data[placed.offset : placed.offset + VOLUME_BYTES]
    assert read_volume(volume) == ("CIDATA", FILES | {"user-data": b"changed"})
    assert data[-512:].startswith(b"EFI PART")
    assert struct.unpack_from("<I", data, 446 + 12)[0] == len(data) // 512 - 1


def test_behind_an_image_without_table_it_is_raw_at_the_end(tmp_path: Path):
    image = b"RACKMESH-SIM-IMAGE\n".ljust(20 * MIB, b"i")
    disk = file_disk(tmp_path / "disk", 40 * MIB, fill=image)
    with DiskHandle(disk.path) as handle:
        placed = write_cidata(handle, len(image), FILES)
    data = Path(disk.path).read_bytes()
    assert (placed.kind, placed.offset) == ("raw", 32 * MIB)
    assert data.startswith(image)
    assert read_volume(data[-VOLUME_BYTES:]) == ("CIDATA", FILES)


def test_behind_an_image_with_mbr_it_is_a_partition(tmp_path: Path):
    image = bytearray(20 * MIB)
    image[510:512] = b"\x55\xaa"
    struct.pack_into("<B3sB3sII", image, 446, 0x80, b"", 0x83, b"", 2048, 8192)
    disk = file_disk(tmp_path / "disk", 40 * MIB, fill=bytes(image))
    with DiskHandle(disk.path) as handle:
        placed = write_cidata(handle, len(image), FILES)
        assert write_cidata(handle, len(image), FILES) == placed
    data = Path(disk.path).read_bytes()
    assert (placed.kind, placed.offset) == ("partition", 32 * MIB)
    assert mbr.spans(data, len(data) // 512) == [(0, 2048, 8192), (1, 65_536, 16_384)]
    assert data[:446] == image[:446]
    assert read_volume(data[-VOLUME_BYTES:]) == ("CIDATA", FILES)


def test_a_full_mbr_is_refused_and_a_boot_sector_is_no_table():
    full = bytearray(512)
    full[510:512] = b"\x55\xaa"
    for slot in range(4):
        entry = (0, b"", 0x83, b"", 100 * slot + 1, 50)
        struct.pack_into("<B3sB3sII", full, 446 + 16 * slot, *entry)
    with pytest.raises(StepFailed, match="in use"):
        mbr.with_partition(bytes(full), 10_000, 5000, 100)
    with pytest.raises(StepFailed, match="no room"):
        mbr.with_partition(bytes(full), 10_000, 340, 100)
    assert mbr.spans(b"text".ljust(446, b"t") * 2, 10_000) is None
    assert mbr.spans(bytes(510) + b"\x55\xaa", 10_000) is None


@given(st.binary(min_size=66, max_size=66))
def test_garbage_in_sector_0_never_raises(tail):
    mbr.spans(bytes(446) + tail[:64] + b"\x55\xaa", 1 << 20)


def test_a_disk_without_room_keeps_its_image(tmp_path: Path):
    disk = file_disk(tmp_path / "disk", 20 * MIB, fill=b"image" * MIB)
    before = Path(disk.path).read_bytes()
    with DiskHandle(disk.path) as handle, pytest.raises(StepFailed, match="no room"):
        write_cidata(handle, 13 * MIB, FILES)
    assert Path(disk.path).read_bytes() == before
