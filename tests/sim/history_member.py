"""A member of the scenario ``history``: with a clock that may be set, and maybe a twin.

Its cores are those of ``member.py``; what it adds is what it goes through.
"""

from typing import TYPE_CHECKING, Any

from mesh.proto.hlc import milliseconds
from mesh.proto.rendezvous import owner
from mesh.proto.steady_time import SteadyTime
from mesh.proto.storage import MemoryStorage
from tests.sim.member import SimMember
from tests.support.members import PlainRoster

if TYPE_CHECKING:
    from tests.sim.world import World

STARTED_MS = 1_790_000_000_000


class HistoryMember(SimMember):
    """See the module."""

    def __init__(
        self,
        world: "World",
        name: str,
        roster: PlainRoster,
        skew_ms: int,
        disk: MemoryStorage | None = None,
    ) -> None:
        """With ``disk``, a clone: another process with the same identity."""
        self.drift = world.rng.uniform(-2e-4, 2e-4)
        self.noticed_s: float | None = None
        """When it first saw that an author has two histories, or itself a twin."""
        self.friends: frozenset[str] = frozenset()
        """Of a clone: the peers that meet it and not the original."""
        super().__init__(world, name, roster, skew_ms)
        if disk is not None:
            self.clone, self.disk = True, disk
            self.boot()

    def boot(self) -> None:
        """Start over what the disk holds; the clock is compared with what was promised."""
        wall, steady = self.wall_ms(), self.steady_ms()
        self.time = SteadyTime(wall, steady)
        own = [h.head for h in self.disk.heads() if h.head.author == self.author]
        promised_ms = max((milliseconds(head.floor) for head in own), default=0)
        self.time.begin(promised_ms, wall, steady)
        super().boot()

    def wall_ms(self) -> int:
        """Return what this member's clock shows: it may have been set, and it drifts."""
        return STARTED_MS + int(self.world.now * 1000 * (1 + self.drift)) + self.skew_ms

    def steady_ms(self) -> int:
        """Return what nobody can set."""
        return int(self.world.now * 1000)

    def now_ms(self) -> int:
        """Return the time that this member goes by."""
        return self.time.now(self.wall_ms(), self.steady_ms())

    def notice(self) -> None:
        """Something shows that an identity runs twice."""
        if self.noticed_s is None:
            self.noticed_s = self.world.now
            self.world.note("notice", self.author, *sorted(self.proofs))

    def _flushed(self, results: list[Any], life: int) -> None:
        super()._flushed(results, life)
        twice = self.world.checks.cloned
        taken = self.author in twice and self.counters["taken back"] and not self.awaits_peer
        if taken or any(set_id.author in twice for set_id in self.proofs):
            self.notice()

    def dropped(self, peer: str, reason: str) -> None:
        """A session wants its link closed: right only about the liar."""
        self.world.on_drop(self, peer, reason)

    def let_go(self) -> None:
        """Let go of what nobody needs."""
        self.collect(self._is_heir)

    def _is_heir(self, author: str, scope: str) -> bool:
        able = self.roster.merged_authors(scope)
        nodes = [node for node in able if not self.roster.is_hub(node)]
        return owner(nodes or able, f"{author}/{scope}") == self.author
