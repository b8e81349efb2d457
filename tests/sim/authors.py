"""Sets of many authors, each written once and shared by all simulated members.

It knows no network. Rule: every outcome is that of the real ``take`` over the real content; it
is computed once for what a member held and what it was sent, and remembered, since it depends
on nothing else (so a delta's signature, rows and root are checked once, not once a member).
"""

from collections import Counter
from collections.abc import Callable

from mesh.proto.codec import pack
from mesh.proto.hlc import Hlc
from mesh.proto.intake import Delta, Outcome, take
from mesh.proto.replica import Replica
from mesh.proto.serve import serve
from mesh.proto.sets import SetId, SignedHead
from mesh.proto.storage import MemoryStorage
from mesh.proto.sync_wire import Want
from mesh.proto.tables import FLEET, NODE
from tests.support.members import PlainRoster, plain_sign

EPOCH_MS = 1_700_000_000_000
SCRATCH = "scratch"
"""The member in whose name outcomes are computed; it must be one, of any site."""


class Authors:
    """The fleet rows of every author, one row an author as a node's own row is."""

    def __init__(self, roster: PlainRoster, now: Callable[[], float]) -> None:
        self.counters: Counter[str] = Counter()
        self.roster = roster
        self._now = now
        self._replicas: dict[str, Replica] = {}
        self._whole: dict[bytes, Delta] = {}
        self._outcomes: dict[tuple[bytes, bytes, int], Outcome] = {}
        self._served: dict[tuple[bytes, int], Delta] = {}

    def write(self, author: str, number: int) -> SignedHead:
        """Let an author write its row anew; return the signed head."""
        replica = self._replicas.get(author)
        if replica is None:
            replica = Replica(MemoryStorage(), author, plain_sign(author), Hlc())
            self._replicas[author] = replica
        now_ms = EPOCH_MS + int(self._now() * 1000)
        row = {"name": author, "build": f"build {number}", "services": ["cache", "jobs"]}
        replica.put(FLEET, NODE, author, pack(row), now_ms)
        replica.seal(now_ms)
        assert isinstance(replica.storage, MemoryStorage)
        replica.storage.forget_undo()
        (signed,) = [s for s in replica.commit().values() if s is not None]
        self._whole[signed.body] = self._delta(replica, (0, 0))
        return signed

    def _delta(self, replica: Replica, point: tuple[int, int]) -> Delta:
        want = Want(SetId(replica.author, FLEET), *point)
        (delta,) = serve(replica.storage, [want], self.roster, replica.author)
        return delta

    def read(self, held: SignedHead, want: Want) -> list[Delta]:
        """Return what ``serve`` gives a member that asks a holder of ``held``."""
        if held.head.point <= (want.epoch, want.since):
            return []
        since = want.since if want.epoch == held.head.epoch else 0
        key = (held.body, since)
        if key not in self._served:
            whole = self._whole[held.body]
            rows = tuple(entry for entry in whole.entries if entry.seq > since)
            self._served[key] = Delta(held, since, rows, final=True)
        return [self._served[key]]

    def take(self, held: SignedHead | None, delta: Delta) -> Outcome:
        """Return what ``take`` says at a member that holds ``held``."""
        key = (held.body if held else b"", delta.signed.body, delta.since)
        outcome = self._outcomes.get(key)
        if outcome is None:
            self.counters["takes computed"] += 1
            now_ms = EPOCH_MS + int(self._now() * 1000)
            scratch = Replica(MemoryStorage(), SCRATCH, plain_sign(SCRATCH), Hlc())
            if held is not None:
                before = take(scratch, self._whole[held.body], self.roster, now_ms)
                assert before is Outcome.APPLIED
            outcome = self._outcomes[key] = take(scratch, delta, self.roster, now_ms)
        return outcome
