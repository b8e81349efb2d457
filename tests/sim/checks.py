"""What must hold in every run, and the record of what members wrote and were told is durable.

Invariants (numbers of notes on the model): 1 head equality, 2 prefix, 3 single author, 4 no
resurrection, 5 no lost write, 6 no equivocation, 8 monotone heads, 9 bound of stored rows,
13 scope. (7, independence of order, is a test of its own.)
"""

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mesh.proto.merge import is_merged
from mesh.proto.sets import SLACK_ROWS, SetId, SignedHead
from mesh.store_tx import authored_rows, shown_rows

if TYPE_CHECKING:
    from tests.sim.member import SimMember
    from tests.sim.world import World

Place = tuple[str, str, str, str]  # scope, table, author (or "" when merged), key


@dataclass
class Truth:
    """What a place should show in the end."""

    rank: tuple[int, str]
    value: Any  # None: deleted
    author: str
    at: float


class Checks:
    """Watches one world."""

    def __init__(self, world: "World") -> None:
        self.world = world
        self.truth: dict[Place, Truth] = {}
        self.tainted: dict[Place, None] = {}
        self.counters: Counter[str] = Counter()
        self._contents: dict[tuple[SetId, int, int], bytes] = {}
        self._signed: dict[tuple[SetId, int, int], bytes] = {}
        self._points: dict[tuple[str, SetId], tuple[int, int]] = {}
        self._backups: dict[str, float] = {}

    # -- what was written ------------------------------------------------------------------

    def wrote(
        self, author: str, scope: str, table: str, key: str, value: Any, hlc: int
    ) -> None:
        """A write was acknowledged as durable."""
        place = (scope, table, "" if is_merged(table) else author, key)
        old = self.truth.get(place)
        if old is None or (hlc, author) > old.rank:
            self.truth[place] = Truth((hlc, author), value, author, self.world.now)
            self.tainted.pop(place, None)
        self.counters["writes"] += 1

    def on_backup(self, member: "SimMember") -> None:
        """A backup of a member's disk was taken."""
        self._backups[member.author] = self.world.now

    def on_rollback(self, member: "SimMember") -> None:
        """A member goes back to its backup: what it wrote since may be anywhere or nowhere."""
        since = self._backups[member.author]
        for place, truth in self.truth.items():
            if truth.author == member.author and truth.at >= since:
                self.tainted[place] = None
        for key in [key for key in self._points if key[0] == member.author]:
            del self._points[key]

    # -- while it runs ---------------------------------------------------------------------

    def on_commit(
        self, member: "SimMember", changes: Mapping[SetId, SignedHead | None]
    ) -> None:
        """Check every set that a commit changed."""
        expect = self.world.expect
        for set_id, signed in changes.items():
            if signed is None:
                continue
            head = signed.head
            who = f"{member.author} holds {set_id} {head.point}"
            expect(
                set_id.author == member.author
                or self.world.register.carries(member.author, set_id.scope, set_id.author),
                f"{who}, which is not of its scopes",
            )
            name = (set_id, head.epoch, head.seq)
            expect(
                self._signed.setdefault(name, signed.body) == signed.body,
                f"{who}: two heads were signed for one point",
            )
            before = self._points.get((member.author, set_id), (0, 0))
            expect(head.point > before, f"{who}, but held {before} before")
            self._points[member.author, set_id] = head.point
            self._content(member, signed, who)

    def _content(self, member: "SimMember", signed: SignedHead, who: str) -> None:
        head = signed.head
        entries = list(member.disk.entries(head.id))
        for entry in entries:
            self.world.expect(
                head.base < entry.seq <= head.seq,
                f"{who} with a row of seq {entry.seq} (base {head.base})",
            )
        digest = hashlib.blake2b(repr(sorted(entries)).encode(), digest_size=16).digest()
        name = (head.id, head.epoch, head.seq)
        self.world.expect(
            self._contents.setdefault(name, digest) == digest, f"{who} with other rows"
        )
        live = sum(entry.body is not None for entry in entries)
        self.world.expect(
            len(entries) <= 2 * live + SLACK_ROWS, f"{who}: {len(entries)} rows, {live} live"
        )

    # -- at rest ---------------------------------------------------------------------------

    def at_rest(self) -> dict[str, Any]:
        """Compare every member with the truth; return figures."""
        members = self.world.members
        for name, member in members.items():
            for set_id, signed in member.heads.items():
                author = members[set_id.author]
                own = author.heads.get(set_id)
                self.world.expect(
                    own is not None and own.body == signed.body,
                    f"{name} rests with {set_id} {signed.head.point}, its author has"
                    f" {own and own.head.point}",
                )
            for set_id in (s for m in members.values() for s in m.heads):
                if self.world.register.carries(name, set_id.scope, set_id.author):
                    self.world.expect(set_id in member.heads, f"{name} never got {set_id}")
        lost = resurrected = 0
        for place, truth in self.truth.items():
            if place in self.tainted:
                self.counters["tainted"] += 1
                continue
            for member in members.values():
                if not self.world.register.carries(member.author, place[0], truth.author):
                    continue
                found = self._shown(member, place)
                if found == truth.value:
                    continue
                lost += truth.value is not None
                resurrected += truth.value is None
        stored = sum(
            signed.head.rows
            for name, member in members.items()
            for set_id, signed in member.heads.items()
            if set_id.author == name
        )
        live = sum(
            self._shows_anywhere(place) if place in self.tainted else truth.value is not None
            for place, truth in self.truth.items()
        )
        return {
            "lost": lost,
            "resurrected": resurrected,
            "stored": stored,
            "live": live,
        }

    def _shows_anywhere(self, place: Place) -> bool:
        """Tell whether a place shows a row at anybody: a restore leaves that open."""
        return any(self._shown(m, place) is not None for m in self.world.members.values())

    def _shown(self, member: "SimMember", place: Place) -> Any:
        scope, table, author, key = place
        if author == "":
            rows = [row for row in shown_rows(member.disk, scope, table) if row.key == key]
        else:
            rows = authored_rows(member.disk, scope, table, key)
            rows = [row for row in rows if row.author == author]
        return rows[0].body["v"] if rows else None


def entry_stamp(member: "SimMember", scope: str, table: str, key: str) -> int | None:
    """Return the stamp of a member's own row, marker or retraction."""
    entry = member.disk.entry(SetId(member.author, scope), table, key)
    return None if entry is None else entry.hlc
