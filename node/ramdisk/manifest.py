"""The manifest of an image: proved to belong to its asset id, and only then believed.

It knows the canonical msgpack of the core (the agent carries no msgpack package) and nothing of
HTTP. Rule: every figure comes out of the core whose BLAKE3 is the asset id; what stands beside
it in the JSON is not looked at.
"""

import base64
import binascii
import json
import struct
from dataclasses import dataclass
from typing import Any, Final, cast

from blake3 import blake3

from node.ramdisk.disk import ALIGN
from node.ramdisk.errors import StepFailed

MANIFEST_BYTES_MAX: Final = 16 << 20
CHUNK_BYTES_MAX: Final = 2 << 20
CHUNKS_MAX: Final = 1 << 16
DEPTH_MAX: Final = 8


@dataclass(frozen=True, slots=True)
class Manifest:
    """An image as a row of chunks."""

    asset: str
    size: int
    chunk_bytes: int
    sha256: str
    chunks: tuple[bytes, ...]

    def span(self, index: int) -> tuple[int, int]:
        """Return (offset, length) of a chunk."""
        offset = index * self.chunk_bytes
        return offset, min(self.chunk_bytes, self.size - offset)


def parse_manifest(data: bytes, asset: str) -> Manifest:
    """Return the manifest of ``asset`` from the JSON that a node serves; or StepFailed."""
    try:
        answer = json.loads(data)
        core = base64.b64decode(answer["core"], validate=True)
    except (ValueError, KeyError, TypeError, RecursionError, binascii.Error) as exc:
        raise StepFailed(f"the manifest of {asset} is not readable: {exc}") from exc
    if f"b3:{blake3(core).hexdigest()}" != asset:
        raise StepFailed(f"the manifest that was served is not that of {asset}")
    return parse_core(core, asset)


def parse_core(core: bytes, asset: str) -> Manifest:
    """Return the manifest in a core whose hash was checked; its shape is checked here."""
    value = unpack(core)
    try:
        chunk_bytes, sha256, version = value["chunk_bytes"], value["sha256"], value["v"]
        [[path, size, hashes]] = value["members"]
    except (KeyError, TypeError, ValueError) as exc:
        raise StepFailed(f"{asset} is not an asset of one file") from exc
    numbers = all(type(number) is int for number in (chunk_bytes, size, version))
    if not numbers or version != 1 or path != "" or not isinstance(sha256, str):
        raise StepFailed(f"{asset} is not an image that this ramdisk can write")
    if not 0 < chunk_bytes <= CHUNK_BYTES_MAX or chunk_bytes % ALIGN:
        raise StepFailed(f"{asset} has chunks of {chunk_bytes} bytes, which cannot be handled")
    wanted = -(-size // chunk_bytes)
    chunks = tuple(hashes) if isinstance(hashes, list) else ()
    whole = all(isinstance(chunk, bytes) and len(chunk) == 32 for chunk in chunks)
    if size <= 0 or len(chunks) != wanted or not whole:
        raise StepFailed(f"the manifest of {asset} does not list its {wanted} chunks")
    return Manifest(asset, size, chunk_bytes, sha256, chunks)


def unpack(data: bytes) -> dict[str, Any]:
    """Decode one msgpack map of None, bool, int, str, bin, array and map; else StepFailed."""
    try:
        value, end = _value(data, 0, 0)
    except (IndexError, struct.error, UnicodeDecodeError, ValueError) as exc:
        raise StepFailed("the core of a manifest is not msgpack") from exc
    if end != len(data) or not isinstance(value, dict):
        raise StepFailed("the core of a manifest is not one msgpack map")
    return cast("dict[str, Any]", value)


_FIXED: Final[dict[int, Any]] = {0xC0: None, 0xC2: False, 0xC3: True}
_NUMBERS: Final = {
    0xCC: ">B", 0xCD: ">H", 0xCE: ">I", 0xCF: ">Q",
    0xD0: ">b", 0xD1: ">h", 0xD2: ">i", 0xD3: ">q",
}  # fmt: skip
_LENGTHS: Final = {
    0xC4: ("bin", ">B"), 0xC5: ("bin", ">H"), 0xC6: ("bin", ">I"),
    0xD9: ("str", ">B"), 0xDA: ("str", ">H"), 0xDB: ("str", ">I"),
    0xDC: ("array", ">H"), 0xDD: ("array", ">I"), 0xDE: ("map", ">H"), 0xDF: ("map", ">I"),
}  # fmt: skip


def _value(data: bytes, at: int, depth: int) -> tuple[Any, int]:
    if depth > DEPTH_MAX:
        raise ValueError("nested too deep")
    tag = data[at]
    at += 1
    if tag < 0x80:
        return tag, at
    if tag >= 0xE0:
        return tag - 256, at
    if tag < 0xC0:
        kind = "map" if tag < 0x90 else "array" if tag < 0xA0 else "str"
        return _sized(data, at, kind, tag & (0x1F if kind == "str" else 0x0F), depth)
    if tag in _FIXED:
        return _FIXED[tag], at
    if tag in _NUMBERS:
        form = _NUMBERS[tag]
        return struct.unpack_from(form, data, at)[0], at + struct.calcsize(form)
    if tag in _LENGTHS:
        kind, form = _LENGTHS[tag]
        (length,) = struct.unpack_from(form, data, at)
        return _sized(data, at + struct.calcsize(form), kind, length, depth)
    raise ValueError(f"tag {tag} has no place in a manifest")


def _sized(data: bytes, at: int, kind: str, length: int, depth: int) -> tuple[Any, int]:
    if length > len(data) - at:
        raise ValueError("longer than the data")
    if kind in ("bin", "str"):
        raw = data[at : at + length]
        return (raw if kind == "bin" else raw.decode()), at + length
    items: list[Any] = []
    for _ in range(length * (2 if kind == "map" else 1)):
        item, at = _value(data, at, depth + 1)
        items.append(item)
    if kind == "array":
        return items, at
    keys = items[0::2]
    if not all(isinstance(key, str) for key in keys) or len(set(keys)) != length:
        raise ValueError("keys of a map are different strings")
    return dict(zip(keys, items[1::2], strict=True)), at
