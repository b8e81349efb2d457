"""Messages of anti-entropy: values, and their form inside ``sync`` and ``receipt`` frames.

It knows no session. A frame body is what the link decoded: maps, lists, texts, bytes, numbers.
Rule: ``parse`` returns a whole valid message or raises CodecError, for any value whatever;
every list has a limit.
"""

from dataclasses import dataclass
from itertools import chain
from typing import Any, Final

from mesh.errors import CodecError
from mesh.proto import fields
from mesh.proto.delta_pack import PACKED_BYTES_MAX, ROWS_MAX, pack_parts, unpack_parts
from mesh.proto.evidence import PROOFS_MAX, Proof
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
DELTA_BYTES: Final = 512 * 1024
"""Rows in one frame, about; one row more may follow (ROW_BYTES_MAX)."""
RECORDS_MAX: Final = 512
RECORD_BYTES_MAX: Final = 1 << 16
RECORDS_BYTES: Final = 256 * 1024
"""Register records in one frame, about."""
MARK_BYTES: Final = 8
"""Of the hash of a register record, and of a bucket of heads."""
HAVE_BYTES_MAX: Final = 60_000 * MARK_BYTES
BUCKETS: Final = (16, 256)
VERSION: Final = 2
"""Of these messages: 2 has groups, places and packed deltas; who says nothing speaks 1."""
GROUPS_MAX: Final = 4096
"""Groups of heads in one message; what is beyond costs a full list."""
SEQS_MAX: Final = 65_536
"""Seqs in one answer."""
RECEIPTS_MAX: Final = 256


@dataclass(frozen=True, slots=True)
class RootAsk:
    """Begin: what are your digests? ``groups``: I understand the messages about groups."""

    n: int
    groups: bool = False


@dataclass(frozen=True, slots=True)
class Root:
    """The register's digest, and the hash over the heads that both sides carry."""

    n: int
    register: bytes
    root: bytes
    groups: bool = False  # the root is over groups
    reach: int | None = None  # sum of the seqs under it: who has less compares first


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
class GroupsAsk:
    """Tell me how far the groups are that differ from mine: (key, start of the hash) each."""

    n: int
    marks: bytes


@dataclass(frozen=True, slots=True)
class Points:
    """How far the sets of a group are, in their order."""

    key: bytes
    mark: bytes
    seqs: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Groups:
    """The differing groups."""

    n: int
    points: tuple[Points, ...]


@dataclass(frozen=True, slots=True)
class HeadsOf:
    """Give me all heads of these groups."""

    n: int
    keys: bytes


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
class Ref:
    """Wants of a group, (place of the set, since) each: a tenth of their length."""

    key: bytes
    mark: bytes
    wants: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Pull:
    """Give me these deltas, as far as one frame goes."""

    n: int
    wants: tuple[Want, ...]
    refs: tuple[Ref, ...] = ()


@dataclass(frozen=True, slots=True)
class Deltas:
    """Deltas, each with the signed head that it leads to."""

    n: int
    parts: tuple[Delta, ...]


@dataclass(frozen=True, slots=True)
class Proofs:
    """Proofs against authors, each two heads for one point."""

    proofs: tuple[Proof, ...]


Message = (
    Proofs | RootAsk | Root | RecordsAsk | Records | HeadsAsk | GroupsAsk | Groups | HeadsOf
    | Heads | Announce | Pull | Deltas
)  # fmt: skip


def body_of(message: Message) -> dict[str, Any]:
    """Return the frame body of a message."""
    match message:
        case Proofs(proofs):
            listed = [[*one[1:], *two[1:]] for one, two in proofs]
            return {"t": "proofs", "proofs": listed}
        case RootAsk(n, groups):
            return {"t": "root?", "n": n, **_flag(groups)}
        case Root(n, register, root, groups, reach):
            more = {} if reach is None else {"s": reach}
            return {"t": "root", "n": n, "g": register, "r": root, **_flag(groups), **more}
        case RecordsAsk(n, have):
            return {"t": "records?", "n": n, "have": have}
        case Records(n, records, more):
            return {"t": "records", "n": n, "records": list(records), "more": more}
        case HeadsAsk(n, buckets):
            return {"t": "heads?", "n": n, "buckets": buckets}
        case GroupsAsk(n, marks):
            return {"t": "groups?", "n": n, "marks": marks}
        case Groups(n, points):
            said = [[p.key, p.mark, list(p.seqs)] for p in points]
            return {"t": "groups", "n": n, "groups": said}
        case HeadsOf(n, keys):
            return {"t": "heads of", "n": n, "keys": keys}
        case Heads(n, heads, more):
            return {"t": "heads", "n": n, "heads": _known_list(heads), "more": more}
        case Announce(register, heads, more):
            return {"t": "announce", "g": register, "heads": _known_list(heads), "more": more}
        case Pull(n, wants, refs):
            asked = [[*want.id, want.epoch, want.since] for want in wants]
            body: dict[str, Any] = {"t": "pull", "n": n, "wants": asked}
            if refs:
                body["refs"] = [[r.key, r.mark, list(chain(*r.wants))] for r in refs]
            return body
        case Deltas(n, parts):
            return {"t": "delta", "n": n, "parts": [_part_list(part) for part in parts]}


def packed_body(message: Deltas) -> dict[str, Any]:
    """Return the shorter body of deltas, for peers that understand groups."""
    return {"t": "delta", "n": message.n, "z": pack_parts(message.parts)}


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
    if kind == "proofs":
        return Proofs(_proofs(body))
    n = fields.integer(body, "n", most=NUMBER_MAX)
    match kind:
        case "root?":
            return RootAsk(n, _speaks(body))
        case "root":
            register, root = (fields.raw(body, name, HASH_BYTES) for name in "gr")
            reach = fields.integer(body, "s", most=NUMBER_MAX) if "s" in body else None
            return Root(n, register, root, _speaks(body), reach)
        case "records?":
            have = fields.raw(body, "have", bytes_max=HAVE_BYTES_MAX)
            return RecordsAsk(n, _whole(have, MARK_BYTES))
        case "records":
            return Records(n, parse_records(body), fields.flag(body, "more"))
        case "heads?":
            buckets = fields.raw(body, "buckets")
            if len(_whole(buckets, MARK_BYTES)) // MARK_BYTES not in BUCKETS:
                raise CodecError("a number of buckets that is not in use")
            return HeadsAsk(n, buckets)
        case "groups?":
            most = 2 * MARK_BYTES * GROUPS_MAX
            marks = fields.raw(body, "marks", bytes_max=most)
            return GroupsAsk(n, _whole(marks, 2 * MARK_BYTES))
        case "groups":
            return Groups(n, _points(body))
        case "heads of":
            keys = fields.raw(body, "keys", bytes_max=MARK_BYTES * GROUPS_MAX)
            return HeadsOf(n, _whole(keys, MARK_BYTES))
        case "heads":
            return Heads(n, *_heads(body, HEADS_MAX))
        case "pull":
            wants = fields.items(body, "wants", count_max=WANTS_MAX)
            return Pull(n, tuple(parse_want(value) for value in wants), _refs(body))
        case "delta":
            parts = _packed(body) if "z" in body else _parts(body)
            return Deltas(n, parts)
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


def _packed(body: dict[str, Any]) -> tuple[Delta, ...]:
    return unpack_parts(fields.raw(body, "z", bytes_max=PACKED_BYTES_MAX))


def _flag(groups: bool) -> dict[str, int]:
    return {"v": VERSION} if groups else {}


def _proofs(body: dict[str, Any]) -> tuple[Proof, ...]:
    proofs: list[Proof] = []
    for value in fields.items(body, "proofs", count_max=PROOFS_MAX):
        one, signature, two, other = _tuple(value, 4)
        proofs.append(Proof(parse_head(one, signature), parse_head(two, other)))
    return tuple(proofs)


def _speaks(body: dict[str, Any]) -> bool:
    return fields.integer(body, "v", default=1) >= VERSION


def _points(body: dict[str, Any]) -> tuple[Points, ...]:
    points: list[Points] = []
    left = SEQS_MAX
    for value in fields.items(body, "groups", count_max=GROUPS_MAX):
        key, mark, seqs = _tuple(value, 3)
        left -= len(seqs) if isinstance(seqs, (list, tuple)) else left + 1
        if left < 0:
            raise CodecError(f"not a list of seqs, or more than {SEQS_MAX}")
        points.append(Points(_mark(key), _mark(mark), tuple(map(_number, seqs))))
    return tuple(points)


def _refs(body: dict[str, Any]) -> tuple[Ref, ...]:
    refs: list[Ref] = []
    left = 2 * WANTS_MAX
    for value in fields.items(body, "refs", count_max=WANTS_MAX, default=[]):
        key, mark, flat = _tuple(value, 3)
        left -= len(flat) if isinstance(flat, (list, tuple)) else left + 1
        if left < 0 or len(flat) % 2:
            raise CodecError(f"not a list of places, or more than {WANTS_MAX}")
        numbers = list(map(_number, flat))
        pairs = tuple(zip(numbers[::2], numbers[1::2], strict=True))
        refs.append(Ref(_mark(key), _mark(mark), pairs))
    return tuple(refs)


def _mark(value: Any) -> bytes:
    if not isinstance(value, bytes) or len(value) != MARK_BYTES:
        raise CodecError(f"a mark has {MARK_BYTES} bytes")
    return value


def _known_list(heads: tuple[Known, ...]) -> list[list[Any]]:
    return [[*known.id, known.epoch, known.seq, known.root] for known in heads]


def _part_list(part: Delta) -> list[Any]:
    rows = [list(entry) for entry in part.entries]
    return [part.signed.body, part.signed.signature, part.since, rows, part.final]


def parse_records(body: dict[str, Any]) -> tuple[bytes, ...]:
    """Read register records of a frame body; raise CodecError."""
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


def parse_want(value: Any) -> Want:
    """Read one want; raise CodecError."""
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
