"""What must hold in every run, and the record of what members wrote and were told is durable.

Invariants (numbers of notes on the model): 1 head equality, 2 prefix, 3 single author, 4 no
resurrection, 5 no lost write, 6 no equivocation (and a clone is noticed), 8 monotone heads and
promises, 9 bound of stored rows, 13 scope, 15 a liar costs a link at most a few deltas. (7,
independence of order, and 14, unknown fields, are tests of their own.)
"""

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from mesh.proto.merge import is_merged
from mesh.proto.sets import SLACK_ROWS, SetId, SignedHead
from mesh.proto.sync import SyncSession
from mesh.store_tx import authored_rows, shown_rows

if TYPE_CHECKING:
    from tests.sim.member import SimMember
    from tests.sim.world import World

STRIKES: Final = 8
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
        self._points: dict[tuple[str, bool, SetId], tuple[int, int, int]] = {}
        self._backups: dict[str, float] = {}
        self.cloned: dict[str, set[bool]] = {}
        """Identities that ran twice, and which of the two has written meanwhile."""
        self.twins_wrote: dict[Place, None] = {}
        """Where an identity wrote while it ran twice: one of the two may bring that up at any
        time, though the other has promised that nothing so old comes any more."""
        self.twice: dict[str, None] = {}
        """Those that do so now."""
        self.dead: dict[str, None] = {}
        self.liar = ""

    # -- what was written ------------------------------------------------------------------

    def wrote(
        self, author: str, scope: str, table: str, key: str, value: Any, hlc: int
    ) -> None:
        """A write was acknowledged as durable."""
        self.counters["writes"] += 1
        place = (scope, table, "" if is_merged(table) else author, key)
        old = self.truth.get(place)
        if old is None or (hlc, author) > old.rank:
            self.truth[place] = Truth((hlc, author), value, author, self.world.now)
            if place not in self.twins_wrote:
                self.tainted.pop(place, None)
        if author in self.twice:
            self.twins_wrote[place] = None
        if author in self.twice or author == self.liar:
            self.tainted[place] = None

    def on_backup(self, member: "SimMember") -> None:
        """A backup of a member's disk was taken."""
        self._backups[member.author] = self.world.now

    def on_rollback(self, member: "SimMember") -> None:
        """A member goes back to its backup: what it wrote since may be anywhere or nowhere."""
        since = self._backups[member.author]
        for place, truth in self.truth.items():
            if truth.author == member.author and truth.at >= since:
                self.tainted[place] = None
        for key in [key for key in self._points if key[:2] == (member.author, member.clone)]:
            del self._points[key]

    def on_twin(self, name: str) -> None:
        """A second process begins to write as a member: its writes may be anywhere."""
        self.cloned[name] = set()
        self.twice[name] = None

    def on_death(self, name: str, hub: "SimMember") -> None:
        """A member has ended: what the hub had of it holds, by the pen of its heir."""
        for place, truth in list(self.truth.items()):
            if truth.author != name:
                continue
            scope, table, author, key = place
            if author == name:
                del self.truth[place]
                continue
            entry = hub.disk.entry(SetId(name, scope), table, key)
            if entry is None or entry.hlc != truth.rank[0]:
                self.tainted[place] = None

    def on_strikes(self, member: "SimMember", peer: str, session: SyncSession) -> None:
        """A peer that lies costs a bounded number of deltas, then its link."""
        strikes = session.counters["strikes"]
        self.world.expect(
            strikes < STRIKES or session.dropped,
            f"{member.author} still listens to {peer} after {strikes} hostile deltas",
        )

    # -- while it runs ---------------------------------------------------------------------

    def on_commit(
        self, member: "SimMember", changes: Mapping[SetId, SignedHead | None]
    ) -> None:
        """Check every set that a commit changed."""
        expect = self.world.expect
        for set_id, signed in changes.items():
            if signed is None:  # the set was let go of as a whole
                self._points.pop((member.author, member.clone, set_id), None)
                continue
            head = signed.head
            who = f"{member.author} holds {set_id} {head.point}"
            expect(
                set_id.author == member.author
                or self.world.register.carries(member.author, set_id.scope, set_id.author),
                f"{who}, which is not of its scopes",
            )
            self._proved(member, signed, who)
            before = self._points.get((member.author, member.clone, set_id), (0, 0, 0))
            expect(head.point > before[:2], f"{who}, but held {before} before")
            expect(head.floor >= before[2], f"{who}: its author's promise goes back")
            self._points[member.author, member.clone, set_id] = (*head.point, head.floor)
            self._content(member, signed, who)

    def _proved(self, member: "SimMember", signed: SignedHead, who: str) -> None:
        """A head was signed once, by its author, and nobody else has one."""
        head = signed.head
        if head.author == self.liar:
            return
        name = (head.id, head.epoch, head.seq)
        if head.author in self.cloned:
            if head.author == member.author:
                self.cloned[head.author].add(member.clone)
            return
        if head.author == member.author:
            known = self._signed.setdefault(name, signed.body)
            self.world.expect(
                known == signed.body, f"{who}: two heads were signed for one point"
            )
        else:
            self.world.expect(
                self._signed.get(name) == signed.body, f"{who}, which its author never signed"
            )

    def _content(self, member: "SimMember", signed: SignedHead, who: str) -> None:
        head = signed.head
        entries = list(member.disk.entries(head.id))
        for entry in entries:
            self.world.expect(
                head.base < entry.seq <= head.seq,
                f"{who} with a row of seq {entry.seq} (base {head.base})",
            )
        live = sum(entry.body is not None for entry in entries)
        if head.author == member.author:
            self.world.expect(
                len(entries) <= 2 * live + SLACK_ROWS,
                f"{who}: {len(entries)} rows, {live} live",
            )
        digest = hashlib.blake2b(repr(sorted(entries)).encode(), digest_size=16).digest()
        name = (head.id, head.epoch, head.seq)
        if head.author in self.cloned or head.author == self.liar:
            return
        self.world.expect(
            self._contents.setdefault(name, digest) == digest, f"{who} with other rows"
        )

    # -- at rest ---------------------------------------------------------------------------

    def at_rest(self) -> dict[str, Any]:
        """Compare every member with the truth; return figures."""
        world = self.world
        members = {name: m for name, m in world.members.items() if name not in self.dead}
        held = sorted({s for m in members.values() for s in m.heads if s.author != self.liar})
        for name, member in members.items():
            for set_id in held:
                if not world.register.carries(name, set_id.scope, set_id.author):
                    continue
                world.expect(
                    set_id.author in members, f"{name} rests with {set_id} of a dead author"
                )
                own = members[set_id.author].heads.get(set_id)
                signed = member.heads.get(set_id)
                world.expect(
                    own is not None and signed is not None and own.body == signed.body,
                    f"{name} rests with {set_id} {signed and signed.head.point}, its author has"
                    f" {own and own.head.point}",
                )
        for name, sides in self.cloned.items():
            noticed = [m.noticed_s for m in members.values() if m.noticed_s is not None]
            world.expect(
                bool(noticed) or len(sides) < 2, f"nobody noticed that {name} ran twice"
            )
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
