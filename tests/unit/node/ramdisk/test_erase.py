"""The erase of one disk: places, markers, and every kind of disk that lies."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from node.rack.drive import HONEST, LIARS, SimulatedDrive
from node.ramdisk.erase import BLOCK_BYTES, Wish, erase_disk, marker, places
from node.ramdisk.errors import StepFailed
from tests.support.fake_machine import NoProgress, file_disk

MIB = 1 << 20
SEED = "5a" * 32
SAYS = {
    "feature-missing": "still hold what they held, the first at 0",
    "discard-keeps": "still hold what they held, the first at 0",
    "format-lies": "still hold what they held",
    "half-erased": "still hold what they held, the first at 4",
    "cache-restores": "still hold what they held, the first at 0",
    "other-disk-erased": "still hold what they held, the first at 0",
    "other-disk-answers": "says it is ANOTHER",
    "skips-the-marked": "still hold what they held, the first at 8",
}


def erase(tmp_path: Path, kind: str, *methods: str, **more: Any) -> Any:
    thawed = more.pop("thawed", False)
    disk = file_disk(tmp_path / "disk", 8 * MIB, fill=b"secret!!" * (MIB // 2))
    drive = SimulatedDrive(disk, kind, thawed=thawed)
    wish = Wish(**{
        "serial": "S1", "bytes": disk.bytes, "methods": methods, "samples": 64, "seed": SEED,
        **more,
    })  # fmt: skip
    done = erase_disk(disk, drive, wish, NoProgress())  # type: ignore[arg-type]
    return done, Path(disk.path).read_bytes()


@pytest.mark.parametrize("kind", sorted(HONEST))
def test_each_method_of_an_honest_disk_is_believed_after_a_look(tmp_path, kind):
    for method in HONEST[kind]:
        done, left = erase(tmp_path, kind, method, thawed=True)
        assert (done.method, done.attempts, done.pattern) == (method, [], "zeros")
        assert left == bytes(8 * MIB)
        assert (done.samples, done.markers >= 32) == (64, True)
        assert done.telling >= 8 * done.markers
        zeroing = method in ("overwrite", "write-zeroes")
        assert done.verified_bytes == (8 * MIB if zeroing else 0)


@pytest.mark.parametrize("kind", sorted(LIARS))
def test_a_lying_disk_fails_loudly_and_nothing_else_is_tried(tmp_path, kind):
    with pytest.raises(StepFailed, match=SAYS[kind]):
        erase(tmp_path, kind, *LIARS[kind])


def test_a_refused_method_is_told_and_the_next_one_runs(tmp_path):
    done, left = erase(
        tmp_path, "ata-frozen", "nvme-format-crypto", "ata-enhanced", "overwrite"
    )
    assert done.method == "overwrite"
    assert done.attempts == [
        {"method": "nvme-format-crypto", "error": "vda does not offer nvme-format-crypto"},
        {"method": "ata-enhanced", "error": "vda is frozen by the firmware"},
    ]
    assert left == bytes(8 * MIB)


def test_when_every_method_is_refused_the_erase_fails(tmp_path):
    with pytest.raises(StepFailed, match="no method works on vda: vda is frozen"):
        erase(tmp_path, "ata-frozen", "ata-enhanced")


@pytest.mark.parametrize("wrong", [{"serial": "S2"}, {"bytes": 9 * MIB}])
def test_another_disk_than_the_one_that_is_meant_is_not_touched(tmp_path, wrong):
    with pytest.raises(StepFailed, match="says it is S1 of 8388608 bytes; meant is"):
        erase(tmp_path, "block", "overwrite", **wrong)
    assert (tmp_path / "disk").read_bytes() == b"secret!!" * (MIB // 2) + bytes(4 * MIB)


@pytest.mark.parametrize(
    "wrong", [{"seed": "00"}, {"samples": 1}, {"samples": 5000}, {"methods": ()}]
)
def test_an_order_that_is_not_complete_is_refused(tmp_path, wrong):
    with pytest.raises(StepFailed, match="not complete"):
        erase(tmp_path, "block", "overwrite", **wrong)


@pytest.mark.parametrize("size", [4096, 5 * 4096, MIB + 512, 100 * MIB, (1 << 44) + 4096])
def test_places_are_spread_over_the_whole_disk(size):
    found = places(b"s" * 32, size, 64)
    assert found == sorted(set(found))
    assert found[0] == 0
    assert len(found) == min(64, size // BLOCK_BYTES)
    assert found[-1] == size // BLOCK_BYTES * BLOCK_BYTES - BLOCK_BYTES
    part = size / 64
    assert all(b - a <= 2 * part + BLOCK_BYTES for a, b in pairwise(found))
    assert places(b"t" * 32, size, 64) != found or size < MIB


def test_markers_differ_by_seed_and_place():
    assert len({marker(b"a", 0), marker(b"a", 4096), marker(b"b", 0)}) == 3
    assert len(marker(b"a", 0)) == BLOCK_BYTES
