"""Letting go of rows that nobody needs: run once in a while by every author over its own sets.

It knows no timer. Rules: only own rows are retracted; sets of others leave when we carry their
scope no longer, or when their author is dead and every row that it showed is overruled. A dead
author's shown rows are written anew by the heir (the rendezvous owner), who overrules them.
"""

from collections.abc import Callable
from typing import Final

from mesh.proto.intake import Roster, admits
from mesh.proto.merge import is_merged, promise_owed, retractable, winner
from mesh.proto.replica import Replica
from mesh.proto.sets import SetId

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
        for set_id in list(replica.heads):
            if set_id.author != replica.author:
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
            for entry in retractable(replica.storage, set_id, authors, replica.heads):
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

    def _rest(self, scope: str, now_ms: int) -> None:
        own = self._replica.own(scope)
        if self._seen.get(scope) == own.seq:
            self._replica.rest(scope, now_ms)
        self._seen[scope] = own.seq

    def _bequest(self, set_id: SetId, roster: Roster, heir: Heir, now_ms: int) -> int:
        """Deal with a set that should not stay: out of our scope, or of a dead author."""
        replica = self._replica
        head = replica.heads[set_id].head
        if not roster.carries(replica.author, set_id.scope, set_id.author):
            replica.forget(set_id)
            return head.rows
        if roster.may_author(set_id.author, set_id.scope):
            return 0
        if not admits(roster, replica.author, head):
            last = roster.last_accepted(*set_id)
            if last is None:
                return 0  # not a member yet, or suspended: only kept
            replica.forget(set_id)  # past what was accepted: others have that
            return head.rows
        shown = 0
        for entry in list(replica.storage.entries(set_id)):
            if entry.body is None or not is_merged(entry.table):
                continue
            best = winner(replica.storage.keyed(set_id.scope, entry.table, entry.key))
            if best is None or best[0] != set_id.author:
                continue
            shown += 1
            if heir(set_id.author, set_id.scope):  # a marker too: it goes by the heir's rules
                replica.put(set_id.scope, entry.table, entry.key, entry.body, now_ms, entry.hlc)
        if shown:
            return 0
        replica.bury(set_id)
        return head.rows
