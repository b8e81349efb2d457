"""One asset on disk: a sparse data file, its manifest core, and the bits of what is verified.

It knows no network. Rules: a chunk is verified before it is written; the bits reach the disk
only after the data they stand for (data fsynced, then bits written and fsynced), so after a
crash a set bit is true; bits are never trusted further than that: a chunk is verified again
before its first use in this process. Several worker threads may store at once.
"""

import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from cache.errors import ChunkUnavailable
from cache.proto.bitfield import Bitfield
from cache.proto.manifest import Manifest, parse_manifest
from mesh.host.files import write_file

SYNC_BYTES: Final = 48 << 20
"""Unsynced bytes after which the bits are saved: at most this much is fetched again."""


class AssetFiles:
    """The files of one asset below ``folder``; methods block, callers use a worker thread."""

    def __init__(self, folder: Path, manifest: Manifest, have: Bitfield) -> None:
        self.folder = folder
        self.manifest = manifest
        self.have = have
        self._checked = Bitfield(manifest.chunks)
        self._unsynced = 0
        self._lock = threading.Lock()
        self._descriptor = os.open(folder / "data", os.O_RDWR | os.O_CREAT, 0o600)
        os.ftruncate(self._descriptor, manifest.size)

    @classmethod
    def create(cls, root: Path, manifest: Manifest) -> "AssetFiles":
        """Make the folder of a new asset, holding nothing yet but its zeros."""
        folder = root / manifest.asset.removeprefix("b3:")
        folder.mkdir(parents=True, exist_ok=True)
        write_file(folder / "core", manifest.core)
        have = Bitfield(manifest.chunks)
        for index in manifest.zero_chunks():
            have[index] = True  # the sparse file reads as zeros there: nothing to fetch
        return cls(folder, manifest, have)

    @classmethod
    def adopt(cls, root: Path, manifest: Manifest, data: Path) -> "AssetFiles":
        """Make a new asset out of a file whose every byte was just hashed; takes the file."""
        folder = root / manifest.asset.removeprefix("b3:")
        folder.mkdir(parents=True, exist_ok=True)
        os.replace(data, folder / "data")
        write_file(folder / "core", manifest.core)
        files = cls(folder, manifest, Bitfield(manifest.chunks))
        for index in range(manifest.chunks):
            files.have[index] = files._checked[index] = True
        files.sync()
        return files

    @classmethod
    def open(cls, folder: Path) -> "AssetFiles":
        """Open what an earlier process left; raises ManifestError or OSError."""
        manifest = parse_manifest((folder / "core").read_bytes(), "b3:" + folder.name)
        bits = folder / "bits"
        have = Bitfield(manifest.chunks, bits.read_bytes() if bits.exists() else b"")
        return cls(folder, manifest, have)

    @property
    def descriptor(self) -> int:
        """File descriptor of the data, for pread and sendfile."""
        return self._descriptor

    def store(self, index: int, data: bytes | bytearray) -> bool:
        """Verify and write a chunk; False when the bytes are not that chunk. Raises OSError."""
        if not self.manifest.fits(index, data):
            return False
        view = memoryview(data)
        offset = index * self.manifest.chunk_bytes
        while view:
            written = os.pwrite(self._descriptor, view, offset)
            view, offset = view[written:], offset + written
        with self._lock:
            self.have[index] = self._checked[index] = True
            self._unsynced += len(data)
            due = self._unsynced >= SYNC_BYTES or self.have.full
        if due:
            self.sync()
        return True

    def take(self, path: Path, indexes: Sequence[int]) -> bool:
        """Take chunks out of another file of the same content; False when one is not there."""
        with path.open("rb") as file:
            for index in indexes:
                file.seek(index * self.manifest.chunk_bytes)
                if not self.store(index, file.read(self.manifest.chunk_size(index))):
                    return False
        return True

    def read(self, index: int) -> bytes:
        """Return a chunk, verified now or before in this process.

        Raises ChunkUnavailable when it is not held or damaged (its bit is then cleared).
        """
        if not 0 <= index < self.manifest.chunks or not self.have[index]:
            raise ChunkUnavailable(f"chunk {index} of {self.manifest.asset} is not here")
        size = self.manifest.chunk_size(index)
        try:
            data = os.pread(self._descriptor, size, index * self.manifest.chunk_bytes)
        except OSError:
            data = b""  # a place of the disk that cannot be read holds no chunk
        if not self.manifest.fits(index, data):
            with self._lock:
                self.have[index] = self._checked[index] = False
            self.sync()
            raise ChunkUnavailable(
                f"chunk {index} of {self.manifest.asset} was damaged on disk"
            )
        with self._lock:
            self._checked[index] = True
        return data

    def leave_memory(self, first: int, count: int) -> None:
        """Let the kernel forget chunks, so that ``read`` takes them from the disk itself."""
        os.fdatasync(self._descriptor)  # what is not written yet cannot leave memory
        at, size = (chunks * self.manifest.chunk_bytes for chunks in (first, count))
        os.posix_fadvise(self._descriptor, at, size, os.POSIX_FADV_DONTNEED)

    def checked(self, index: int) -> bool:
        """Tell whether a chunk was verified in this process and may be sent as it is."""
        return self._checked[index]

    def sync(self) -> None:
        """Make data, then bits durable."""
        with self._lock:
            bits, self._unsynced = self.have.dump(), 0
            os.fdatasync(self._descriptor)
            write_file(self.folder / "bits", bits)

    def remove(self) -> None:
        """Take the files away, marks first; who reads them now goes on until it lets us go."""
        for name in ("bits", "data", "core"):
            (self.folder / name).unlink(missing_ok=True)
        self.folder.rmdir()

    def close(self) -> None:
        """Save and close."""
        try:
            self.sync()
        finally:
            self._close_descriptor()

    def __del__(self) -> None:
        """Close when nobody can read any more: a reused number would serve other bytes."""
        self._close_descriptor()

    def _close_descriptor(self) -> None:
        descriptor, self._descriptor = getattr(self, "_descriptor", -1), -1
        if descriptor >= 0:
            os.close(descriptor)
