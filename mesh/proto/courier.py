"""State that is carried by hand: how pieces of it stand in a file.

The pieces are the very messages of anti-entropy (``sync_wire.py``: records, deltas), so whoever
takes them checks them as if a peer had sent them. It knows no disk and no store. Rules: a piece
has its own check and a bounded length; the file ends with the number of its pieces, so one that
was cut short is told apart from a small one.

    8 bytes magic, 20 bytes root fingerprint, then pieces: u32 length, 8 bytes BLAKE2b, message;
    the last: u32 0, 8 bytes number of pieces
"""

import hashlib
import struct
from collections.abc import Callable, Iterator
from typing import Final

from mesh.errors import CodecError
from mesh.proto.codec import pack, unpack_map
from mesh.proto.ids import ROOT_FINGERPRINT_BYTES
from mesh.proto.sync_wire import Deltas, Records, body_of, parse

MAGIC: Final = b"rmstate1"
PIECE_HEAD: Final = struct.Struct(">I8s")
PIECE_BYTES_MAX: Final = 512 << 10
"""Above a frame of anti-entropy (256 KiB and one row more)."""
PIECES_MAX: Final = 1 << 20


def make_piece(message: Records | Deltas) -> bytes:
    """Return a message as a piece."""
    piece = pack(body_of(message))
    assert len(piece) <= PIECE_BYTES_MAX
    return piece


def open_piece(piece: bytes) -> Records | Deltas:
    """Return the message of a piece; raise CodecError for anything else."""
    message = parse(unpack_map(piece, PIECE_BYTES_MAX))
    if not isinstance(message, (Records, Deltas)):
        raise CodecError("a message that carries no state")
    return message


def file_head(root_fp: bytes) -> bytes:
    """Return what a file begins with."""
    assert len(root_fp) == ROOT_FINGERPRINT_BYTES
    return MAGIC + root_fp


def file_piece(piece: bytes) -> bytes:
    """Return a piece as it stands in a file."""
    assert piece
    return PIECE_HEAD.pack(len(piece), _check(piece)) + piece


def file_end(count: int) -> bytes:
    """Return what a file of so many pieces ends with."""
    return PIECE_HEAD.pack(0, count.to_bytes(8))


def read_pieces(read: Callable[[int], bytes], root_fp: bytes) -> Iterator[bytes]:
    """Yield the pieces of a file; raise CodecError with one sentence where it is damaged.

    ``read(n)`` returns at most n bytes, nothing at the end. What was yielded is whole.
    """
    if _at_most(read, len(MAGIC)) != MAGIC:
        raise CodecError("this is no file of rackmesh state export")
    whose = _exactly(read, ROOT_FINGERPRINT_BYTES)
    if whose != root_fp:
        other, own = whose.hex()[:8], root_fp.hex()[:8]
        raise CodecError(f"this is state of organisation {other}, not of {own}")
    for count in range(PIECES_MAX):
        size, check = PIECE_HEAD.unpack(_exactly(read, PIECE_HEAD.size))
        if size == 0:
            if check != count.to_bytes(8):
                raise CodecError("the file is damaged: pieces are missing")
            return
        if size > PIECE_BYTES_MAX:
            raise CodecError(f"the file is damaged after {count} pieces")
        piece = _exactly(read, size)
        if _check(piece) != check:
            raise CodecError(f"the file is damaged after {count} pieces")
        yield piece
    raise CodecError(f"the file has more than {PIECES_MAX} pieces")


def _exactly(read: Callable[[int], bytes], count: int) -> bytes:
    found = _at_most(read, count)
    if len(found) < count:
        raise CodecError("the file is cut short; export it again")
    return found


def _at_most(read: Callable[[int], bytes], count: int) -> bytes:
    found = b""
    while len(found) < count and (data := read(count - len(found))):
        found += data
    return found


def _check(piece: bytes) -> bytes:
    return hashlib.blake2b(piece, digest_size=8).digest()
