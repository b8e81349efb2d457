"""Readers of fields of maps that came from outside: the right kind and size, or CodecError.

It knows nothing of what the fields mean. Rule: a missing field takes the default that the
caller gives (schema: every field is optional); one of the wrong kind is never coerced.
"""

from collections.abc import Mapping
from typing import Any, Final

from mesh.errors import CodecError

U64_MAX: Final = (1 << 64) - 1
MISSING: Final[Any] = object()
"""Default of a field that must be there."""


def integer(
    body: Mapping[str, Any],
    key: str,
    *,
    least: int = 0,
    most: int = U64_MAX,
    default: Any = MISSING,
) -> int:
    """Return a whole number within bounds; booleans are not numbers."""
    value = _value(body, key, default)
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise CodecError(f"field {key} is not a number from {least} to {most}")
    return value


def raw(
    body: Mapping[str, Any], key: str, size: int | None = None, *, bytes_max: int = 1 << 16
) -> bytes:
    """Return bytes, exactly ``size`` of them when that is given."""
    value = _value(body, key, MISSING)
    if not isinstance(value, bytes) or len(value) > bytes_max:
        raise CodecError(f"field {key} is not at most {bytes_max} bytes")
    if size is not None and len(value) != size:
        raise CodecError(f"field {key} has {len(value)} bytes, not {size}")
    return value


def text(
    body: Mapping[str, Any], key: str, *, chars_max: int = 256, default: Any = MISSING
) -> str:
    """Return a text of at most ``chars_max`` characters."""
    value = _value(body, key, default)
    if not isinstance(value, str) or len(value) > chars_max:
        raise CodecError(f"field {key} is not a text of at most {chars_max} characters")
    return value


def flag(body: Mapping[str, Any], key: str, *, default: Any = MISSING) -> bool:
    """Return a boolean."""
    value = _value(body, key, default)
    if not isinstance(value, bool):
        raise CodecError(f"field {key} is not true or false")
    return value


def items(
    body: Mapping[str, Any], key: str, *, count_max: int = 256, default: Any = MISSING
) -> list[Any]:
    """Return a list of at most ``count_max`` values of any kind."""
    value = _value(body, key, default)
    if not isinstance(value, (list, tuple)) or len(value) > count_max:
        raise CodecError(f"field {key} is not a list of at most {count_max}")
    return list(value)


def texts(
    body: Mapping[str, Any],
    key: str,
    *,
    count_max: int = 256,
    chars_max: int = 256,
    default: Any = MISSING,
) -> tuple[str, ...]:
    """Return a list of texts."""
    values = items(body, key, count_max=count_max, default=default)
    if not all(isinstance(value, str) and len(value) <= chars_max for value in values):
        raise CodecError(f"field {key} holds something that is not a short text")
    return tuple(values)


def raws(
    body: Mapping[str, Any], key: str, size: int, *, count_max: int = 64, default: Any = MISSING
) -> tuple[bytes, ...]:
    """Return a list of byte strings of one size."""
    values = items(body, key, count_max=count_max, default=default)
    if not all(isinstance(value, bytes) and len(value) == size for value in values):
        raise CodecError(f"field {key} holds something that is not {size} bytes")
    return tuple(values)


def mapping(
    body: Mapping[str, Any], key: str, *, count_max: int = 1024, default: Any = MISSING
) -> dict[str, Any]:
    """Return a map with string keys."""
    value = _value(body, key, default)
    if not isinstance(value, Mapping) or len(value) > count_max:
        raise CodecError(f"field {key} is not a map of at most {count_max}")
    if not all(isinstance(name, str) for name in value):
        raise CodecError(f"field {key} has a key that is not a text")
    return dict(value)


def check_plain(value: Any, depth_max: int = 8) -> None:
    """Raise CodecError unless a value can be encoded again by ``codec.pack``.

    Decoders let deeper nesting, keys that are bytes and extension types pass.
    """
    if depth_max < 0:
        raise CodecError("nesting too deep")
    if isinstance(value, Mapping):
        if not all(isinstance(name, str) for name in value):
            raise CodecError("a key that is not a text")
        for item in value.values():
            check_plain(item, depth_max - 1)
    elif isinstance(value, (list, tuple)):
        for item in value:
            check_plain(item, depth_max - 1)
    elif value is not None and not isinstance(value, (bool, int, float, str, bytes)):
        raise CodecError(f"a value of the kind {type(value).__name__}")


def _value(body: Mapping[str, Any], key: str, default: Any) -> Any:
    value = body.get(key, default)
    if value is MISSING:
        raise CodecError(f"field {key} is missing")
    return value
