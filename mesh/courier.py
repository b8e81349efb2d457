"""State carried by hand between members that have no network: given out and taken in pieces.

The shell over ``mesh/proto/courier.py``: it reads and writes store and register, and knows no
file. Rules: the register goes first; a piece says where the next one begins, so nothing is kept
between two calls; what comes in is checked like what a peer sends, own sets and scopes too;
what hubs keep among themselves (accounts, tokens) is never given out.
"""

from collections import Counter
from dataclasses import dataclass
from typing import Final

from mesh.errors import CodecError, Refused
from mesh.proto.codec import pack, unpack
from mesh.proto.courier import make_piece, open_piece
from mesh.proto.intake import Delta, Outcome
from mesh.proto.serve import records_missing, serve
from mesh.proto.sets import SetId
from mesh.proto.sync_wire import Deltas, Records, Want
from mesh.proto.tables import FLEET, HUBS, site_scope
from mesh.register_store import RegisterStore
from mesh.roster import OpenRoster, RegisterRoster
from mesh.store import MeshStore

SETS_MAX: Final = 256
"""Sets that are looked at for one piece."""
PLACE_CHARS_MAX: Final = 600
WELCOME: Final = frozenset({Outcome.APPLIED, Outcome.TAKEN_BACK, Outcome.STAGED})
KNOWN: Final = frozenset({Outcome.STALE})


@dataclass(frozen=True, slots=True)
class Given:
    """A piece, and the place of the next one (None: that was the last)."""

    piece: bytes
    next: str | None
    done: int
    of: int  # sets


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of a piece."""

    records: int  # of the register that were new
    sets: int  # whose rows were new
    known: int
    refused: dict[str, int]  # sets, by reason


class Courier:
    """Gives out and takes in the state of one member."""

    def __init__(self, store: MeshStore, register: RegisterStore) -> None:
        self._store = store
        self._register = register

    async def give(self, site: str | None, place: str | None) -> Given:
        """Return the piece at a place (None: the first); ``site``: only what its nodes carry.

        Raises Refused for a site or place that is none.
        """
        wanted = self._sets(site)
        if place is None or place.startswith("r"):
            return self._give_records(place, wanted)
        start, want = _read_place(place, wanted)
        batch = wanted[start : start + SETS_MAX]
        wants = [Want(one, 0, 0) for one in batch]
        if want is not None:
            wants[0] = want
        roster = OpenRoster(self._register.register, self._store.author)
        parts = await self._store.serve(
            lambda reader: serve(reader, wants, roster, self._store.author)
        )
        piece = make_piece(Deltas(0, tuple(parts)))
        if not parts:
            return self._given(piece, start + len(batch), wanted)
        last = parts[-1]
        if not last.final:
            at = wanted.index(last.id)
            return Given(piece, _place_in(last), at, len(wanted))
        return self._given(piece, wanted.index(last.id) + 1, wanted)

    async def take(self, piece: bytes) -> Taken:
        """Take a piece over, durably. Raises Refused when it is none, StoreFull."""
        try:
            message = open_piece(piece)
        except CodecError as exc:
            raise Refused(f"this is no piece of a state: {exc}") from exc
        if isinstance(message, Records):
            return Taken(self._register.merge_all(message.records), 0, 0, {})
        roster = RegisterRoster(self._register.register, self._store.author)
        outcomes = await self._store.take(message.parts, roster, "")
        counted = Counter(outcomes)
        refused = {str(o): n for o, n in counted.items() if o not in WELCOME | KNOWN}
        welcome = sum(n for o, n in counted.items() if o in WELCOME and o != Outcome.STAGED)
        return Taken(0, welcome, sum(counted[o] for o in KNOWN), refused)

    def _sets(self, site: str | None) -> list[SetId]:
        """Return the sets that are given out, in their order."""
        ids = sorted(self._store.heads, key=lambda one: (one.scope, one.author))
        if site is None:
            return [one for one in ids if one.scope != HUBS]
        members = self._register.register.members()
        scopes = {FLEET, site_scope(site)}
        scopes |= {f"pair:{member.node_id}" for member in members if member.site == site}
        if not any(one.scope == site_scope(site) for one in ids):
            raise Refused(f"nothing of a site {site!r} is held here")
        return [one for one in ids if one.scope in scopes]

    def _give_records(self, place: str | None, wanted: list[SetId]) -> Given:
        """Return register records from the place on; they come in the order of merging."""
        records = self._register.register.records()
        try:
            start = int(place[1:]) if place else 0
        except ValueError:
            raise Refused("this is no place in a state") from None
        given, more = records_missing(records[max(0, start) :], b"")
        after = start + len(given)
        piece = make_piece(Records(0, given, more))
        if more:
            return Given(piece, f"r{after}", 0, len(wanted))
        return self._given(piece, 0, wanted)

    def _given(self, piece: bytes, at: int, wanted: list[SetId]) -> Given:
        following = wanted[at] if at < len(wanted) else None
        place = None if following is None else _place(Want(following, 0, 0))
        return Given(piece, place, min(at, len(wanted)), len(wanted))


def _place(want: Want) -> str:
    return "s" + pack([*want.id, want.epoch, want.since]).hex()


def _place_in(part: Delta) -> str:
    return _place(Want(part.id, part.signed.head.epoch, part.entries[-1].seq))


def _read_place(place: str, wanted: list[SetId]) -> tuple[int, Want | None]:
    """Return index and want of a place; a set that is gone meanwhile gives way to the next."""
    try:
        if not place.startswith("s") or len(place) > PLACE_CHARS_MAX:
            raise CodecError("no place")
        match unpack(bytes.fromhex(place[1:]), PLACE_CHARS_MAX):
            case [str(author), str(scope), int(epoch), int(since)]:
                pass
            case _:
                raise CodecError("no place")
    except (CodecError, ValueError):
        raise Refused("this is no place in a state") from None
    for index, one in enumerate(wanted):
        if (one.scope, one.author) == (scope, author):
            return index, Want(one, epoch, since)
        if (one.scope, one.author) > (scope, author):
            return index, None
    return len(wanted), None
