"""The disc of one server: what firmware, loaders and another program read on it."""

import shutil
import struct
import subprocess
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.proto.boot_iso import (
    CONFIG_AT,
    END_SECTORS,
    FILES_AT,
    SECTOR,
    layout,
    padding,
    with_boot_info,
)
from node.proto.disc_config import MachineNetwork, ramdisk_config, read_config
from node.proto.rack_iso import RECORD_AT, VOLUME_AT, catalog_at, files_in, image_at, root_at

LOADER = bytes(range(256)) * 9
MAC = "02:00:00:00:00:01"
NET = MachineNetwork(
    address=IPv4Address("10.77.0.20"), prefix=24, router=IPv4Address("10.77.0.1"),
    dns=(IPv4Address("10.77.0.1"), IPv4Address("9.9.9.9")),
)  # fmt: skip


def disc(config: bytes, *contents: bytes) -> bytes:
    made = layout(config, *map(len, contents))
    loader = with_boot_info(contents[0])
    parts = [made.head]
    for content in (loader, *contents[1:]):
        parts.append(content + bytes(padding(len(content))))
    whole = b"".join(parts) + bytes(END_SECTORS * SECTOR)
    assert len(whole) == made.size
    return whole


@given(
    st.binary(max_size=8192),
    st.lists(st.binary(min_size=0, max_size=5000), min_size=3, max_size=3),
)
def test_each_file_is_found_where_the_directory_says(config: bytes, rest: list[bytes]) -> None:
    whole = disc(config, LOADER, *rest)
    root = root_at(whole[VOLUME_AT:])
    assert root is not None
    files = files_in(whole[root[0] : root[0] + root[1]])
    names = ("GRUB.CFG", "BIOS.IMG", "EFI.IMG", "VMLINUZ", "INITRD")
    assert set(files) == set(names)
    for name, content in zip(names, (config, with_boot_info(LOADER), *rest), strict=True):
        offset, size = files[name]
        assert whole[offset : offset + size] == content


def test_a_bios_finds_its_loader_and_the_loader_itself() -> None:
    whole = disc(b"x", LOADER, b"efi", b"kernel", b"ramdisk")
    catalog = catalog_at(whole[RECORD_AT:])
    assert catalog is not None
    place = image_at(whole[catalog : catalog + SECTOR])
    assert place == (FILES_AT * SECTOR, SECTOR)
    table = struct.unpack_from("<IIII", whole, FILES_AT * SECTOR + 8)
    total = sum(struct.unpack(f"<{(len(LOADER) - 64) // 4}I", LOADER[64:])) & 0xFFFFFFFF
    assert table == (16, FILES_AT, len(LOADER), total)


def test_only_the_head_differs_between_servers() -> None:
    one, two = (
        disc(text, LOADER, b"e" * 999, b"k" * 5000, b"r") for text in (b"a", b"bb" * 99)
    )
    assert len(one) == len(two)
    differing = {at // SECTOR for at in range(len(one)) if one[at] != two[at]}
    assert differing <= {22, CONFIG_AT}, "the directory says how long the configuration is"


def test_another_program_reads_the_same(tmp_path: Path) -> None:
    xorriso = shutil.which("xorriso")
    if xorriso is None:
        pytest.skip("needs xorriso")
    contents = (LOADER, b"e" * 3000, b"k" * 70_001, b"r" * 99_999)
    config = ramdisk_config(["http://10.77.0.1:8470"], MAC, "c" * 76, NET).encode()
    (tmp_path / "disc.iso").write_bytes(disc(config, *contents))
    said = subprocess.run(
        [xorriso, "-osirrox", "on", "-indev", "disc.iso", "-report_el_torito", "plain",
         "-extract", "/", "out"],
        cwd=tmp_path, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert "BIOS  y   none" in said
    assert "UEFI  y   none" in said
    assert "boot-info-table" in said
    for name, content in zip(("VMLINUZ", "INITRD"), contents[2:], strict=True):
        assert (tmp_path / "out" / name).read_bytes() == content
    assert (tmp_path / "out" / "GRUB.CFG").read_bytes() == config


def test_the_loader_is_told_the_address_the_nodes_and_the_capability() -> None:
    text = ramdisk_config(["http://10.77.0.1:8470", "http://10.77.0.2:8470"], MAC, "cap-1", NET)
    started = read_config(text)
    assert started is not None
    assert (started.kernel, started.initrd) == ("VMLINUZ", "INITRD")
    assert started.arguments.split()[3:] == [
        "rackmesh.url=http://10.77.0.1:8470,http://10.77.0.2:8470", f"rackmesh.mac={MAC}",
        "rackmesh.cap=cap-1", "rackmesh.ip=10.77.0.20/24", "rackmesh.gw=10.77.0.1",
        "rackmesh.dns=10.77.0.1,9.9.9.9",
    ]  # fmt: skip


@given(st.binary(max_size=4096))
def test_garbage_never_raises(data: bytes) -> None:
    root_at(data)
    files_in(data)
    read_config(data.decode("latin-1"))
