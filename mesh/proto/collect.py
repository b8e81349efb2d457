"""Letting go of rows that nobody needs: run once in a while by every author over its own sets.

It knows no timer. Rules: only own rows are retracted; sets of others leave when we carry their
scope no longer, or when their author is dead and its heir (the rendezvous owner) has taken them
over. The heir writes what a dead set shows as its own, stamps and all: what overrules the row
overrules the copy. In the same group it says how far it has read (``INHERITED``). Until then
everybody keeps the set, and no marker of the scope goes: the heir may not have seen it.
"""

from collections.abc import Callable
from typing import Final

from mesh.proto.codec import pack
from mesh.proto.intake import Roster, admits
from mesh.proto.merge import inherited, is_merged, promise_owed, retractable, winner
from mesh.proto.replica import Replica
from mesh.proto.sets import Entry, SetId
from mesh.proto.tables import INHERITED

RETRACTED_MAX: Final = 2000
"""Rows retracted in one round; the rest goes in the next one."""

Heir = Callable[[str, str], bool]
"""(dead author, scope) -> whether we write its rows anew."""


class Collector:
    """Remembers between rounds which own sets were quiet."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica
        self._seen: dict[str, int] = {}

    def round(self, roster: Roster, heir: Heir, now_ms: int) -> int:
        """Do one round inside the caller's transaction; return how many rows were let go."""
        replica = self._replica
        gone = 0
        replica.hlc.floor(now_ms)
        others = [set_id for set_id in replica.heads if set_id.author != replica.author]
        left = [set_id for set_id in others if not roster.may_author(*set_id)]
        for set_id in others:
            if not roster.carries(replica.author, set_id.scope, set_id.author):
                gone += self._forget(set_id)
        for set_id in left:  # what is taken over goes first: its rows stand in two sets
            gone += self._bury(set_id, roster)
        for set_id in left:
            gone += self._bequest(set_id, roster, heir, now_ms)
        for scope in sorted({set_id.scope for set_id in replica.heads}):
            if roster.may_author(replica.author, scope):
                gone += self._own(scope, roster, now_ms)
        return gone

    def _own(self, scope: str, roster: Roster, now_ms: int) -> int:
        replica = self._replica
        set_id = SetId(replica.author, scope)
        authors = roster.merged_authors(scope)
        gone = 0
        if set_id in replica.heads:
            settled = self._settled(scope, roster)
            waited = [*authors, *roster.paused_authors(scope)]
            for entry in retractable(replica.storage, set_id, waited, replica.heads, settled):
                if gone == RETRACTED_MAX:
                    break
                gone += replica.put(scope, entry.table, entry.key, None, now_ms)
        if replica.author in authors and promise_owed(
            replica.storage, scope, replica.author, replica.heads, replica.hlc.last
        ):
            replica.touch(scope, now_ms)
        if set_id in replica.heads:
            self._rest(scope, now_ms)
        return gone

    def _settled(self, scope: str, roster: Roster) -> bool:
        """Tell whether all that dead authors of a scope have left was taken over."""
        storage = self._replica.storage
        return all(
            inherited(storage, SetId(author, scope)) >= last
            for author, last in roster.bequeathed(scope).items()
        )

    def _rest(self, scope: str, now_ms: int) -> None:
        own = self._replica.own(scope)
        if self._seen.get(scope) == own.seq:
            self._replica.rest(scope, now_ms)
        self._seen[scope] = own.seq

    def _forget(self, set_id: SetId) -> int:
        rows = self._replica.heads[set_id].head.rows
        self._replica.forget(set_id)
        return rows

    def _bury(self, set_id: SetId, roster: Roster) -> int:
        """Let go of a set that should not stay and that nobody has to take over any more."""
        replica = self._replica
        signed = replica.heads.get(set_id)
        last = roster.last_accepted(*set_id)
        if signed is None or last is None:
            return 0  # not a member yet, or suspended: only kept
        if not admits(roster, replica.author, signed.head):
            return self._forget(set_id)  # past what was accepted: others have that
        taken = inherited(replica.storage, set_id) >= signed.head.point
        if not taken and set_id.author in roster.bequeathed(set_id.scope):
            return 0
        replica.bury(set_id)
        return signed.head.rows

    def _bequest(self, set_id: SetId, roster: Roster, heir: Heir, now_ms: int) -> int:
        """Take a dead author's set over if that is ours to do."""
        replica = self._replica
        signed = replica.heads.get(set_id)
        if signed is None or roster.last_accepted(*set_id) is None or not heir(*set_id):
            return 0
        author, scope = set_id
        for entry in list(replica.storage.entries(set_id)):
            if entry.body is None or not is_merged(entry.table):
                continue
            best = winner(replica.storage.keyed(scope, entry.table, entry.key))
            if best is not None and best[0] == author:  # a marker too: it goes by our rules
                self._copy(scope, entry, now_ms)
        epoch, seq = signed.head.point
        body = pack({"author": author, "epoch": epoch, "seq": seq})
        replica.put(scope, INHERITED, f"{author}/{epoch}/{seq}", body, now_ms)
        replica.bury(set_id)
        return signed.head.rows

    def _copy(self, scope: str, entry: Entry, now_ms: int) -> None:
        replica = self._replica
        if entry.hlc <= replica.hlc.last:
            replica.rewrite(scope, entry)
        else:  # of a clock that nobody follows: no head of ours could promise it
            replica.put(scope, entry.table, entry.key, entry.body, now_ms, entry.hlc)
