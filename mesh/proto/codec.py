"""Canonical msgpack: the one encoding of everything that is stored, signed or sent.

It knows nothing of what the maps mean. Rule: maps have string keys in the order of their UTF-8
bytes, so equal values have equal bytes; but what came from outside is *kept* as received, since
msgpack decoders accept more than one spelling (signatures are checked over received bytes).
"""

from typing import Any, Final

import msgpack

from mesh.errors import CodecError

DEPTH_MAX: Final = 32
"""Deepest nesting that ``pack`` writes."""


def pack(value: Any) -> bytes:
    """Return the canonical bytes of a value made of None, bool, int, str, bytes, list, dict.

    Floats are allowed for metrics but have no place in signed objects.
    """
    data = msgpack.packb(_ordered(value, 0), use_bin_type=True)
    assert data is not None
    return bytes(data)


def unpack(data: bytes, bytes_max: int = 1 << 20) -> Any:
    """Decode bytes from anywhere; raise CodecError for anything but one whole value.

    ``bytes_max`` bounds the input; lengths inside are bounded by it too.
    """
    if len(data) > bytes_max:
        raise CodecError(f"{len(data)} bytes exceed the limit of {bytes_max}")
    try:
        return msgpack.unpackb(data, raw=False, strict_map_key=True)
    except Exception as exc:  # msgpack raises many unrelated kinds on hostile input
        raise CodecError(f"not msgpack: {type(exc).__name__}") from exc


def unpack_map(data: bytes, bytes_max: int = 1 << 20) -> dict[str, Any]:
    """Decode bytes that must hold one map with string keys."""
    value = unpack(data, bytes_max)
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise CodecError("not a map with string keys")
    return value


def _ordered(value: Any, depth: int) -> Any:
    assert depth <= DEPTH_MAX, "nesting too deep"
    if isinstance(value, dict):
        assert all(isinstance(key, str) for key in value), "map keys are strings"
        keys = sorted(value, key=str.encode)
        return {key: _ordered(value[key], depth + 1) for key in keys}
    if isinstance(value, (list, tuple)):
        return [_ordered(item, depth + 1) for item in value]
    return value
