"""Bundles on disk: written as the content comes by, read at any place.

The shell over ``mesh/proto/bundle.py``; methods block, callers use a worker thread. It knows
neither store nor mesh. Rules: one chunk is in memory at a time, and of manifests the one that
is at work; whole chunks of zeros are not stored; a chunk is given out only if it hashes to what
its asset says.
"""

import hashlib
import os
import stat
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, Final, Self

import blake3

from cache.errors import BundleRefused, ManifestError
from cache.proto.manifest import CHUNK_BYTES, Manifest, make_manifest, parse_manifest
from mesh.errors import CodecError
from mesh.proto import bundle as form
from mesh.proto.bundle import Index, Installer, Part, Seal
from mesh.proto.courier import file_end, file_head, file_piece, read_pieces

READ_BYTES: Final = 1 << 20
ZEROS: Final = bytes(CHUNK_BYTES)


class BundleWriter:
    """Writes one bundle: state, assets, perhaps the installer, then the seal."""

    def __init__(self, out: BinaryIO, root_fp: bytes, build: str) -> None:
        self._out, self._root_fp, self._build = out, root_fp, build
        self._at = 0
        self._state = (0, b"")
        self._parts: list[Part] = []
        self._installer: Installer | None = None
        self._write(form.head(root_fp))

    def add_state(self, pieces: Iterable[bytes]) -> None:
        """Write pieces of signed state (mesh/proto/courier.py); comes first."""
        assert self._at == form.HEAD_BYTES
        digest, count = hashlib.blake2b(digest_size=form.DIGEST_BYTES), 0

        def put(data: bytes) -> None:
            digest.update(data)
            self._write(data)

        put(file_head(self._root_fp))
        for piece in pieces:
            put(file_piece(piece))
            count += 1
        put(file_end(count))
        self._state = (self._at - form.HEAD_BYTES, digest.digest())

    def add_asset(self, asset: str, names: Iterable[str], content: Iterable[bytes]) -> None:
        """Write the content of an asset; BundleRefused when it is another's."""
        at, size = self._at, 0
        sha256, hashes = hashlib.sha256(), bytearray()
        for chunk in _chunks(content):
            sha256.update(chunk)
            hashes += blake3.blake3(chunk).digest()
            size += len(chunk)
            if chunk != ZEROS:
                self._write(chunk)
        manifest = make_manifest(size, sha256.hexdigest(), bytes(hashes))
        if manifest.asset != asset:
            raise BundleRefused(f"what came is {manifest.asset}, not {asset}")
        stored = self._at - at
        self._write(manifest.core)
        self._parts.append(Part(
            asset=asset, names=tuple(names), size=size, chunks=manifest.chunks, at=at,
            stored=stored, core=len(manifest.core),
        ))  # fmt: skip

    def add_installer(self, content: Iterable[bytes]) -> None:
        """Write the program's own files, an archive; comes last."""
        at, digest = self._at, hashlib.blake2b(digest_size=form.DIGEST_BYTES)
        for data in content:
            digest.update(data)
            self._write(data)
        self._installer = Installer(self._build, at, self._at - at, digest.digest())

    def finish(self, seal: Callable[[bytes], bytes]) -> Index:
        """Write the index and its seal; ``seal`` signs the digest of the index."""
        assert self._installer is None or self._installer.size
        index = Index(self._build, *self._state, tuple(self._parts), self._installer)
        data = index.dump()
        self._write(form.tail(data, seal(form.digest_of(data))))
        return index

    def _write(self, data: bytes) -> None:
        self._out.write(data)
        self._at += len(data)


class BundleReader:
    """One bundle that is open; what is wrong with it is BundleRefused, with one sentence."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path, self._descriptor = path, descriptor
        size = os.fstat(descriptor).st_size
        try:
            self.root_fp = form.read_head(os.pread(descriptor, form.HEAD_BYTES, 0))
            last = max(0, size - form.TAIL.size)
            tail = os.pread(descriptor, form.TAIL.size, last)
            index_bytes, seal_bytes = form.read_tail(tail, size)
            end = last - seal_bytes - index_bytes
            data = self._exactly(index_bytes, end)
            seal = self._exactly(seal_bytes, end + index_bytes)
            self.seal: Seal = form.open_seal(seal, self.root_fp, data)
            self.index: Index = form.read_index(data, end)
        except CodecError as exc:
            raise BundleRefused(f"{path}: {exc}") from exc

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open a file; raises BundleRefused, also for what cannot be read."""
        try:
            flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC  # a pipe must not block
            descriptor = os.open(path, flags)
        except (OSError, ValueError) as exc:
            said = exc.strerror if isinstance(exc, OSError) else exc
            raise BundleRefused(f"{path} cannot be read: {said}") from exc
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise BundleRefused(f"{path} is no plain file")
            return cls(path, descriptor)
        except BaseException:
            os.close(descriptor)
            raise

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)

    def state(self) -> Iterator[bytes]:
        """Yield the pieces of signed state."""
        at, end = form.HEAD_BYTES, form.HEAD_BYTES + self.index.state
        digest = hashlib.blake2b(digest_size=form.DIGEST_BYTES)

        def read(count: int) -> bytes:
            nonlocal at
            data = self._exactly(min(count, end - at), at)
            digest.update(data)
            at += len(data)
            return data

        try:
            yield from read_pieces(read, self.root_fp)
        except CodecError as exc:
            raise BundleRefused(f"{self.path}: its state: {exc}") from exc
        if at != end or digest.digest() != self.index.state_digest:
            raise BundleRefused(f"{self.path}: its state is damaged; copy or create it again")

    def asset(self, part: Part) -> "PartReader":
        """Return a reader of an asset's chunks."""
        core = self._exactly(part.core, part.at + part.stored)
        try:
            manifest = parse_manifest(core, part.asset)
        except ManifestError as exc:
            raise BundleRefused(f"{self.path}: {exc}") from exc
        return PartReader(self, part, manifest)

    def installer(self) -> Iterator[bytes]:
        """Yield the bytes of the installer, nothing without one; BundleRefused at its end."""
        tar = self.index.installer
        if tar is None:
            return
        digest = hashlib.blake2b(digest_size=form.DIGEST_BYTES)
        for at in range(tar.at, tar.at + tar.size, READ_BYTES):
            data = self._exactly(min(READ_BYTES, tar.at + tar.size - at), at)
            digest.update(data)
            yield data
        if digest.digest() != tar.digest:
            raise BundleRefused(f"{self.path}: its installer is damaged")

    def refuse(self, sentence: str) -> BundleRefused:
        """Return an error about this file."""
        return BundleRefused(f"{self.path}: {sentence}")

    def _exactly(self, count: int, at: int) -> bytes:
        try:
            data = os.pread(self._descriptor, count, at)
        except OSError as exc:
            raise BundleRefused(f"{self.path} cannot be read: {exc.strerror}") from exc
        if len(data) < count:
            raise BundleRefused(f"{self.path}: {form.CUT}")
        return data

    def read(self, count: int, at: int) -> bytes:
        """Return bytes of the file; BundleRefused when they are not there."""
        return self._exactly(count, at)


class PartReader:
    """The chunks of one asset in a bundle."""

    def __init__(self, file: BundleReader, part: Part, manifest: Manifest) -> None:
        self._file, self._part, self.manifest = file, part, manifest
        self._zeros = manifest.zero_chunks()
        stored = manifest.size - len(self._zeros) * manifest.chunk_bytes
        said = part.size, part.chunks, part.stored
        if said != (manifest.size, manifest.chunks, stored):
            raise file.refuse(f"{part.names[0]} does not have the size that its manifest says")

    @property
    def stored(self) -> list[int]:
        """Return the indexes of the chunks that stand in the file."""
        zeros = frozenset(self._zeros)
        return [index for index in range(self.manifest.chunks) if index not in zeros]

    def chunk(self, index: int) -> bytes:
        """Return a stored chunk, verified; raises BundleRefused."""
        before = index - bisect_left(self._zeros, index)
        at = self._part.at + before * self.manifest.chunk_bytes
        data = self._file.read(self.manifest.chunk_size(index), at)
        if not self.manifest.fits(index, data):
            name = self._part.names[0]
            raise self._file.refuse(f"chunk {index} of {name} is damaged; copy it again")
        return data


def _chunks(content: Iterable[bytes]) -> Iterator[bytes]:
    """Cut a stream into chunks; the last one may be short."""
    have = bytearray()
    for data in content:
        have += data
        while len(have) >= CHUNK_BYTES:
            yield bytes(have[:CHUNK_BYTES])
            del have[:CHUNK_BYTES]
    if have:
        yield bytes(have)
