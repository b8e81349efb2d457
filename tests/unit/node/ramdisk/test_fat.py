"""The first-boot volume: by a reader of its own, by mtools and fsck.fat where installed."""

import shutil
import struct
import subprocess

import pytest

from node.ramdisk.fat import VOLUME_BYTES, fat_volume

FILES = {
    "user-data": b"#cloud-config\n" + b"x" * 9000,
    "meta-data": b"instance-id: one\n",
    "a-name-of-exactly-26-chars": b"",
    "network-config": b"version: 2\n",
}


def read_volume(volume: bytes) -> tuple[str, dict[str, bytes]]:
    """Read label and files by the specification, not by our constants."""
    sector, per_cluster, reserved, fats, roots = struct.unpack_from("<HBHBH", volume, 11)
    (fat_sectors,) = struct.unpack_from("<H", volume, 22)
    root_at = (reserved + fats * fat_sectors) * sector
    data_at = root_at + roots * 32
    fat = volume[reserved * sector :]
    label, found, units = "", {}, {}
    for at in range(root_at, data_at, 32):
        entry = volume[at : at + 32]
        if entry[0] == 0:
            break
        if entry[11] == 0x0F:
            units[entry[0] & 0x3F] = entry[1:11] + entry[14:26] + entry[28:32]
        elif entry[11] & 0x08:
            label = entry[:11].decode().strip()
        else:
            raw = b"".join(units[key] for key in sorted(units)).decode("utf-16-le")
            cluster, size = struct.unpack_from("<HI", entry, 26)
            data = b""
            while len(data) < size:
                begin = data_at + (cluster - 2) * per_cluster * sector
                data += volume[begin : begin + per_cluster * sector]
                pair = int.from_bytes(fat[cluster * 3 // 2 : cluster * 3 // 2 + 2], "little")
                cluster = pair >> 4 if cluster & 1 else pair & 0xFFF
            found[raw.split("\0")[0]] = data[:size]
            units = {}
    return label, found


@pytest.mark.parametrize("sector", [512, 4096])
def test_the_files_can_be_read_by_the_specification(sector):
    volume = fat_volume("cidata", FILES, sector_bytes=sector, hidden_sectors=2048)
    assert len(volume) == VOLUME_BYTES
    assert read_volume(volume) == ("CIDATA", FILES)


def test_the_same_files_give_the_same_bytes():
    one = fat_volume("CIDATA", FILES, sector_bytes=512, hidden_sectors=0)
    two = fat_volume(
        "CIDATA", dict(reversed(FILES.items())), sector_bytes=512, hidden_sectors=0
    )
    assert one == two


@pytest.mark.skipif(not shutil.which("mtype"), reason="mtools is not installed")
@pytest.mark.skipif(not shutil.which("fsck.fat"), reason="dosfstools is not installed")
def test_mtools_and_fsck_accept_the_volume(tmp_path):
    path = tmp_path / "volume"
    path.write_bytes(fat_volume("CIDATA", FILES, sector_bytes=512, hidden_sectors=0))
    subprocess.run(["fsck.fat", "-nv", path], check=True, capture_output=True)
    for name, data in FILES.items():
        shown = subprocess.run(
            ["mtype", "-i", path, f"::{name}"], check=True, capture_output=True
        )
        assert shown.stdout == data
