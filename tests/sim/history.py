"""Scenario ``history``: several authors write, delete and vanish for a long time.

Two sites with three nodes each, two hubs; rows in all scopes, merged and per author. Half an
hour of bad weather, then calm until everything must be equal and small.
"""

from typing import Any

from mesh.proto.tables import (
    BINDING,
    FLEET,
    NODE,
    PRESENCE,
    REFERENCE,
    SECRET,
    SERVER,
    SIGHTING,
)
from mesh.store_tx import Tx
from tests.sim.checks import entry_stamp
from tests.sim.history_member import HistoryMember
from tests.sim.liar import Liar
from tests.sim.world import Weather, World
from tests.support.members import FakeMember

STORM_S = 1800.0
CALM_S = 1500.0
WRITE_S = 4.0
"""Mean time between two writes of the fleet."""
COLLECT_S = 60.0
HOUR_MS = 3_600_000
JUMPS_MS = (-HOUR_MS, HOUR_MS, 10 * HOUR_MS, -87_600 * HOUR_MS, 87_600 * HOUR_MS)
"""A clock may be set by hours (followed) or by ten years (not believed)."""
COUNTED = ("rollbacks", "clones", "deaths", "liar dropped", "jumps")


def fleet() -> list[FakeMember]:
    """Return two sites and two hubs."""
    nodes = [FakeMember(f"{site}{n}", site) for site in ("east", "west") for n in (1, 2, 3)]
    return [*nodes, *(FakeMember(f"hub{n}", "", frozenset({"hub"})) for n in (1, 2))]


def weather(seed: int) -> Weather:
    """Return a seed's weather."""
    return Weather(
        loss=(0.0, 0.02, 0.1)[seed % 3],
        duplicate=(0.0, 0.05)[seed % 2],
        latency_s=((0.001, 0.05), (0.02, 0.4))[seed // 2 % 2],
        partitions=seed % 5,
        crashes=2 + seed % 7,
        long_absences=1 + seed % 2,
        restores=(0, 0, 1, 2, 0, 1)[seed % 6],
        one_way=seed % 4 * 3,
        clock_jumps=seed % 3,
        clones=int(seed % 5 == 2),
        dead=int(seed % 7 in (3, 5)),
        liar=seed % 6 == 4,
    )


class History:
    """One run."""

    def __init__(self, seed: int, storm_s: float = STORM_S, calm_s: float = CALM_S) -> None:
        self.storm_s, self.calm_s = storm_s, calm_s
        self.world = World(seed, fleet(), weather(seed))
        self.rng = self.world.rng
        self.values = 0

    def run(self) -> dict[str, Any]:
        """Run storm and calm; return the figures. Raises Violation."""
        world = self.world
        fast = self.rng.choice(list(world.members))
        world.members[fast].skew_ms = self.rng.choice((0, 90_000, 400_000, -3_000_000))
        self._plan_faults()
        self._plan_trouble()
        world.tend_links()
        self._write()
        for member in world.members.values():
            world.after(self.rng.uniform(0, COLLECT_S), self._collect, member)
        world.run_until(self.storm_s)
        world.calm = True
        world._cut.clear()
        world.end_clones()
        if world.liar is not None:
            world.liar.lying = False
        for member in world.members.values():
            world._start(member)
        world.run_until(self.storm_s + self.calm_s)
        figures = world.checks.at_rest()
        world.note("rest", sorted(figures.items()))
        rows = sum(m.counters["rows sent"] for m in world.members.values())
        return {
            **figures,
            "lies": sum(world.liar.counters.values()) if world.liar else 0,
            "writes": world.checks.counters["writes"],
            "events": world.counters["events"],
            "frames": world.counters["frames"],
            "rows_sent": rows,
            **{name: world.counters[name] for name in COUNTED},
            "tainted": world.checks.counters["tainted"],
            "trace": world.trace_hash(),
        }

    def _plan_faults(self) -> None:
        world, rng, storm = self.world, self.rng, self.world.weather
        names = list(world.members)
        for _ in range(storm.partitions):
            length = rng.uniform(10, 400)
            world.at(rng.uniform(0, self.storm_s), lambda s=length: world.partition(s))
        for _ in range(storm.crashes):
            name, length = rng.choice(names), rng.uniform(0.5, 60)
            world.at(rng.uniform(0, self.storm_s), lambda n=name, s=length: world.crash(n, s))
        for _ in range(storm.long_absences):
            name, start = rng.choice(names), rng.uniform(0, self.storm_s / 2)
            for other in names:
                if other != name:
                    until = start + rng.uniform(0.3, 0.6) * self.storm_s
                    world.at(start, lambda o=other, n=name, u=until: world.cut(n, o, u))
        for _ in range(storm.restores):
            name, copied = rng.choice(names), rng.uniform(0, self.storm_s / 2)
            world.at(copied, lambda n=name: self._back_up(world.members[n]))
            back = rng.uniform(copied, self.storm_s)
            world.at(back, lambda n=name: world.crash(n, 5.0, restore=True))

    def _plan_trouble(self) -> None:
        """Plan what a correct network cannot do: clocks, clones, deaths, a liar."""
        world, rng, storm = self.world, self.rng, self.world.weather
        nodes = [name for name in world.members if not name.startswith("hub")]
        rng.shuffle(nodes)
        for _ in range(storm.one_way):
            world.at(rng.uniform(0, self.storm_s), world.deafen, rng.uniform(20, 200))
        for _ in range(storm.clock_jumps):
            name, far = rng.choice(nodes), rng.choice(JUMPS_MS)
            world.at(rng.uniform(0, self.storm_s), self._jump, world.members[name], far)
        for name in nodes[: storm.clones]:
            world.at(rng.uniform(0.2, 0.5) * self.storm_s, self._clone, name)
        for name in nodes[1 : 1 + storm.dead]:
            when = rng.uniform(0.3, 0.7) * self.storm_s
            world.at(when, world.end_member, name, rng.choice(("left", "revoked")))
        if storm.liar:
            world.liar = Liar(nodes[2], rng)
            world.checks.liar = nodes[2]

    def _jump(self, member: HistoryMember, far_ms: int) -> None:
        self.world.note("clock", member.author, far_ms)
        self.world.counters["jumps"] += 1
        member.skew_ms += far_ms

    def _clone(self, name: str) -> None:
        self.world.clone(name)
        if name in self.world.clones:
            self._collect(self.world.clones[name])

    def _back_up(self, member: HistoryMember) -> None:
        if member.up:
            member._when_flushed(lambda: self._copy(member))

    def _copy(self, member: HistoryMember) -> None:
        member.backup = member.disk.copy()
        self.world.checks.on_backup(member)

    def _collect(self, member: HistoryMember) -> None:
        if member.up:
            member.let_go()
        self.world.after(self.rng.uniform(0.8, 1.2) * COLLECT_S, self._collect, member)

    # -- writing ---------------------------------------------------------------------------

    def _write(self) -> None:
        world, rng = self.world, self.rng
        if world.now > self.storm_s:
            return
        world.after(rng.expovariate(1 / WRITE_S), self._write)
        member = rng.choice(world.everybody())
        if not member.up or member.awaits_peer:
            return
        scope, table, key = self._place(member)
        self.values += 1
        value = self.values
        if rng.random() < 0.35:
            self._remove(member, scope, table, key)
            return
        for _ in range(rng.choice((1, 1, 1, 5))):  # sometimes many in one group
            member.submit(
                lambda tx: tx.put(scope, table, key, {"v": value}),
                lambda _: self._done(member, scope, table, key, value),
            )

    def _place(self, member: HistoryMember) -> tuple[str, str, str]:
        rng = self.rng
        roles = self.world.register.all[member.author]
        hub = "hub" in roles.roles
        site = roles.site or rng.choice(("east", "west"))
        pair = rng.choice(("east1", "west2"))
        choices = [
            (FLEET, PRESENCE, f"b3:{rng.randrange(12)}"),
            (FLEET, NODE, member.author),
            (f"site:{site}", SERVER, f"s{rng.randrange(8)}"),
            (f"site:{site}", BINDING, f"m{rng.randrange(8)}"),
            (f"site:{site}", SIGHTING, f"m{rng.randrange(10)}"),
        ]
        if hub:
            choices.append((FLEET, REFERENCE, f"image{rng.randrange(6)}"))
        if hub and rng.random() < 0.15:
            return (f"pair:{pair}", SECRET, f"k{rng.randrange(3)}")
        return rng.choice(choices)

    def _remove(self, member: HistoryMember, scope: str, table: str, key: str) -> None:
        def work(tx: Tx) -> bool:
            if table in (PRESENCE, NODE, SIGHTING):
                there = tx.own(scope, table, key) is not None
                tx.drop(scope, table, key)
            else:
                there = tx.get(scope, table, key) is not None
                tx.delete(scope, table, key)
            return there

        def done(there: bool) -> None:
            if there:
                self._done(member, scope, table, key, None)

        member.submit(work, done)

    def _done(
        self, member: HistoryMember, scope: str, table: str, key: str, value: Any
    ) -> None:
        stamp = entry_stamp(member, scope, table, key)
        if stamp is not None:
            self.world.checks.wrote(member.author, scope, table, key, value, stamp)
