"""What an asset is: its size and the BLAKE3 hash of every chunk.

The asset id is BLAKE3 over the canonical bytes of the *core*; whoever has the id can check the
core, and with the core every chunk, whoever sends it. It knows no files and no peers. Rule: a
manifest exists only if its core hashes to the id it was asked for.
"""

from dataclasses import dataclass
from typing import Any, Final

import blake3

from cache.errors import ManifestError
from mesh.errors import CodecError
from mesh.proto.codec import pack, unpack_map
from mesh.proto.ids import ASSET_PATTERN

CHUNK_BYTES: Final = 1 << 20
HASH_BYTES: Final = 32
CORE_BYTES_MAX: Final = 16 << 20
"""Largest core we take: about half a million chunks, 512 GiB."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """One asset of one member: ``hashes`` holds 32 bytes per chunk, in order."""

    asset: str
    size: int
    chunk_bytes: int
    sha256: str
    hashes: bytes
    core: bytes

    @property
    def chunks(self) -> int:
        """Number of chunks."""
        return len(self.hashes) // HASH_BYTES

    def chunk_hash(self, index: int) -> bytes:
        """Return the hash that chunk ``index`` must have."""
        return self.hashes[index * HASH_BYTES : (index + 1) * HASH_BYTES]

    def chunk_size(self, index: int) -> int:
        """Return the length of chunk ``index``; only the last one may be short."""
        assert 0 <= index < self.chunks
        return min(self.chunk_bytes, self.size - index * self.chunk_bytes)

    def zero_chunks(self) -> list[int]:
        """Return the whole chunks of which every byte is zero."""
        zeros = blake3.blake3(bytes(self.chunk_bytes)).digest()
        whole = self.size // self.chunk_bytes
        return [index for index in range(whole) if self.chunk_hash(index) == zeros]

    def fits(self, index: int, data: bytes | bytearray | memoryview) -> bool:
        """Tell whether ``data`` is chunk ``index``."""
        return len(data) == self.chunk_size(index) and blake3.blake3(
            data
        ).digest() == self.chunk_hash(index)


def make_manifest(
    size: int, sha256: str, hashes: bytes, chunk_bytes: int = CHUNK_BYTES
) -> Manifest:
    """Return the manifest of one file of ``size`` bytes."""
    assert len(hashes) == HASH_BYTES * -(-size // chunk_bytes)
    chunks = [hashes[i : i + HASH_BYTES] for i in range(0, len(hashes), HASH_BYTES)]
    core = pack(
        {"v": 1, "chunk_bytes": chunk_bytes, "sha256": sha256, "members": [["", size, chunks]]}
    )
    asset = "b3:" + blake3.blake3(core).hexdigest()
    return Manifest(asset, size, chunk_bytes, sha256, hashes, core)


def parse_manifest(core: bytes, asset: str) -> Manifest:
    """Check a core from anywhere against the id it was asked for; raise ManifestError."""
    if not ASSET_PATTERN.match(asset):
        raise ManifestError(f"{asset!r} is not an asset id")
    if len(core) > CORE_BYTES_MAX or "b3:" + blake3.blake3(core).hexdigest() != asset:
        raise ManifestError(f"the manifest does not hash to {asset}")
    try:
        body = unpack_map(core, CORE_BYTES_MAX)
    except CodecError as exc:
        raise ManifestError(f"the manifest of {asset} cannot be read: {exc}") from exc
    size, chunk_bytes, sha256, chunks = _fields(body, asset)
    if len(chunks) != -(-size // chunk_bytes):
        raise ManifestError(
            f"the manifest of {asset} has {len(chunks)} chunks for {size} bytes"
        )
    return Manifest(asset, size, chunk_bytes, sha256, b"".join(chunks), core)


def _fields(body: dict[str, Any], asset: str) -> tuple[int, int, str, list[bytes]]:
    match body:
        case {
            "v": 1,
            "chunk_bytes": int(chunk_bytes),
            "sha256": str(sha256),
            "members": [["", int(size), list(chunks)]],
        } if (
            4096 <= chunk_bytes <= 1 << 24
            and 0 <= size < 1 << 48
            and len(sha256) == 64
            and all(isinstance(chunk, bytes) and len(chunk) == HASH_BYTES for chunk in chunks)
        ):
            return size, chunk_bytes, sha256, chunks
        case _:
            pass
    raise ManifestError(f"the manifest of {asset} is of a kind that this version cannot read")
