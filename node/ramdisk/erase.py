"""Erase one disk and find out whether it really is erased.

Theory of operation. Before: the drive itself says who it is; blocks of 4 KiB at places that a
seed chooses (the first, the last, and one in each of equal parts between) are noted, every
second one after a marker made from the seed was written there, flushed and read back. Then the
first method of the node's list that the drive does not refuse. After: the drive says again who
it is, and every place is read with O_DIRECT, once at once and once after all caches on the way
were let go; no sector may be what it was. What must be zeros is read whole.

Rules: a drive that says "done" and has not done it fails the erase; no other method is tried
then. An extent of two parts or more that was left out is always met by a place, a smaller one
by chance. A sector that was blank before proves nothing and is not counted.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from node.ramdisk.disk import DiskHandle
from node.ramdisk.errors import MethodRefused, StepFailed
from node.ramdisk.hardware import OVERWRITE, WRITE_ZEROES, Disk, Drive, Identity
from node.ramdisk.progress import Progress
from node.ramdisk.wipe import overwrite, read_zeros

BLOCK_BYTES: Final = 4096
SECTOR_BYTES: Final = 512
SAMPLES: Final = (16, 4096)
"""Least and most places."""
ATTEMPTS_TOLD: Final = 8
WORDS_MAX: Final = 200


@dataclass(frozen=True, slots=True)
class Wish:
    """What the node orders for one disk."""

    serial: str
    bytes: int
    methods: tuple[str, ...]
    samples: int
    seed: str
    """64 hex digits."""


@dataclass(slots=True)
class _Place:
    offset: int
    marked: bool
    before: bytes = b""


@dataclass(slots=True)
class Erased:
    """What was seen."""

    identity: Identity
    method: str = ""
    attempts: list[dict[str, str]] = field(default_factory=list)
    said: dict[str, Any] = field(default_factory=dict)
    samples: int = 0
    markers: int = 0
    telling: int = 0
    """Sectors that were not blank before and are not what they were: twice read."""
    pattern: str = ""
    verified_bytes: int = 0
    direct: bool = True


def places(seed: bytes, size: int, count: int) -> list[int]:
    """Return the byte offsets of the blocks that are looked at, in rising order.

    The disk is cut into ``count`` equal parts; the first and the last block stand for the first
    and the last part, of the others one block each is chosen.
    """
    blocks = size // BLOCK_BYTES
    assert blocks >= 1, "a disk holds at least one block"
    count = min(count, blocks)
    stream = hashlib.shake_256(b"places\0" + seed).digest(8 * count)
    found: list[int] = []
    for part in range(count):
        first, end = blocks * part // count, blocks * (part + 1) // count
        chance = int.from_bytes(stream[8 * part : 8 * part + 8], "big")
        found.append(BLOCK_BYTES * (first + chance % (end - first)))
    found[0], found[-1] = 0, (size - BLOCK_BYTES) // BLOCK_BYTES * BLOCK_BYTES
    return sorted(set(found))


def marker(seed: bytes, offset: int) -> bytes:
    """Return the block that is written at an offset before the erase."""
    return hashlib.shake_256(b"marker\0" + seed + offset.to_bytes(8, "big")).digest(BLOCK_BYTES)


def erase_disk(disk: Disk, drive: Drive, wish: Wish, progress: Progress) -> Erased:
    """Erase a disk; raises StepFailed, loudly, when it is not known to be erased."""
    seed = bytes.fromhex(wish.seed)
    if len(seed) != 32 or not SAMPLES[0] <= wish.samples <= SAMPLES[1] or not wish.methods:
        raise StepFailed("the order to erase is not complete")
    done = Erased(_who(drive, disk, wish))
    looked = _mark(disk, seed, wish.samples, progress)
    progress.begin(3 * disk.bytes)
    done.method = _first_that_is_done(disk, drive, wish.methods, done, progress)
    if _who(drive, disk, wish) != done.identity:
        raise StepFailed(f"{disk.name} is another disk after {done.method} than before")
    _look(disk, looked, done, progress)
    drive.settle()
    _look(disk, looked, done, progress)
    if done.method in (OVERWRITE, WRITE_ZEROES):
        with DiskHandle(disk.path, disk.sector_bytes) as handle:
            done.verified_bytes = read_zeros(handle, progress).verified_bytes
            done.direct &= handle.direct
    return done


def _who(drive: Drive, disk: Disk, wish: Wish) -> Identity:
    """Ask the drive who it is, and hold that against the order."""
    found = drive.identify()
    if (found.serial, found.bytes) != (wish.serial, wish.bytes):
        raise StepFailed(
            f"{disk.name} says it is {found.serial or 'without serial'} of {found.bytes} bytes;"
            f" meant is {wish.serial or 'without serial'} of {wish.bytes} bytes"
        )
    return found


def _mark(disk: Disk, seed: bytes, count: int, progress: Progress) -> list[_Place]:
    """Write the markers, read all places; StepFailed when a marker does not stay."""
    offsets = places(seed, disk.bytes, count)
    looked = [_Place(at, n % 2 == 0 or n == len(offsets) - 1) for n, at in enumerate(offsets)]
    with DiskHandle(disk.path, disk.sector_bytes) as handle:
        for place in looked:
            if place.marked:
                handle.write(place.offset, marker(seed, place.offset))
            progress.tick()
        handle.sync()
    with DiskHandle(disk.path, disk.sector_bytes) as handle:
        for place in looked:
            place.before = handle.read(place.offset, BLOCK_BYTES)
            if place.marked and place.before != marker(seed, place.offset):
                raise StepFailed(
                    f"{disk.name} does not keep what is written at {place.offset},"
                    " so nothing can be proved about it"
                )
            progress.tick()
    return looked


def _first_that_is_done(
    disk: Disk, drive: Drive, methods: Sequence[str], done: Erased, progress: Progress
) -> str:
    able = drive.capabilities().methods

    def tick(part: float) -> None:
        progress.done = int(disk.bytes * min(max(part, 0.0), 1.0))
        progress.tick()

    for method in methods:
        try:
            if method not in able:
                raise MethodRefused(f"{disk.name} does not offer {method}")
            if method == OVERWRITE:
                with DiskHandle(disk.path, disk.sector_bytes) as handle:
                    overwrite(handle, progress)
            else:
                done.said = drive.erase(method, tick)
        except MethodRefused as exc:
            done.attempts.append({"method": method, "error": str(exc)[:WORDS_MAX]})
            del done.attempts[ATTEMPTS_TOLD:]
            continue
        progress.done = disk.bytes
        return method
    told = "; ".join(one["error"] for one in done.attempts)
    raise StepFailed(f"no method works on {disk.name}: {told}")


def _look(disk: Disk, looked: list[_Place], done: Erased, progress: Progress) -> None:
    """Read every place; StepFailed when a sector is what it was before."""
    patterns: set[str] = set()
    telling = kept = 0
    first_kept = -1
    with DiskHandle(disk.path, disk.sector_bytes) as handle:
        for place in looked:
            after = handle.read(place.offset, BLOCK_BYTES)
            for at in range(0, BLOCK_BYTES, SECTOR_BYTES):
                old, new = place.before[at : at + 512], after[at : at + 512]
                patterns.add(_pattern(new))
                if _pattern(old) != "other":
                    continue
                telling += 1
                if old == new:
                    kept += 1
                    first_kept = place.offset + at if first_kept < 0 else first_kept
            progress.tick()
        done.direct &= handle.direct
    if kept:
        raise StepFailed(
            f"{disk.name} says that {done.method} is done, but {kept} of {telling} sectors that"
            f" were looked at still hold what they held, the first at {first_kept}"
        )
    done.samples, done.telling = len(looked), telling
    done.markers = sum(place.marked for place in looked)
    done.pattern = patterns.pop() if len(patterns) == 1 else "other"


def _pattern(sector: bytes) -> str:
    """Return ``zeros``, ``ones`` (0xFF) or ``other``."""
    if sector.count(0) == len(sector):
        return "zeros"
    return "ones" if sector.count(0xFF) == len(sector) else "other"
