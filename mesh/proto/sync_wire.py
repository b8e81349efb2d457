"""Messages of anti-entropy: values, and their form inside ``sync`` and ``receipt`` frames.

It knows no session. A frame body is what the link decoded: maps, lists, texts, bytes, numbers.
Rule: ``parse`` returns a whole valid message or raises CodecError, for any value whatever;
every list has a limit.
"""

from dataclasses import dataclass
from typing import Any, Final

from mesh.errors import CodecError
from mesh.proto import fields
from mesh.proto.intake import Delta
from mesh.proto.sets import (
    AUTHOR_BYTES_MAX,
    NUMBER_MAX,
    SCOPE_BYTES_MAX,
    SetId,
    parse_entry,
    parse_head,
)
from mesh.proto.tree import HASH_BYTES

WANTS_MAX: Final = 256
"""Sets in one pull."""
ANNOUNCED_MAX: Final = 256
"""Heads in one announcement; more are found by comparing roots."""
HEADS_MAX: Final = 2048
"""Heads in one answer; more follow in the next exchange."""
DELTA_BYTES: Final = 256 * 1024
"""Rows in one frame, about; one row more may follow (ROW_BYTES_MAX)."""
ROWS_MAX: Final = 4096
"""Rows in one frame."""
RECORDS_MAX: Final = 512
RECORD_BYTES_MAX: Final = 1 << 16
RECORDS_BYTES: Final = 256 * 1024
"""Register records in one frame, about."""
MARK_BYTES: Final = 8
"""Of the hash of a register record, and of a bucket of heads."""
HAVE_BYTES_MAX: Final = 60_000 * MARK_BYTES
BUCKETS: Final = (16, 256)
RECEIPTS_MAX: Final = 256


@dataclass(frozen=True, slots=True)
class RootAsk:
    """Begin: what are your digests?"""

    n: int


@dataclass(frozen=True, slots=True)
class Root:
    """The register's digest, and the hash over the heads that both sides carry."""

    n: int
    register: bytes
    root: bytes


@dataclass(frozen=True, slots=True)
class RecordsAsk:
    """Give me register records that are not among these (hashes of 8 bytes)."""

    n: int
    have: bytes


@dataclass(frozen=True, slots=True)
class Records:
    """Register records; ``more``: ask again."""

    n: int
    records: tuple[bytes, ...]
    more: bool


@dataclass(frozen=True, slots=True)
class HeadsAsk:
    """Give me the heads in the buckets that differ from mine."""

    n: int
    buckets: bytes


@dataclass(frozen=True, slots=True)
class Known:
    """A head without its proof: a claim that there is something to pull."""

    id: SetId
    epoch: int
    seq: int
    root: bytes

    @property
    def point(self) -> tuple[int, int]:
        """(epoch, seq)."""
        return (self.epoch, self.seq)


@dataclass(frozen=True, slots=True)
class Heads:
    """Heads in the differing buckets."""

    n: int
    heads: tuple[Known, ...]
    more: bool


@dataclass(frozen=True, slots=True)
class Announce:
    """What has changed here: heads, and the register's digest."""

    register: bytes
    heads: tuple[Known, ...]
    more: bool


@dataclass(frozen=True, slots=True)
class Want:
    """Rows of a set past ``since`` of ``epoch``."""

    id: SetId
    epoch: int
    since: int


@dataclass(frozen=True, slots=True)
class Pull:
    """Give me these deltas, as far as one frame goes."""

    n: int
    wants: tuple[Want, ...]


@dataclass(frozen=True, slots=True)
class Deltas:
    """Deltas, each with the signed head that it leads to."""

    n: int
    parts: tuple[Delta, ...]


Message = RootAsk | Root | RecordsAsk | Records | HeadsAsk | Heads | Announce | Pull | Deltas


def body_of(message: Message) -> dict[str, Any]:
    """Return the frame body of a message."""
    match message:
        case RootAsk(n):
            return {"t": "root?", "n": n}
        case Root(n, register, root):
            return {"t": "root", "n": n, "g": register, "r": root}
        case RecordsAsk(n, have):
            return {"t": "records?", "n": n, "have": have}
        case Records(n, records, more):
            return {"t": "records", "n": n, "records": list(records), "more": more}
        case HeadsAsk(n, buckets):
            return {"t": "heads?", "n": n, "buckets": buckets}
        case Heads(n, heads, more):
            return {"t": "heads", "n": n, "heads": _known_list(heads), "more": more}
        case Announce(register, heads, more):
            return {"t": "announce", "g": register, "heads": _known_list(heads), "more": more}
        case Pull(n, wants):
            listed = [[*want.id, want.epoch, want.since] for want in wants]
            return {"t": "pull", "n": n, "wants": listed}
        case Deltas(n, parts):
            return {"t": "delta", "n": n, "parts": [_part_list(part) for part in parts]}


def parse(body: Any) -> Message:
    """Read a frame body; raise CodecError for anything that is not a message."""
    if not isinstance(body, dict):
        raise CodecError("not a map")
    kind = body.get("t")
    if not isinstance(kind, str):
        raise CodecError("no kind")
    if kind == "announce":
        heads, more = _heads(body, ANNOUNCED_MAX)
        return Announce(fields.raw(body, "g", HASH_BYTES), heads, more)
    n = fields.integer(body, "n", most=NUMBER_MAX)
    match kind:
        case "root?":
            return RootAsk(n)
        case "root":
            register = fields.raw(body, "g", HASH_BYTES)
            return Root(n, register, fields.raw(body, "r", HASH_BYTES))
        case "records?":
            have = fields.raw(body, "have", bytes_max=HAVE_BYTES_MAX)
            return RecordsAsk(n, _whole(have, MARK_BYTES))
        case "records":
            return Records(n, _records(body), fields.flag(body, "more"))
        case "heads?":
            buckets = fields.raw(body, "buckets")
            if len(_whole(buckets, MARK_BYTES)) // MARK_BYTES not in BUCKETS:
                raise CodecError("a number of buckets that is not in use")
            return HeadsAsk(n, buckets)
        case "heads":
            return Heads(n, *_heads(body, HEADS_MAX))
        case "pull":
            wants = fields.items(body, "wants", count_max=WANTS_MAX)
            return Pull(n, tuple(_want(value) for value in wants))
        case "delta":
            return Deltas(n, _parts(body))
        case _:
            raise CodecError("unknown kind")


def receipt_body(points: list[tuple[str, int, int]]) -> dict[str, Any]:
    """Return the frame body that tells an author (scope, epoch, seq) durable here."""
    assert len(points) <= RECEIPTS_MAX
    return {"sets": [list(point) for point in points]}


def parse_receipt(body: Any) -> list[tuple[str, int, int]]:
    """Read a receipt frame; raise CodecError."""
    if not isinstance(body, dict):
        raise CodecError("not a map")
    points: list[tuple[str, int, int]] = []
    for value in fields.items(body, "sets", count_max=RECEIPTS_MAX):
        scope, epoch, seq = _tuple(value, 3)
        points.append((_text(scope, SCOPE_BYTES_MAX), _number(epoch), _number(seq)))
    return points


def _known_list(heads: tuple[Known, ...]) -> list[list[Any]]:
    return [[*known.id, known.epoch, known.seq, known.root] for known in heads]


def _part_list(part: Delta) -> list[Any]:
    rows = [list(entry) for entry in part.entries]
    return [part.signed.body, part.signed.signature, part.since, rows, part.final]


def _records(body: dict[str, Any]) -> tuple[bytes, ...]:
    records = fields.items(body, "records", count_max=RECORDS_MAX)
    for record in records:
        if not isinstance(record, bytes) or len(record) > RECORD_BYTES_MAX:
            raise CodecError("a record is at most 64 KiB of bytes")
    return tuple(records)


def _heads(body: dict[str, Any], count_max: int) -> tuple[tuple[Known, ...], bool]:
    listed = fields.items(body, "heads", count_max=count_max)
    return tuple(_known(value) for value in listed), fields.flag(body, "more")


def _known(value: Any) -> Known:
    author, scope, epoch, seq, root = _tuple(value, 5)
    if not isinstance(root, bytes) or len(root) != HASH_BYTES:
        raise CodecError("a root has 16 bytes")
    return Known(_set_id(author, scope), _number(epoch), _number(seq), root)


def _want(value: Any) -> Want:
    author, scope, epoch, since = _tuple(value, 4)
    return Want(_set_id(author, scope), _number(epoch), _number(since))


def _parts(body: dict[str, Any]) -> tuple[Delta, ...]:
    parts: list[Delta] = []
    rows_left = ROWS_MAX
    for value in fields.items(body, "parts", count_max=WANTS_MAX):
        head, signature, since, rows, final = _tuple(value, 5)
        if not isinstance(rows, (list, tuple)) or len(rows) > rows_left:
            raise CodecError(f"more than {ROWS_MAX} rows in a frame")
        rows_left -= len(rows)
        if not isinstance(final, bool):
            raise CodecError("final is true or false")
        entries = tuple(parse_entry(row) for row in rows)
        parts.append(Delta(parse_head(head, signature), _number(since), entries, final))
    return tuple(parts)


def _set_id(author: Any, scope: Any) -> SetId:
    return SetId(_text(author, AUTHOR_BYTES_MAX), _text(scope, SCOPE_BYTES_MAX))


def _tuple(value: Any, size: int) -> tuple[Any, ...]:
    if not isinstance(value, (list, tuple)) or len(value) != size:
        raise CodecError(f"not a list of {size}")
    return tuple(value)


def _text(value: Any, chars_max: int) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= chars_max:
        raise CodecError(f"not a text of 1 to {chars_max} characters")
    return value


def _number(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= NUMBER_MAX:
        raise CodecError("not a number")
    return value


def _whole(value: bytes, size: int) -> bytes:
    if len(value) % size:
        raise CodecError(f"not a multiple of {size} bytes")
    return value
