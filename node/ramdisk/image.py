"""Write an image on a disk so that its bytes are proved: before each write and after all.

It knows chunks and disks; bytes come from a ``Source``. Rule: a chunk is verified by BLAKE3
before it touches the disk; a chunk that is there already is left alone, so a run that was cut
off goes on where it stopped; zeros are known without fetching them; at the end everything is
read back from the device, zeros too.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Protocol

from blake3 import blake3

from node.ramdisk.disk import DiskHandle
from node.ramdisk.errors import StepFailed
from node.ramdisk.manifest import Manifest
from node.ramdisk.progress import Progress

TAIL_BYTES: Final = 8 << 20
"""Room for the first-boot data that a disk needs behind the image."""
WINDOW_CHUNKS: Final = 16
"""Chunks that are looked at before the missing ones among them are fetched in one go."""


class Source(Protocol):
    """Where chunks come from. ``fetch.py`` has the one over HTTP."""

    def chunks(self, manifest: Manifest, first: int, count: int) -> Iterator[bytes]:
        """Yield ``count`` chunks from ``first`` on, each verified; or raise StepFailed."""
        ...


@dataclass(frozen=True, slots=True)
class Written:
    """What was done; ``sha256`` is of the first ``size`` bytes as read back."""

    size: int
    sha256: str
    resumed_from: int
    """Bytes at the image's start that were found on the disk and not written."""
    fetched_bytes: int
    direct: bool


def write_image(
    disk: DiskHandle, manifest: Manifest, source: Source, progress: Progress
) -> Written:
    """Bring the image on the disk. Raises StepFailed; the disk then holds a part of it."""
    need = manifest.size + TAIL_BYTES
    if disk.size < need:
        raise StepFailed(
            f"the disk has {disk.size} bytes; the image of {manifest.size} and its "
            f"first-boot data need {need}"
        )
    progress.begin(2 * manifest.size)
    everything = range(len(manifest.chunks))
    missing, fetched = _fill(disk, manifest, source, progress, everything, probe=True)
    resumed_from = manifest.span(missing[0])[0] if missing else manifest.size
    wrong, sha256 = read_back(disk, manifest, progress)
    if wrong:
        fetched += _fill(disk, manifest, source, progress, wrong, probe=False)[1]
        wrong, sha256 = read_back(disk, manifest, progress)
    if wrong:
        raise StepFailed(
            f"{len(wrong)} chunks read back differ from what was written twice, the first at "
            f"byte {manifest.span(wrong[0])[0]}: the disk does not keep its data"
        )
    if sha256 != manifest.sha256:
        raise StepFailed("the image's SHA-256 is not the one in its manifest; its maker erred")
    return Written(manifest.size, sha256, resumed_from, fetched, disk.direct)


def read_back(
    disk: DiskHandle, manifest: Manifest, progress: Progress
) -> tuple[list[int], str]:
    """Return the chunks that differ on the device, and SHA-256 of the bytes there."""
    disk.sync()
    progress.done = manifest.size
    wrong: list[int] = []
    digest = hashlib.sha256()
    for index, expected in enumerate(manifest.chunks):
        data = disk.read(*manifest.span(index))
        digest.update(data)
        if blake3(data).digest() != expected:
            wrong.append(index)
        progress.add(len(data))
    return wrong, digest.hexdigest()


def _fill(
    disk: DiskHandle,
    manifest: Manifest,
    source: Source,
    progress: Progress,
    indices: range | list[int],
    *,
    probe: bool,
) -> tuple[list[int], int]:
    """Write the chunks that are not there; return their indices and the bytes fetched."""
    written: list[int] = []
    fetched, zeros = 0, blake3(bytes(manifest.chunk_bytes)).digest()
    for at in range(0, len(indices), WINDOW_CHUNKS):
        missing: list[int] = []
        for index in indices[at : at + WINDOW_CHUNKS]:
            if not probe or not _is_there(disk, manifest, index):
                missing.append(index)
                progress.tick()
            else:
                progress.add(manifest.span(index)[1])
        empty = [index for index in missing if manifest.chunks[index] == zeros]
        for first, count in runs(empty):
            disk.zero(manifest.span(first)[0], count * manifest.chunk_bytes)
            progress.add(count * manifest.chunk_bytes)
        for first, count in runs([index for index in missing if index not in set(empty)]):
            for index, data in enumerate(source.chunks(manifest, first, count), first):
                disk.write(manifest.span(index)[0], data)
                fetched += len(data)
                progress.add(len(data))
        written += missing
    return written, fetched


def _is_there(disk: DiskHandle, manifest: Manifest, index: int) -> bool:
    return bool(blake3(disk.read(*manifest.span(index))).digest() == manifest.chunks[index])


def runs(indices: list[int]) -> list[tuple[int, int]]:
    """Group rising numbers into (first, count) of neighbours."""
    found: list[tuple[int, int]] = []
    for index in indices:
        if found and sum(found[-1]) == index:
            found[-1] = (found[-1][0], found[-1][1] + 1)
        else:
            found.append((index, 1))
    return found
