"""Deltas as one string of bytes: packed, and deflated when that makes them shorter.

It knows no session. Rules: what comes from outside is inflated to a limit, decoded straight
into rows with their bounds checked (eight times as fast as value by value), and is a CodecError
when anything is wrong with it; signatures and roots are checked later, over what was decoded.
"""

import zlib
from collections.abc import Iterable
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from mesh.errors import CodecError
from mesh.proto.intake import Delta
from mesh.proto.sets import (
    KEY_BYTES_MAX,
    NUMBER_MAX,
    TABLE_BYTES_MAX,
    Entry,
    parse_head,
)

ROWS_MAX: Final = 4096
"""Rows in one frame."""
PACKED_BYTES_MAX: Final = 1 << 20
"""Of one frame's deltas, inflated."""
PARTS_MAX: Final = 256
PLAIN: Final = b"\x00"
DEFLATED: Final = b"\x01"
DEFLATE_BYTES: Final = 512
"""Less is not worth deflating."""
LEVEL: Final = 1

_Part = tuple[bytes, bytes, Annotated[int, Meta(ge=0, le=NUMBER_MAX)], tuple[Entry, ...], bool]
_PARTS: Final = msgspec.msgpack.Decoder(Annotated[list[_Part], Meta(max_length=PARTS_MAX)])


def pack_parts(parts: Iterable[Delta]) -> bytes:
    """Return deltas as bytes."""
    listed = [
        (part.signed.body, part.signed.signature, part.since, part.entries, part.final)
        for part in parts
    ]
    plain = msgspec.msgpack.encode(listed)
    if len(plain) >= DEFLATE_BYTES:
        short = zlib.compress(plain, LEVEL)
        if len(short) < len(plain):
            return DEFLATED + short
    return PLAIN + plain


def unpack_parts(data: bytes) -> tuple[Delta, ...]:
    """Read deltas from outside; raise CodecError."""
    try:
        listed = _PARTS.decode(_inflated(data))
    except (msgspec.MsgspecError, zlib.error, ValueError, RecursionError) as exc:
        raise CodecError(f"not deltas: {type(exc).__name__}") from exc
    if sum(len(part[3]) for part in listed) > ROWS_MAX:
        raise CodecError(f"more than {ROWS_MAX} rows in a frame")
    for part in listed:
        for table, key, *_ in part[3]:
            if not (table.isascii() and key.isascii()) and _too_long(table, key):
                raise CodecError("table or key too long")
    return tuple(
        Delta(parse_head(head, signature), since, rows, final)
        for head, signature, since, rows, final in listed
    )


def _inflated(data: bytes) -> bytes:
    form, rest = data[:1], data[1:]
    if form == PLAIN and len(rest) <= PACKED_BYTES_MAX:
        return rest
    if form != DEFLATED:
        raise CodecError("deltas in a form that is not in use, or too long")
    inflate = zlib.decompressobj()
    plain = inflate.decompress(rest, PACKED_BYTES_MAX)
    if not inflate.eof or inflate.unused_data:
        raise CodecError("deltas that are cut or too long")
    return plain


def _too_long(table: str, key: str) -> bool:
    return len(table.encode()) > TABLE_BYTES_MAX or len(key.encode()) > KEY_BYTES_MAX
