"""Images on a file that stands for a disk: verified, resumed, read back; manifests; wiping."""

import base64
import json
import random
from pathlib import Path

import msgpack
import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from node.ramdisk.disk import DiskHandle
from node.ramdisk.errors import StepFailed
from node.ramdisk.image import TAIL_BYTES, runs, write_image
from node.ramdisk.manifest import parse_core, parse_manifest, unpack
from node.ramdisk.wipe import wipe_disk
from tests.support.agent_peer import PeerAsset
from tests.support.fake_machine import MemorySource, NoProgress, file_disk

MIB = 1 << 20
IMAGE = random.Random(7).randbytes(5 * MIB + 1000)
ASSET = PeerAsset.of(IMAGE)
DISK_BYTES = 16 * MIB


@pytest.fixture
def disk(tmp_path: Path):
    made = file_disk(tmp_path / "disk", DISK_BYTES, fill=b"old data" * 1000)
    with DiskHandle(made.path) as handle:
        yield handle


def written(disk: DiskHandle, progress=None):
    source = MemorySource(ASSET)
    done = write_image(disk, source.manifest(), source, progress or NoProgress())
    return done, source


def test_an_image_is_on_the_disk_byte_for_byte_and_its_last_sector_is_filled_up(disk):
    done, source = written(disk)
    assert Path(disk.path).read_bytes()[: len(IMAGE)] == IMAGE
    assert not any(Path(disk.path).read_bytes()[len(IMAGE) :])
    assert (done.size, done.resumed_from, done.fetched_bytes) == (len(IMAGE), 0, len(IMAGE))
    assert source.asked == list(range(6))


def test_a_second_run_finds_everything_there_and_fetches_nothing(disk):
    written(disk)
    done, source = written(disk)
    assert source.asked == []
    assert (done.resumed_from, done.fetched_bytes) == (len(IMAGE), 0)


def test_a_run_that_was_cut_off_goes_on_where_it_stopped(disk):
    cut = NoProgress()
    cut.fail_at = 3 * MIB
    with pytest.raises(KeyboardInterrupt):
        written(disk, cut)
    done, source = written(disk)
    assert source.asked == [3, 4, 5]
    assert done.resumed_from == 3 * MIB


def test_a_chunk_that_rotted_is_fetched_alone(disk):
    written(disk)
    with Path(disk.path).open("r+b") as file:
        file.seek(2 * MIB + 5)
        file.write(b"rot")
    source = written(disk)[1]
    assert source.asked == [2]
    assert Path(disk.path).read_bytes()[: len(IMAGE)] == IMAGE


def test_zeros_are_not_fetched_but_written_over_what_was_there_and_read_back(tmp_path):
    image = IMAGE[:MIB] + bytes(3 * MIB) + IMAGE[:1000]
    asset = PeerAsset.of(image)
    made = file_disk(tmp_path / "disk", DISK_BYTES, fill=b"old data" * MIB)
    with DiskHandle(made.path) as handle:
        source = MemorySource(asset)
        done = write_image(handle, source.manifest(), source, NoProgress())
    assert source.asked == [0, 4]
    assert done.fetched_bytes == MIB + 1000
    assert Path(made.path).read_bytes()[: len(image)] == image


def test_an_image_larger_than_the_disk_is_refused_before_anything_is_written(tmp_path):
    made = file_disk(tmp_path / "small", len(IMAGE) + TAIL_BYTES - 1000, fill=b"precious")
    with DiskHandle(made.path) as handle, pytest.raises(StepFailed, match="the disk has"):
        written(handle)
    assert Path(made.path).read_bytes().startswith(b"precious")


def test_a_disk_that_does_not_keep_its_data_is_found_by_the_read_back(disk, monkeypatch):
    keep = DiskHandle.write

    def forget(self, offset, data):
        keep(self, offset, b"\0" * len(data) if offset == 4 * MIB else data)

    monkeypatch.setattr(DiskHandle, "write", forget)
    with pytest.raises(StepFailed, match="does not keep its data"):
        written(disk)


def test_a_wrong_sha256_inside_the_core_is_told(disk):
    core = msgpack.unpackb(ASSET.core)
    core["sha256"] = "00" * 32
    raw = msgpack.packb(core)
    liar = PeerAsset(IMAGE, IMAGE, raw, f"b3:{blake3(raw).hexdigest()}")
    source = MemorySource(liar)
    with pytest.raises(StepFailed, match="SHA-256"):
        write_image(disk, source.manifest(), source, NoProgress())


def test_progress_counts_writing_and_reading_back(disk):
    progress = NoProgress()
    written(disk, progress)
    assert progress.done == progress.total == 2 * len(IMAGE)


def test_neighbours_become_runs():
    assert runs([0, 1, 2, 5, 7, 8]) == [(0, 3), (5, 1), (7, 2)]
    assert runs([]) == []


def test_a_wiped_disk_is_zero_at_both_ends_and_between(tmp_path):
    data = random.Random(1).randbytes(9 * MIB + 512)
    made = file_disk(tmp_path / "full", len(data), fill=data)
    with DiskHandle(made.path) as handle:
        wiped = wipe_disk(handle, NoProgress())
    assert wiped.size == wiped.verified_bytes == len(data)
    assert Path(made.path).read_bytes() == bytes(len(data))


def test_a_sparse_disk_stays_sparse_when_it_is_wiped(tmp_path):
    made = file_disk(tmp_path / "sparse", 64 * MIB, fill=b"data")
    with DiskHandle(made.path) as handle:
        assert wipe_disk(handle, NoProgress()).verified_bytes == 64 * MIB
    assert Path(made.path).stat().st_blocks * 512 < 8 * MIB


def test_a_byte_that_survives_the_wipe_is_found(tmp_path, monkeypatch):
    made = file_disk(tmp_path / "stubborn", 8 * MIB, fill=b"x" * MIB)
    keep = DiskHandle.write_zeros

    def stubborn(self, begin, end):
        yield from keep(self, begin, end)
        self.write(0, bytes(100) + b"!")

    with DiskHandle(made.path) as handle:
        monkeypatch.setattr(DiskHandle, "write_zeros", stubborn)
        with pytest.raises(StepFailed, match="first at 100"):
            wipe_disk(handle, NoProgress())


def test_a_manifest_is_believed_only_by_its_asset_id():
    assert parse_manifest(ASSET.manifest(), ASSET.asset).size == len(IMAGE)
    with pytest.raises(StepFailed, match="not that of"):
        parse_manifest(ASSET.manifest(), "b3:" + "0" * 64)
    with pytest.raises(StepFailed, match="not readable"):
        parse_manifest(b"<html>", ASSET.asset)


@pytest.mark.parametrize(
    "change",
    [
        {"v": 2},
        {"chunk_bytes": 1000},
        {"chunk_bytes": 64 * MIB},
        {"members": []},
        {"members": [["", 10, []]]},
        {"members": [["a", 1, [b"0" * 32]]]},
        {"members": [["", 1, [b"0" * 31]]]},
        {"members": [["", "1", [b"0" * 32]]]},
        {"sha256": None},
    ],
)
def test_a_core_of_another_shape_is_refused(change):
    core = {"chunk_bytes": MIB, "members": [["", 1, [b"0" * 32]]], "sha256": "", "v": 1}
    assert parse_core(msgpack.packb(core), "b3:").size == 1
    with pytest.raises(StepFailed):
        parse_core(msgpack.packb(core | change), "b3:")


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(1 << 63), (1 << 64) - 1)
        | st.text() | st.binary(),
        lambda inner: st.lists(inner, max_size=20) | st.dictionaries(st.text(), inner),
        max_leaves=20,
    )
)  # fmt: skip
def test_every_value_of_the_codec_is_decoded_like_msgpack_does(value):
    assert unpack(msgpack.packb({"value": value})) == {"value": value}


@given(st.binary(max_size=300))
def test_garbage_never_raises_anything_but_a_sentence(data):
    try:
        unpack(data)
    except StepFailed:
        pass
    with pytest.raises(StepFailed):
        parse_manifest(data, "b3:x")
    wrapped = json.dumps({"core": base64.b64encode(data).decode()}).encode()
    with pytest.raises(StepFailed):
        parse_manifest(wrapped, f"b3:{blake3(data).hexdigest()}")
