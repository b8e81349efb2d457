"""Authored sets: the rows of one author in one scope, and the signed head that proves them.

A set is (author, scope); a row (table, key) -> (seq, hlc, body) is written by its author only.
This module has the values and their wire forms; ``replica.py`` has the rules. It knows no
storage and no key: signatures are checked by whoever is given the bytes. Rule: one (epoch, seq)
of a set stands for exactly one content, and ``root`` proves it; rows with seq <= ``base`` no
longer exist anywhere, which is why no tombstone has to wait for anybody.
"""

import hashlib
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final, NamedTuple

import msgpack
from msgspec import Meta

from mesh.errors import CodecError, Refused
from mesh.proto import fields
from mesh.proto.codec import pack, unpack_map
from mesh.proto.tree import HASH_BYTES

HEAD_KIND: Final = "head"
HEAD_N: Final = 1
"""Kind and number of the signature over a head (``mesh/proto/sign.py``)."""
SCHEMA: Final = 1
"""Version of the tables that this program writes (``mesh/proto/tables.py``)."""

ROW_BYTES_MAX: Final = 1 << 16
KEY_BYTES_MAX: Final = 256
TABLE_BYTES_MAX: Final = 64
SCOPE_BYTES_MAX: Final = 64
AUTHOR_BYTES_MAX: Final = 64
HEAD_BYTES_MAX: Final = 1024
SIGNATURE_BYTES_MAX: Final = 64
NUMBER_MAX: Final = (1 << 63) - 1
"""Greatest epoch, seq and stamp: they are stored as signed 64-bit integers."""
PAST_MAX: Final = 16
"""Earlier epochs that a head remembers; epochs change after a restore, not in daily life."""
SET_ROWS_MAX: Final = 1_000_000
"""Rows of one set; a head that claims more is not taken."""
SLACK_ROWS: Final = 8
"""Compaction starts when a set stores more than 2 * live + SLACK_ROWS rows."""

_LEAF: Final = struct.Struct(">BHHQQi")

MARKER: Final = b""
"""Body of a deletion marker in a merged table; None is the body of a retracted row."""


class SetId(NamedTuple):
    """Which set."""

    author: str
    scope: str


class Entry(NamedTuple):
    """A row as it stands in a set. ``body``: packed map, MARKER, or None when retracted.

    The bounds are for what is decoded from outside (``delta_pack.py``).
    """

    table: Annotated[str, Meta(min_length=1, max_length=TABLE_BYTES_MAX)]
    key: Annotated[str, Meta(max_length=KEY_BYTES_MAX)]
    seq: Annotated[int, Meta(ge=1, le=NUMBER_MAX)]
    hlc: Annotated[int, Meta(ge=0, le=NUMBER_MAX)]
    body: Annotated[bytes, Meta(max_length=ROW_BYTES_MAX)] | None


@dataclass(frozen=True, slots=True)
class Head:
    """What an author signs: this set, at this point, has this content."""

    author: str
    scope: str
    epoch: int
    seq: int
    base: int
    root: bytes
    floor: int  # the author issues no stamp at or below it any more
    rows: int  # stored rows, retracted ones included
    schema: int
    past: tuple[tuple[int, int], ...] = ()  # (epoch, last seq) of earlier epochs, newest first

    @property
    def id(self) -> SetId:
        """The set that this is a head of."""
        return SetId(self.author, self.scope)

    @property
    def point(self) -> tuple[int, int]:
        """(epoch, seq): heads of one set are ordered by it."""
        return (self.epoch, self.seq)

    def shares_epoch(self, epoch: int) -> bool:
        """Tell whether an epoch is this head's or one that it names as earlier."""
        return epoch == self.epoch or any(epoch == past for past, _ in self.past)

    def covers(self, point: tuple[int, int]) -> bool:
        """Tell whether this head's history goes through a point, or the point is ahead of it.

        An earlier point that it does not cover is a branch that the author has lost.
        """
        epoch, seq = point
        if epoch >= self.epoch:
            return True
        for past_epoch, last_seq in self.past:
            if past_epoch == epoch:
                return seq <= last_seq
        return len(self.past) == PAST_MAX and epoch < self.past[-1][0]

    def fork(self, other: "Head") -> int | None:
        """Return the last seq that two histories of a set share, None when that is not known.

        Branches part where one of them begins another epoch. Two that went on in one epoch
        (a machine that was copied while it ran) have parted somewhere in it.
        """
        if self.epoch == other.epoch:
            return None
        mine = dict((*self.past, self.point))
        theirs = dict((*other.past, other.point))
        shared = max(mine.keys() & theirs.keys(), default=None)
        return None if shared is None else min(mine[shared], theirs[shared])


class SignedHead(NamedTuple):
    """A head with the bytes that were signed."""

    head: Head
    body: bytes
    signature: bytes


def pack_head(head: Head) -> bytes:
    """Return the bytes that an author signs."""
    return pack(
        {
            "author": head.author,
            "base": head.base,
            "epoch": head.epoch,
            "floor": head.floor,
            "past": [list(point) for point in head.past],
            "root": head.root,
            "rows": head.rows,
            "schema": head.schema,
            "scope": head.scope,
            "seq": head.seq,
        }
    )


def parse_head(body: bytes, signature: bytes) -> SignedHead:
    """Read a head from outside; raise CodecError. The signature is not checked here."""
    if not isinstance(body, bytes) or not isinstance(signature, bytes):
        raise CodecError("a head is two byte strings")
    if len(signature) > SIGNATURE_BYTES_MAX:
        raise CodecError("signature too long")
    said = unpack_map(body, HEAD_BYTES_MAX)

    def number(name: str, least: int = 0) -> int:
        return fields.integer(said, name, least=least, most=NUMBER_MAX)

    head = Head(
        author=fields.text(said, "author", chars_max=AUTHOR_BYTES_MAX),
        scope=fields.text(said, "scope", chars_max=SCOPE_BYTES_MAX),
        epoch=number("epoch", 1),
        seq=number("seq", 1),
        base=number("base"),
        root=fields.raw(said, "root", HASH_BYTES),
        floor=number("floor"),
        rows=number("rows"),
        schema=number("schema"),
        past=_past(fields.items(said, "past", count_max=PAST_MAX, default=[])),
    )
    if head.base > head.seq or head.rows > min(head.seq - head.base, SET_ROWS_MAX):
        raise CodecError("a head that no set can have")
    return SignedHead(head, body, signature)


def _past(listed: list[Any]) -> tuple[tuple[int, int], ...]:
    points: list[tuple[int, int]] = []
    for point in listed:
        if not isinstance(point, (list, tuple)) or len(point) != 2:
            raise CodecError("a past point has two parts")
        if not all(_number(part) for part in point):
            raise CodecError("a past point is two numbers")
        points.append((point[0], point[1]))
    return tuple(points)


def flat(parts: Sequence[Any]) -> bytes:
    """Pack a list of texts, bytes and numbers: canonical, since it holds no map."""
    packed: bytes = msgpack.packb(parts, use_bin_type=True)  # pyright: ignore
    return packed


def key_hash(table: str, key: str) -> bytes:
    """Return where a row hangs in the tree of its set: BLAKE2b of u16 length, table, key."""
    name = table.encode()
    data = len(name).to_bytes(2, "big") + name + key.encode()
    return hashlib.blake2b(data, digest_size=HASH_BYTES).digest()


def leaf_hash(entry: Entry) -> bytes:
    """Return the leaf of a row: everything that it says, each part behind its length.

    BLAKE2b over a zero byte, u16 bytes of the table, u16 of the key, u64 seq, u64 stamp, i32 of
    the body (-1: retracted), then table, key and body.
    """
    table, key, body = entry.table.encode(), entry.key.encode(), entry.body
    size = -1 if body is None else len(body)
    front = _LEAF.pack(0, len(table), len(key), entry.seq, entry.hlc, size)
    data = front + table + key + (body or b"")
    return hashlib.blake2b(data, digest_size=HASH_BYTES).digest()


def leaves_of(entries: Iterable[Entry]) -> list[tuple[bytes, bytes]]:
    """Return ``key_hash`` and ``leaf_hash`` of many rows, in one loop: it is the hot one."""
    pack_front, blake2b, found = _LEAF.pack, hashlib.blake2b, []
    last, name, named = "", b"", bytes(2)
    for table, key, seq, hlc, body in entries:
        if table != last:  # rows of one table mostly stand together
            last, name = table, table.encode()
            named = len(name).to_bytes(2, "big") + name
        place = key.encode()
        where = named + place
        if body is None:
            front = pack_front(0, len(name), len(place), seq, hlc, -1)
            data = front + name + place
        else:
            front = pack_front(0, len(name), len(place), seq, hlc, len(body))
            data = front + name + place + body
        found.append(
            (
                blake2b(where, digest_size=HASH_BYTES).digest(),
                blake2b(data, digest_size=HASH_BYTES).digest(),
            )
        )
    return found


def parse_entry(value: Any) -> Entry:
    """Read one row from outside; raise CodecError. The body's content is checked at apply."""
    if not isinstance(value, (list, tuple)) or len(value) != len(Entry._fields):
        raise CodecError("a row has five parts")
    table, key, seq, hlc, body = value
    if not isinstance(table, str) or not isinstance(key, str):
        raise CodecError("table and key are texts")
    if not table or len(table) > TABLE_BYTES_MAX or len(key) > KEY_BYTES_MAX:
        raise CodecError("table or key too long")
    if len(table.encode()) > TABLE_BYTES_MAX or len(key.encode()) > KEY_BYTES_MAX:
        raise CodecError("table or key too long")
    if not _number(seq) or not _number(hlc) or seq < 1:
        raise CodecError("seq and stamp are numbers")
    if body is not None and (not isinstance(body, bytes) or len(body) > ROW_BYTES_MAX):
        raise CodecError(f"a body is at most {ROW_BYTES_MAX} bytes")
    return Entry(table, key, seq, hlc, body)


def body_is_sound(body: bytes | None) -> bool:
    """Tell whether a body from outside is a map, a marker or a retraction."""
    if not body:
        return True
    try:  # as codec.unpack_map, without its calls: this is the hot loop
        value = msgpack.unpackb(body, raw=False, strict_map_key=True)
        "".join(value)  # a key that is no text raises
    except Exception:  # msgpack raises many unrelated kinds on hostile input
        return False
    return type(value) is dict and len(body) <= ROW_BYTES_MAX


def check_own(scope: str, table: str, key: str, body: bytes | None) -> None:
    """Refuse to write what no peer would take."""
    if not 0 < len(scope.encode()) <= SCOPE_BYTES_MAX:
        raise Refused(f"scope {scope!r} is not 1 to {SCOPE_BYTES_MAX} bytes long")
    if not 0 < len(table.encode()) <= TABLE_BYTES_MAX:
        raise Refused(f"table {table!r} is not 1 to {TABLE_BYTES_MAX} bytes long")
    if len(key.encode()) > KEY_BYTES_MAX:
        raise Refused(f"key {key[:40]!r}... is longer than {KEY_BYTES_MAX} bytes")
    if body is not None and len(body) > ROW_BYTES_MAX:
        raise Refused(
            f"row {table}/{key} has {len(body)} bytes; at most {ROW_BYTES_MAX} are allowed,"
            " larger content belongs into an asset"
        )


def _number(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= NUMBER_MAX
