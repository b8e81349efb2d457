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
from tests.sim.history_member import HistoryMember
from tests.sim.liar import Liar
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
    restores: int  # from an old backup
    one_way: int = 0  # times that one direction of a link loses nearly everything
    clock_jumps: int = 0
    clones: int = 0
    dead: int = 0  # members that leave or are revoked for good
    liar: bool = False


class World(Clockwork):
    """The fleet."""

    def __init__(self, seed: int, fleet: Iterable[FakeMember], weather: Weather) -> None:
        super().__init__(seed)
        self.weather = weather
        self.checks = Checks(self)
        self.register = FakeRegister(fleet, [b"r"])
        self.roster = PlainRoster(self.register)
        self.members = {
            name: HistoryMember(self, name, self.roster, self.rng.randrange(-2000, 2000))
            for name in self.register.all
        }
        self.calm = False
        self.clones: dict[str, HistoryMember] = {}
        self.dead: dict[str, None] = {}
        self.liar: Liar | None = None
        self._deaf: dict[tuple[str, str], float] = {}
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
        if self._deaf and self._deaf.get((source, target), 0.0) > self.now:
            loss = 0.9
        if self.liar is not None and source == self.liar.name:
            body = self.liar.spoil(kind, target, body)
        copies = 1 + (not self.calm and rng.random() < self.weather.duplicate)
        if rng.random() < loss:
            self.counters["lost frames"] += 1
            return
        if number % 8 == 0:  # some links go through the codec, as all real ones do
            data = pack(body)
            self.counters["bytes"] += len(data)
            body = unpack(data, 4 << 20)
        member = self.side(target, source)
        for _ in range(copies):
            delay = rng.uniform(*self.weather.latency_s)
            self.after(delay, lambda: member.on_frame(source, number, kind, body))

    def side(self, name: str, peer: str) -> HistoryMember:
        """Return the process of an identity that a peer is linked with."""
        clone = self.clones.get(name)
        if clone is not None and peer in clone.friends:
            return clone
        return self.members[name]

    def everybody(self) -> list[HistoryMember]:
        """Return all processes that count: clones too, the dead not."""
        members = [m for name, m in self.members.items() if name not in self.dead]
        return [*members, *self.clones.values()]

    def cut(self, a: str, b: str, until: float) -> None:
        """Take an edge away for a while."""
        edge = (min(a, b), max(a, b))
        self._cut[edge] = max(self._cut.get(edge, 0.0), until)
        self.side(a, b).unlink(b)
        self.side(b, a).unlink(a)

    def tend_links(self) -> None:
        """Bring up links that can be up (the redial of the links room)."""
        for a, b in self.edges:
            one, two = self.side(a, b), self.side(b, a)
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

    def deafen(self, length_s: float) -> None:
        """Let one direction of a link lose nearly everything for a while."""
        a, b = self.rng.choice(self.edges)
        way = (a, b) if self.rng.random() < 0.5 else (b, a)
        self.note("one way", *way)
        self._deaf[way] = self.now + length_s

    def on_drop(self, member: HistoryMember, peer: str, reason: str) -> None:
        """A member finds a peer hostile: right only about the liar."""
        guilty = self.liar is not None and peer == self.liar.name
        self.expect(guilty, f"{member.author} drops correct {peer}: {reason}")
        self.counters["liar dropped"] += 1
        self.note("drop", member.author, peer)
        member.unlink(peer)

    def clone(self, name: str) -> None:
        """Start a second process on a copy of a member's disk; it has some of the links."""
        member = self.members[name]
        if not member.up or member.awaits_peer or member.flushing or name in self.clones:
            return
        peers = sorted({a if b == name else b for a, b in self.edges if name in (a, b)})
        friends = self.rng.sample(peers, len(peers) // 2)
        self.note("clone", name, *friends)
        for peer in friends:
            member.unlink(peer)
            self.side(peer, name).unlink(name)
        twin = HistoryMember(self, name, self.roster, member.skew_ms, member.disk.copy())
        twin.friends = frozenset(friends)
        self.clones[name] = twin
        self.checks.on_twin(name)
        self.counters["clones"] += 1

    def end_clones(self) -> None:
        """The operator has stopped the second processes."""
        for name, twin in list(self.clones.items()):
            self.note("clone ends", name)
            twin.crash()
            for peer in twin.friends:
                self.side(peer, name).unlink(name)
            del self.clones[name]
            self.checks.twice.pop(name)
            if twin.noticed_s is not None:
                self.members[name].notice()

    def end_member(self, name: str, status: str) -> None:
        """A member is out of the roster for good, with what one hub has of it accepted."""
        hub = self.members[self.rng.choice(["hub1", "hub2"])]
        if name in self.dead or name in self.clones or not hub.up or hub.awaits_peer:
            return
        if all(author != name for author, _ in hub.heads):
            return  # who holds nothing of it cannot say what was accepted: its sets would stay
        member = self.members[name]
        record = self.register.all[name]
        for (author, scope), signed in hub.heads.items():
            if author == name:
                record.heads[scope] = (*signed.head.point, signed.head.root)
        record.status = status
        self.register.kept.add(f"{status} {name}".encode())
        self.dead[name] = self.checks.dead[name] = None
        self.note("ends", name, status)
        self.checks.on_death(name, hub)
        member.crash()
        for peer in [*self.members.values(), *self.clones.values()]:
            peer.unlink(name)
        self.edges = [edge for edge in self.edges if name not in edge]
        self.counters["deaths"] += 1

    def crash(self, name: str, length_s: float, *, restore: bool = False) -> None:
        """Crash a member; it comes back after a while, maybe from a backup."""
        member = self.members[name]
        if not member.up:
            return
        self.note("crash", name, restore)
        member.crash()
        for peer in [*self.members.values(), *self.clones.values()]:
            if self.side(name, peer.author) is member:
                peer.unlink(name)
        if restore and member.backup is not None:
            self.checks.on_rollback(member)
            member.restore_backup()
            self.counters["rollbacks"] += 1
        self.after(length_s, lambda: self._start(member))

    def _start(self, member: HistoryMember) -> None:
        if not member.up and member.author not in self.dead:
            self.note("start", member.author)
            member.skew_ms += self.rng.randrange(-500, 500)
            member.boot()
