"""Taking in content whose hash is not known yet: a growing file, hashed chunk by chunk.

Used for the origin's stream and for uploads. Methods block (worker thread). Rule: ``length``
only counts bytes that are written and hashed; ``resume`` reads back and hashes again what is on
disk, so a torn tail is cut off.
"""

import hashlib
import os
from pathlib import Path
from typing import Final

import blake3

from cache.proto.manifest import CHUNK_BYTES, Manifest, make_manifest

SYNC_BYTES: Final = 16 << 20
SCAN_BYTES: Final = 64 << 20
"""So much is hashed in one go of a worker thread; whole chunks."""


class Intake:
    """A file that grows; ``finish`` makes the manifest."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        self._reset()

    def _reset(self) -> None:
        self.length = 0
        self.synced = 0
        self._sha256 = hashlib.sha256()
        self._hashes = bytearray()
        self._tail = bytearray()

    def resume(self, synced: int) -> int:
        """Hash again what an earlier process wrote and fsynced; return the length kept.

        Only whole chunks are kept: the rest is fetched again.
        """
        size = min(synced, os.fstat(self._file).st_size)
        keep = size - size % CHUNK_BYTES
        self._reset()
        os.ftruncate(self._file, keep)
        for offset in range(0, keep, CHUNK_BYTES):
            data = os.pread(self._file, CHUNK_BYTES, offset)
            if len(data) != CHUNK_BYTES:
                os.ftruncate(self._file, offset)
                break
            self._hash(data)
            self.length += len(data)
        self.synced = self.length
        return self.length

    def restart(self) -> None:
        """Forget everything."""
        os.ftruncate(self._file, 0)
        self._reset()

    def append(self, data: bytes) -> None:
        """Write and hash more bytes; raises OSError (disk full) with ``length`` unchanged."""
        view, offset = memoryview(data), self.length
        while view:
            written = os.pwrite(self._file, view, offset)
            view, offset = view[written:], offset + written
        self._tail += data
        self.length = offset
        while len(self._tail) >= CHUNK_BYTES:
            self._hash(bytes(self._tail[:CHUNK_BYTES]))
            del self._tail[:CHUNK_BYTES]

    def scan(self) -> bool:
        """Hash more of what stands in the file already; return True when all of it is."""
        end = os.fstat(self._file).st_size
        until = min(end, self.length + SCAN_BYTES)
        while self.length < until:
            data = os.pread(self._file, min(CHUNK_BYTES, until - self.length), self.length)
            if not data:
                break
            if len(data) == CHUNK_BYTES:
                self._hash(data)
            else:
                self._tail += data
            self.length += len(data)
        return self.length >= end

    def piece(self, offset: int, most: int) -> bytes:
        """Return bytes that are written and hashed, from ``offset`` on."""
        return os.pread(self._file, max(0, min(most, self.length - offset)), offset)

    @property
    def unsynced(self) -> bool:
        """Enough was written since the last sync to be worth one."""
        return self.length - self.synced >= SYNC_BYTES

    def sync(self) -> int:
        """Make the bytes durable; return the durable length."""
        os.fdatasync(self._file)
        self.synced = self.length
        return self.synced

    def finish(self) -> Manifest:
        """Hash the last short chunk and return the manifest; the file is durable."""
        if self._tail:
            self._hash(bytes(self._tail))
            self._tail.clear()
        self.sync()
        return make_manifest(self.length, self._sha256.hexdigest(), bytes(self._hashes))

    def close(self) -> None:
        """Close the file (it stays on disk)."""
        os.close(self._file)

    def _hash(self, data: bytes) -> None:
        self._sha256.update(data)
        self._hashes += blake3.blake3(data).digest()
