"""Virtual time, a network that misbehaves, and members that crash; all from one seed.

It knows no rule of the replicated state: members run the real cores, ``checks.py`` says what
must hold. Rule: every choice comes from ``rng`` and every event from one heap, so a seed gives
the same trace on every machine, whatever PYTHONHASHSEED is.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from mesh.proto.codec import pack, unpack
from tests.sim.checks import Checks
from tests.sim.clockwork import Clockwork
from tests.sim.member import SimMember
from tests.support.members import FakeMember, FakeRegister, PlainRoster


@dataclass(frozen=True)
class Weather:
    """How bad the network is."""

    loss: float
    duplicate: float
    latency_s: tuple[float, float]
    partitions: int
    crashes: int
    long_absences: int
    rollback: bool


class World(Clockwork):
    """The fleet."""

    def __init__(self, seed: int, fleet: Iterable[FakeMember], weather: Weather) -> None:
        super().__init__(seed)
        self.weather = weather
        self.checks = Checks(self)
        self.register = FakeRegister(fleet, [b"r"])
        self.roster = PlainRoster(self.register)
        self.members = {
            name: SimMember(self, name, self.roster, self.rng.randrange(-2000, 2000))
            for name in self.register.all
        }
        self.calm = False
        self._cut: dict[tuple[str, str], float] = {}
        self.edges = [
            (a, b)
            for a in self.members
            for b in self.members
            if a < b and self._neighbours(a, b)
        ]

    def _neighbours(self, a: str, b: str) -> bool:
        one, two = self.register.all[a], self.register.all[b]
        hub = "hub" in one.roles or "hub" in two.roles
        return hub or one.site == two.site or self.rng.random() < 0.2

    # -- network ---------------------------------------------------------------------------

    def send(self, source: str, target: str, number: int, kind: str, body: Any) -> None:
        """Carry a frame: late, twice, or not at all."""
        self.counters["frames"] += 1
        rng = self.rng
        loss = 0.0 if self.calm else self.weather.loss
        copies = 1 + (not self.calm and rng.random() < self.weather.duplicate)
        if rng.random() < loss:
            self.counters["lost frames"] += 1
            return
        if number % 8 == 0:  # some links go through the codec, as all real ones do
            data = pack(body)
            self.counters["bytes"] += len(data)
            body = unpack(data, 4 << 20)
        member = self.members[target]
        for _ in range(copies):
            delay = rng.uniform(*self.weather.latency_s)
            self.after(delay, lambda: member.on_frame(source, number, kind, body))

    def cut(self, a: str, b: str, until: float) -> None:
        """Take an edge away for a while."""
        edge = (min(a, b), max(a, b))
        self._cut[edge] = max(self._cut.get(edge, 0.0), until)
        self.members[a].unlink(b)
        self.members[b].unlink(a)

    def tend_links(self) -> None:
        """Bring up links that can be up (the redial of the links room)."""
        for a, b in self.edges:
            one, two = self.members[a], self.members[b]
            if not (one.up and two.up) or self._cut.get((a, b), 0.0) > self.now:
                continue
            if b in one.links and a in two.links:
                continue
            one.unlink(b)
            two.unlink(a)
            number = self.next_number()
            self.note("link", a, b)
            one.link(b, number)
            two.link(a, number)
        self.after(self.rng.uniform(0.5, 2.0), self.tend_links)

    # -- faults ----------------------------------------------------------------------------

    def partition(self, length_s: float) -> None:
        """Split the fleet in two for a while."""
        names = list(self.members)
        left = self.rng.sample(names, self.rng.randrange(1, len(names)))
        self.note("partition", *left)
        for a, b in self.edges:
            if (a in left) != (b in left):
                self.cut(a, b, self.now + length_s)

    def crash(self, name: str, length_s: float, *, restore: bool = False) -> None:
        """Crash a member; it comes back after a while, maybe from a backup."""
        member = self.members[name]
        if not member.up:
            return
        self.note("crash", name, restore)
        member.crash()
        for peer in self.members.values():
            peer.unlink(name)
        if restore and member.backup is not None:
            self.checks.on_rollback(member)
            member.restore_backup()
            self.counters["rollbacks"] += 1
        self.after(length_s, lambda: self._start(member))

    def _start(self, member: SimMember) -> None:
        if not member.up:
            self.note("start", member.author)
            member.skew_ms += self.rng.randrange(-500, 500)
            member.boot()
