"""Boot sectors and first-boot volumes, as our own ramdisk writes them, and garbage."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.proto.first_boot import first_boot as written_by_the_node
from node.proto.rack_disk import MAGIC, boot_record, first_boot, read_volume
from node.ramdisk.fat import fat_volume

URLS = ["http://127.77.0.1:8470/phone/v1/cap-1", "http://127.77.0.2:8470/phone/v1/cap-1"]


def test_a_boot_sector_says_what_it_is() -> None:
    sector = MAGIC + b'{"name": "demo"}\n'
    assert boot_record(sector.ljust(512, b"\0")) == {"name": "demo"}
    assert boot_record(MAGIC.ljust(512, b"\0")) == {}
    assert boot_record(MAGIC + b"[") == {}
    assert boot_record(bytes(512)) is None


@pytest.mark.parametrize("sector_bytes", [512, 4096])
def test_files_of_our_own_volume_are_read_back(sector_bytes: int) -> None:
    files = {"user-data": b"x" * 10_000, "meta-data": b"m", "network-config": b""}
    volume = fat_volume("CIDATA", files, sector_bytes=sector_bytes, hidden_sectors=0)
    assert read_volume(volume) == files
    other = fat_volume("OTHER", files, sector_bytes=sector_bytes, hidden_sectors=0)
    assert read_volume(other) is None


def test_what_the_node_writes_tells_whom_to_call() -> None:
    text = written_by_the_node({"hostname": "web-1"}, "server-id", 2, URLS)
    files = {"user-data": text["user_data"].encode(), "meta-data": text["meta_data"].encode()}
    found = first_boot(files)
    assert found is not None
    assert (found.instance_id, found.hostname) == ("server-id-2", "web-1")
    assert found.urls == tuple(URLS)
    only_user = {
        "user-data": text["user_data"].encode(),
        "meta-data": b"instance-id: i-1\nlocal-hostname: web\n",
    }
    found = first_boot(only_user)
    assert found is not None
    assert found.urls == (URLS[0],)


def test_no_instance_is_no_first_boot() -> None:
    assert first_boot({}) is None
    assert first_boot({"meta-data": json.dumps({"a": 1}).encode()}) is None


@given(st.binary(max_size=300), st.integers(0, 60), st.binary(max_size=40))
def test_garbage_never_raises(noise: bytes, at: int, patch: bytes) -> None:
    boot_record(noise)
    boot_record(MAGIC + noise)
    first_boot({"meta-data": noise, "user-data": b"phone_home:\n url: " + noise})
    read_volume(noise)
    volume = bytearray(SMALL)
    volume[at : at + len(patch)] = patch
    volume[510:512] = b"\x55\xaa"
    read_volume(bytes(volume))
    root = bytearray(SMALL)
    root[12288 : 12288 + len(noise)] = noise
    read_volume(bytes(root))


SMALL = fat_volume("CIDATA", {"meta-data": b"m"}, sector_bytes=512, hidden_sectors=0)
