"""Taking over a delta of somebody's set: checked whole, then applied whole, or not at all.

It knows no link; bytes were parsed by ``sync_wire.py``. Rules: scope, tables (some are for hubs
to write) and signature come first, then order (a head only ever moves forward), then the root
over what the set would become; only then the storage changes. A delta that is larger than one
frame is staged, and counts for nothing until it has reached a signed head. A head of *our own*
set that is later, or of a branch that our history does not go through, means that we lost
writes (restored backup, lost disk): we take that set back, then go on in a higher epoch.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol

from mesh.proto.evidence import Proof, rewritten
from mesh.proto.hlc import milliseconds
from mesh.proto.merge import inherited, is_merged
from mesh.proto.replica import OwnSet, Replica, joined_past
from mesh.proto.sets import (
    Entry,
    Head,
    SetId,
    SignedHead,
    body_is_sound,
    key_hash,
    leaves_of,
)
from mesh.proto.storage import Stage
from mesh.proto.tables import writable
from mesh.proto.tree import Tree

STAGE_SLACK_ROWS: Final = 4096
"""Staged rows may exceed what the head says by this much: the set moves while it is pulled."""


class Roster(Protocol):
    """What the register answers about who may say and see what."""

    def may_author(self, node: str, scope: str) -> bool:
        """Tell whether an active member may write into a scope."""
        ...

    def carries(self, node: str, scope: str, author: str | None = None) -> bool:
        """Tell whether an active member keeps a copy of an author's set in a scope."""
        ...

    def active(self, node: str) -> bool:
        """Tell whether an identity is a member now."""
        ...

    def site_of(self, node: str) -> str:
        """Return the site of an identity, "" when it has none or is unknown."""
        ...

    def is_hub(self, node: str) -> bool:
        """Tell whether an identity is a hub, or was one when it ended."""
        ...

    def last_accepted(self, author: str, scope: str) -> tuple[int, int] | None:
        """Return the last (epoch, seq) that holds of an author that left or was revoked."""
        ...

    def merged_authors(self, scope: str) -> Collection[str]:
        """Return the active members that may write merged tables in a scope."""
        ...

    def paused_authors(self, scope: str) -> Collection[str]:
        """Return suspended members that may write merged tables there once they are back."""
        ...

    def bequeathed(self, scope: str) -> Mapping[str, tuple[int, int]]:
        """Return the ended authors of merged tables of a scope and what was accepted last."""
        ...

    def verify(self, author: str, body: bytes, signature: bytes) -> bool:
        """Tell whether a head was signed by its author."""
        ...


_Place = tuple[str, str]


class Outcome(StrEnum):
    """What became of a delta."""

    APPLIED = "applied"
    TAKEN_BACK = "taken back"  # our own set, from a peer
    STAGED = "staged"
    STALE = "stale"  # we hold that or more
    GAP = "gap"  # does not follow what we hold; ask again from what we hold
    SCOPE = "scope"  # not for us, or not the author's to write
    SIGNATURE = "signature"
    ROOT = "root"  # rows and head do not fit together
    ROWS = "rows"  # rows that no correct author sends
    REWIND = "rewind"  # the author's base or promise would go back
    UNTAKEN = "untaken"  # its author has lost what we hold: it must take that back first
    FORK = "fork"  # two heads for one (epoch, seq): proof of misbehaviour


HOSTILE: Final = frozenset({Outcome.SCOPE, Outcome.SIGNATURE, Outcome.ROOT, Outcome.ROWS})
"""Outcomes that a correct peer with the same register does not cause."""


@dataclass(frozen=True, slots=True)
class Delta:
    """Rows of one set with seq > ``since``; ``final``: they reach up to the head."""

    signed: SignedHead
    since: int
    entries: tuple[Entry, ...]
    final: bool

    @property
    def id(self) -> SetId:
        """The set that this is about."""
        return self.signed.head.id


def admits(roster: Roster, me: str, head: Head) -> bool:
    """Tell whether a head is one that ``me`` should hold: scope and author fit."""
    if not roster.carries(me, head.scope, head.author):
        return False
    if roster.may_author(head.author, head.scope):
        return True
    last = roster.last_accepted(head.author, head.scope)
    return last is not None and head.point <= last


def uncovered(
    roster: Roster, nodes: Iterable[str], me: str, scopes: Iterable[str], met: Collection[str]
) -> list[str]:
    """Return the scopes of our own sets of which no peer that we met could have a later copy.

    A scope that no other active member carries does not count.
    """
    others = [node for node in nodes if node != me and roster.active(node)]
    missing: list[str] = []
    for scope in scopes:
        carriers = [node for node in others if roster.carries(node, scope, me)]
        if carriers and not any(node in met for node in carriers):
            missing.append(scope)
    return missing


def take(replica: Replica, delta: Delta, roster: Roster, now_ms: int, via: str = "") -> Outcome:
    """Take a delta over in the caller's transaction; the storage changes only if it fits.

    ``via`` is the peer that sent it: an author that has lost a branch which we hold is made to
    take it back (it sees our head on the same link) before we let go of it.
    """
    head = delta.signed.head
    own = head.author == replica.author
    if not own and not admits(roster, replica.author, head):
        return Outcome.SCOPE
    if not own and not roster.may_author(*head.id):
        gone = max(replica.buried.get(head.id, (0, 0)), inherited(replica.storage, head.id))
        if head.point <= gone:
            return Outcome.STALE
    held = replica.heads.get(head.id)
    refusal = _order(held, delta.signed, own)
    if refusal is not None:
        return refusal
    if not _sound(delta) or not (own or _writable(delta, roster)):
        return Outcome.ROWS
    if not roster.verify(head.author, delta.signed.body, delta.signed.signature):
        return Outcome.SIGNATURE
    if held is not None and not own and (proof := Proof(held, delta.signed)).transferable:
        replica.add_proof(proof)
        return Outcome.FORK if held.head.point == head.point else Outcome.REWIND
    if held is not None and via == head.author and not head.covers(held.head.point):
        return Outcome.UNTAKEN
    came = _gather(replica, delta, held)
    if isinstance(came, Outcome):
        return came
    if own:
        outcome = _take_back(replica, delta.signed, came, now_ms)
    elif came.start == 0:
        outcome = _replace(replica, delta.signed, came)
    else:
        outcome = _extend(replica, delta.signed, came)
    if outcome is Outcome.ROOT:
        replica.drop_stage(head.id)
    elif outcome is Outcome.APPLIED:
        replica.observe(head.floor, now_ms)
    return outcome


def _order(held: SignedHead | None, signed: SignedHead, own: bool) -> Outcome | None:
    """Refuse what would not move the set forward."""
    if held is None:
        return None
    old, new = held.head, signed.head
    if signed.body == held.body:
        return Outcome.STALE
    if new.point < old.point and not (own and not old.covers(new.point)):
        return Outcome.STALE
    if own:
        return None
    if new.floor < old.floor and new.epoch != old.epoch:
        return Outcome.REWIND
    return None


def _sound(delta: Delta) -> bool:
    """Check rows one by one: order, bounds, bodies."""
    head = delta.signed.head
    last, most, floor = delta.since, head.seq, head.floor
    for _, _, seq, hlc, body in delta.entries:
        if not last < seq <= most or hlc > floor or not body_is_sound(body):
            return False
        last = seq
    return bool(delta.entries) or delta.final


def _writable(delta: Delta, roster: Roster) -> bool:
    """Check that the author may write the tables of its rows, retracted ones left out."""
    scope, hub = delta.signed.head.scope, roster.is_hub(delta.signed.head.author)
    tables = {entry.table for entry in delta.entries if entry.body is not None}
    return all(writable(scope, table, hub=hub) for table in tables)


@dataclass(frozen=True, slots=True)
class _Came:
    """A whole delta: what was staged of it, and its last frame."""

    start: int
    leaves: dict[bytes, bytes]
    entries: tuple[Entry, ...]
    staged: bool

    def save(self, replica: Replica, head: Head) -> None:
        """Write the rows."""
        if self.staged:
            replica.adopt_stage(head.id, head.base)
        replica.storage.save_entries(head.id, self.entries)


def _gather(replica: Replica, delta: Delta, held: SignedHead | None) -> "_Came | Outcome":
    """Join a delta with what was staged before it, or stage it."""
    head, storage = delta.signed.head, replica.storage
    stage = storage.stage(head.id)
    if stage is not None and (stage.epoch != head.epoch or delta.since < stage.start):
        replica.drop_stage(head.id)
        stage = None
    follows = held is not None and held.head.epoch == head.epoch
    if stage is not None and stage.start < delta.since <= stage.cursor:
        start = stage.start
    else:
        start = delta.since
        if stage is not None:
            replica.drop_stage(head.id)
        stage = None
    reaches = held is not None and follows and start <= held.head.seq
    if start > 0 and (not reaches or head.author == replica.author):
        return Outcome.GAP
    if delta.final:
        entries = tuple(e for e in delta.entries if e.seq > head.base)
        leaves = dict(replica.staged_leaves(head.id, head.base)) if stage else {}
        leaves.update(leaves_of(entries))
        return _Came(start, leaves, entries, stage is not None)
    count = len(delta.entries) + (stage.rows if stage else 0)
    if count > head.rows + STAGE_SLACK_ROWS:
        replica.drop_stage(head.id)
        return Outcome.ROWS
    grown = Stage(head.epoch, start, delta.entries[-1].seq, count)
    replica.save_stage(head.id, grown, delta.entries)
    return Outcome.STAGED


def _replace(replica: Replica, signed: SignedHead, came: _Came) -> Outcome:
    """Take a whole set in place of what is held."""
    head = signed.head
    tree = Tree(came.leaves.items())
    if tree.root() != head.root or tree.count != head.rows:
        return Outcome.ROOT
    held = replica.heads.get(head.id)
    contradicts = held is not None and held.head.epoch == head.epoch
    before = list(replica.storage.entries(head.id)) if contradicts else []
    replica.storage.clear(head.id)
    came.save(replica, head)
    replica.set_tree(head.id, tree)
    replica.set_head(signed)
    after = replica.storage.entries(head.id) if before else ()
    if held is not None and rewritten(held, before, after):
        replica.add_proof(Proof(held, signed))
    return Outcome.APPLIED


def _extend(replica: Replica, signed: SignedHead, came: _Came) -> Outcome:
    """Add rows to what is held and drop what ``base`` has passed."""
    head = signed.head
    old = replica.storage.upto(head.id, head.base)
    places = [key_hash(e.table, e.key) for e in old]
    gone = [(e, at) for e, at in zip(old, places, strict=True) if at not in came.leaves]
    mark = replica.mark()
    tree = replica.tree(head.id)
    replica.hang_all(tree, [*((at, None) for _, at in gone), *came.leaves.items()])
    if tree.root() != head.root or tree.count != head.rows:
        replica.undo_to(mark)
        return Outcome.ROOT
    replica.storage.delete_entries(head.id, [(e.table, e.key) for e, _ in gone])
    came.save(replica, head)
    replica.set_head(signed)
    return Outcome.APPLIED


def _take_back(replica: Replica, signed: SignedHead, came: _Came, now_ms: int) -> Outcome:
    """Adopt a later head of our own set, keep what we wrote since, begin a higher epoch."""
    assert came.start == 0
    head = signed.head
    tree = Tree(came.leaves.items())
    if tree.root() != head.root or tree.count != head.rows:
        return Outcome.ROOT
    held = replica.heads.get(head.id)
    mine = list(replica.storage.entries(head.id)) if held else []
    replica.storage.clear(head.id)
    came.save(replica, head)
    rows = {(e.table, e.key): e for e in replica.storage.entries(head.id)}
    kept: list[Entry] = []
    if held is not None:
        shared = _shared_seq(head, held.head, mine, rows)
        kept = _kept(replica, head, held.head, [e for e in mine if e.seq > shared], rows)
        live = {(e.table, e.key) for e in mine if e.body is not None}
        left = [at for at, e in rows.items() if e.seq <= shared and at not in live]
        replica.storage.delete_entries(head.id, left)
        tree.update((key_hash(*at), None) for at in left)
        for at in left:
            del rows[at]
    replica.set_tree(head.id, tree)
    replica.hlc.last = max(replica.hlc.last, head.floor)
    replica.hlc.floor(now_ms)
    last_epoch = max(head.epoch, held.head.epoch if held else 0)
    past = [*head.past, head.point, *((*held.head.past, held.head.point) if held else ())]
    own = OwnSet(
        epoch=max(last_epoch + 1, milliseconds(replica.hlc.last)),
        seq=max(head.seq, held.head.seq if held else 0),
        base=head.base,
        live=sum(entry.body is not None for entry in rows.values()),
        stored=len(rows),
        dirty=True,
        past=joined_past(past),
    )
    replica.replace_own(head.scope, own)
    for entry in kept:
        replica.rewrite(head.scope, entry)
    return Outcome.TAKEN_BACK


def _shared_seq(head: Head, held: Head, mine: list[Entry], rows: dict[_Place, Entry]) -> int:
    """Return a seq up to which both branches have one history; where they part, if known.

    Whatever stands at the same seq in both was there before: so what one of them lacks below
    it was let go of there. Two processes of one identity may have signed other rows under the
    very same points: where two rows have one seq, the histories have parted before.
    """
    same = (e.seq for e in mine if rows.get((e.table, e.key)) == e)
    shared = max(head.fork(held) or 0, max(same, default=0))
    theirs = {e.seq: e for e in rows.values()}
    other = (e.seq for e in mine if theirs.get(e.seq, e) != e)
    return min(shared, min(other, default=shared + 1) - 1)


def _kept(
    replica: Replica, head: Head, held: Head, mine: list[Entry], rows: dict[_Place, Entry]
) -> list[Entry]:
    """Return our rows that the branch which we take back does not know."""
    beside = any(map(head.shares_epoch, (held.epoch, *(epoch for epoch, _ in held.past))))
    kept: list[Entry] = []
    for ours in mine:
        theirs = rows.get((ours.table, ours.key))
        new = ours.body is not None and ours.hlc > replica.began
        if (
            _ours_is_newer(ours, theirs, head.floor)
            or (new and _says_nothing(theirs))
            or (beside and _written_beside(ours, theirs, head.base))
        ):
            kept.append(ours)
    return kept


def _says_nothing(theirs: Entry | None) -> bool:
    """Tell whether there is no row, or one that was merely overruled by somebody's."""
    return theirs is None or (theirs.body is None and is_merged(theirs.table))


def _written_beside(ours: Entry, theirs: Entry | None, base: int) -> bool:
    """Tell whether another process with our keys never saw a row of ours.

    In one history a row above the base is there, or a later one of its key is.
    """
    return ours.body is not None and theirs is None and ours.seq > base


def _ours_is_newer(ours: Entry, theirs: Entry | None, floor: int) -> bool:
    return ours.hlc > (floor if theirs is None else theirs.hlc)
