"""Answers to a pull: what of our sets a peer gets, within one frame.

It knows no link; the reader stands in one read transaction of the caller, so that every part
fits its signed head. Rule: nothing of a set leaves that the asking peer does not carry.
"""

import hashlib
from collections.abc import Iterable, Sequence
from typing import Final

from mesh.proto.delta_pack import ROWS_MAX
from mesh.proto.intake import Delta, Roster
from mesh.proto.sets import Entry, SetId, SignedHead
from mesh.proto.storage import Reader
from mesh.proto.sync_wire import (
    DELTA_BYTES,
    MARK_BYTES,
    RECORDS_BYTES,
    RECORDS_MAX,
    Want,
)

ROW_OVERHEAD_BYTES: Final = 40
HEAD_OVERHEAD_BYTES: Final = 320


def visible_to(roster: Roster, peer: str, set_id: SetId) -> bool:
    """Tell whether a peer may be shown a set."""
    return roster.active(peer) and roster.carries(peer, set_id.scope, set_id.author)


def serve(reader: Reader, wants: Sequence[Want], roster: Roster, peer: str) -> list[Delta]:
    """Return as many deltas as one frame takes; the last one may be cut (not final)."""
    parts: list[Delta] = []
    bytes_left, rows_left = DELTA_BYTES, ROWS_MAX
    for want in wants:
        signed = reader.head(want.id)
        if signed is None or not visible_to(roster, peer, want.id):
            continue
        if signed.head.point <= (want.epoch, want.since):
            continue
        part = _delta(reader, want, signed, bytes_left, rows_left)
        if part is None:
            break
        parts.append(part)
        bytes_left -= HEAD_OVERHEAD_BYTES + sum(map(size_of, part.entries))
        rows_left -= len(part.entries)
        if not part.final:
            break
    return parts


def _delta(
    reader: Reader, want: Want, signed: SignedHead, bytes_left: int, rows_left: int
) -> Delta | None:
    """Return one set's delta within a budget; None when not even one row fits."""
    same = want.epoch == signed.head.epoch
    since = want.since if same else 0
    taken: list[Entry] = []
    for entry in reader.entries_since(want.id, since):
        bytes_left -= size_of(entry)
        if len(taken) >= rows_left or (bytes_left < 0 and taken):
            return Delta(signed, since, tuple(taken), final=False) if taken else None
        if bytes_left < 0 and rows_left < ROWS_MAX:
            return None  # others went before: this row opens the next frame
        taken.append(entry)
    return Delta(signed, since, tuple(taken), final=True)


def size_of(entry: Entry) -> int:
    """Return about how many bytes a row takes in a frame."""
    body = entry.body
    return ROW_OVERHEAD_BYTES + len(entry.key) + (len(body) if body else 0)


def record_mark(record: bytes) -> bytes:
    """Return the 8 bytes that stand for a register record in a request."""
    return hashlib.blake2b(record, digest_size=MARK_BYTES).digest()


def records_missing(records: Iterable[bytes], have: bytes) -> tuple[tuple[bytes, ...], bool]:
    """Return the records that a peer does not have, as far as one frame goes, and if more."""
    known = {have[at : at + MARK_BYTES] for at in range(0, len(have), MARK_BYTES)}
    found: list[bytes] = []
    bytes_left = RECORDS_BYTES
    for record in records:
        if record_mark(record) in known:
            continue
        bytes_left -= len(record)
        if found and (bytes_left < 0 or len(found) >= RECORDS_MAX):
            return tuple(found), True
        found.append(record)
    return tuple(found), False
