"""Messages of the tree broadcast: values, and their form inside ``broadcast`` frames.

It knows no tree. A frame body is what the link decoded. Rule: ``parse`` returns a whole valid
message or raises CodecError, for any value whatever; every list has a limit.
"""

from dataclasses import dataclass
from typing import Any, Final

from mesh.errors import CodecError
from mesh.proto import fields
from mesh.proto.delta_pack import pack_parts, unpack_parts
from mesh.proto.intake import Delta
from mesh.proto.sync_wire import (
    WANTS_MAX,
    Known,
    Want,
    parse_records,
    parse_want,
)
from mesh.proto.tree import EMPTY

PUSHED_BYTES: Final = 16 * 1024
"""Rows of one set that are pushed, about; more is told of, and pulled."""
PUSH_BYTES_MAX: Final = 512 * 1024
"""Of one frame's deltas, packed."""
TOLD_MAX: Final = 256
"""Sets in one HAVE."""


@dataclass(frozen=True, slots=True)
class Here:
    """The first frame: the sender takes part. ``tree``: it wants this link in the tree."""

    tree: bool


@dataclass(frozen=True, slots=True)
class Push:
    """New rows, each set with the head that they lead to."""

    parts: tuple[Delta, ...]


@dataclass(frozen=True, slots=True)
class Have:
    """The sender holds these; ``pull``: it will not push them, so pull."""

    heads: tuple[Known, ...]
    pull: bool


@dataclass(frozen=True, slots=True)
class Graft:
    """Push these to me (rows past ``since``); ``keep``: and whatever comes from now on."""

    wants: tuple[Want, ...]
    keep: bool


@dataclass(frozen=True, slots=True)
class Prune:
    """What you push I have already: tell me only."""


@dataclass(frozen=True, slots=True)
class News:
    """Register records that have changed something at the sender."""

    records: tuple[bytes, ...]


Message = Here | Push | Have | Graft | Prune | News


def body_of(message: Message) -> dict[str, Any]:
    """Return the frame body of a message."""
    match message:
        case Here(tree):
            return {"t": "here", "tree": tree}
        case Push(parts):
            return {"t": "push", "z": pack_parts(parts)}
        case Have(heads, pull):
            listed = [[*known.id, known.epoch, known.seq] for known in heads]
            return {"t": "have", "heads": listed, "pull": pull}
        case Graft(wants, keep):
            listed = [[*want.id, want.epoch, want.since] for want in wants]
            return {"t": "graft", "wants": listed, "keep": keep}
        case Prune():
            return {"t": "prune"}
        case News(records):
            return {"t": "news", "records": list(records)}


def parse(body: Any) -> Message:
    """Read a frame body; raise CodecError for anything that is not a message."""
    if not isinstance(body, dict):
        raise CodecError("not a map")
    match body.get("t"):
        case "here":
            return Here(fields.flag(body, "tree"))
        case "push":
            return Push(unpack_parts(fields.raw(body, "z", bytes_max=PUSH_BYTES_MAX)))
        case "have":
            heads = fields.items(body, "heads", count_max=TOLD_MAX)
            return Have(tuple(_known(value) for value in heads), fields.flag(body, "pull"))
        case "graft":
            wants = fields.items(body, "wants", count_max=WANTS_MAX)
            return Graft(tuple(parse_want(value) for value in wants), fields.flag(body, "keep"))
        case "prune":
            return Prune()
        case "news":
            return News(parse_records(body))
        case _:
            raise CodecError("unknown kind")


def _known(value: Any) -> Known:
    told = parse_want(value)
    return Known(told.id, told.epoch, told.since, EMPTY)
