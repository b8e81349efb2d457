"""The data model of the replicated state, as small as it can be, to be checked by the thousand.

Authored sets with (seq, base) heads, truncation in place of tombstone windows, merged keys as
the maximum of (stamp, author), deletion markers retracted at causal stability; extended with
scopes: a set is (author, scope), and a replica holds only the scopes that it carries. One
Lamport clock a replica stands in for the hybrid clock; pulls are cut at random and must then
change nothing. ``Bugs`` plants what the checker has to find.
"""

import random
from dataclasses import dataclass, field

RETRACTED = "<retracted>"
DELETED = "<deleted>"

CARRIERS = {"fleet": (0, 1, 2, 3, 4, 5), "east": (0, 1, 4, 5), "west": (2, 3, 4, 5)}
"""Replicas 0 and 1 are nodes of east, 2 and 3 of west, 4 and 5 hubs."""
MERGED_AUTHORS = {"fleet": (4, 5), "east": (0, 1, 4), "west": (2, 3, 5)}
REPLICAS = 6

Row = tuple[int, int, object]  # seq, stamp, value
SetId = tuple[int, str]


@dataclass(frozen=True)
class Bugs:
    """What is done wrong on purpose."""

    keep_below_base: bool = False
    markers_at_once: bool = False
    torn_pulls: bool = False
    leak_scopes: bool = False


@dataclass
class Set:
    """One authored set at one replica."""

    seq: int = 0
    base: int = 0
    floor: int = 0  # highest stamp the author had issued or seen
    rows: dict[str, Row] = field(default_factory=dict)


class Replica:
    """One replica."""

    def __init__(self, name: int, bugs: Bugs) -> None:
        self.name = name
        self.bugs = bugs
        self.clock = 0
        self.sets: dict[SetId, Set] = {}

    def set_of(self, author: int, scope: str) -> Set:
        return self.sets.setdefault((author, scope), Set())

    def carries(self, scope: str) -> bool:
        return self.name in CARRIERS[scope]

    # -- writing ---------------------------------------------------------------------------

    def put(self, scope: str, key: str, value: object) -> int:
        own = self.set_of(self.name, scope)
        own.seq += 1
        self.clock += 1
        own.rows[key] = (own.seq, self.clock, value)
        own.floor = self.clock
        return self.clock

    def retract(self, scope: str, key: str) -> None:
        own = self.set_of(self.name, scope)
        own.seq += 1
        own.rows[key] = (own.seq, 0, RETRACTED)
        own.floor = self.clock

    def touch(self, scope: str) -> None:
        own = self.set_of(self.name, scope)
        own.seq += 1
        own.floor = self.clock

    def compact(self, scope: str) -> None:
        own = self.set_of(self.name, scope)
        live = sum(row[2] != RETRACTED for row in own.rows.values())
        while own.rows and own.seq - own.base > 2 * live + 8:
            key = min(own.rows, key=lambda k: own.rows[k][0])
            _, stamp, value = own.rows.pop(key)
            own.seq += 1
            if value != RETRACTED:
                own.rows[key] = (own.seq, stamp, value)
            own.base = min((row[0] for row in own.rows.values()), default=own.seq + 1) - 1
        if not own.rows:
            own.base = own.seq

    def collect(self, scope: str) -> None:
        own = self.set_of(self.name, scope)
        for key, (_, stamp, value) in list(own.rows.items()):
            if value == RETRACTED:
                continue
            others = [
                (held.rows[key][1], author)
                for (author, where), held in self.sets.items()
                if where == scope and author != self.name and key in held.rows
                if held.rows[key][2] != RETRACTED
            ]
            beaten = any(other > (stamp, self.name) for other in others)
            alone = value == DELETED and not others
            if beaten or (alone and self._stable(scope, stamp)):
                self.retract(scope, key)

    def _stable(self, scope: str, stamp: int) -> bool:
        others = [a for a in MERGED_AUTHORS[scope] if a != self.name]
        floors = [self.sets.get((author, scope), Set()).floor for author in others]
        return self.bugs.markers_at_once or all(floor >= stamp for floor in floors)

    # -- replication -----------------------------------------------------------------------

    def pull(self, peer: "Replica", rng: random.Random) -> None:
        for set_id in sorted(peer.sets):
            author, scope = set_id
            theirs = peer.sets[set_id]
            ours = self.set_of(*set_id) if author != self.name else theirs
            if not (self.carries(scope) or self.bugs.leak_scopes):
                self.sets.pop(set_id, None)
                continue
            if theirs.seq <= ours.seq:
                continue
            delta = sorted((row, key) for key, row in theirs.rows.items() if row[0] > ours.seq)
            if delta and rng.random() < 0.3:  # the transfer is cut
                if self.bugs.torn_pulls:
                    kept = delta[: rng.randrange(len(delta))]
                    ours.rows.update({key: row for row, key in kept})
                    ours.seq = max([ours.seq, *(row[0] for row, _ in kept)])
                continue
            ours.rows.update({key: row for row, key in delta})
            ours.seq, ours.base, ours.floor = theirs.seq, theirs.base, theirs.floor
            if not self.bugs.keep_below_base:
                ours.rows = {k: row for k, row in ours.rows.items() if row[0] > ours.base}
        self.clock = max(self.clock, peer.clock)

    def view(self, scope: str) -> dict[str, object]:
        best: dict[str, tuple[tuple[int, int], object]] = {}
        for (author, where), held in self.sets.items():
            for key, (_, stamp, value) in held.rows.items():
                shown = where == scope and value != RETRACTED
                if shown and (stamp, author) > best.get(key, ((-1, -1), None))[0]:
                    best[key] = ((stamp, author), value)
        return {key: value for key, (_, value) in best.items() if value != DELETED}


@dataclass(frozen=True)
class Result:
    """What one history came to."""

    wrong: str  # "" when nothing was
    writes: int
    stored: int
    live: int


def run(seed: int, bugs: Bugs | None = None, steps: int = 2500) -> Result:
    """Check one random history."""
    return _Run(seed, bugs or Bugs()).run(steps)


class _Run:
    def __init__(self, seed: int, bugs: Bugs) -> None:
        self.rng = random.Random(seed)
        self.replicas = [Replica(name, bugs) for name in range(REPLICAS)]
        self.away = [0] * REPLICAS
        self.truth: dict[tuple[str, str], tuple[tuple[int, int], object]] = {}
        self.writes = 0

    def run(self, steps: int) -> Result:
        wrong = ""
        for step in range(steps):
            self._step(step)
            if step % 250 == 0:
                wrong = wrong or self._differing()
        self._settle()
        wrong = wrong or self._differing() or self._misplaced() or self._mistaken()
        own = {(r.name, s): r.set_of(r.name, s) for r in self.replicas for s in CARRIERS}
        stored = sum(len(held.rows) for held in own.values())
        live = sum(value != DELETED for _, value in self.truth.values())
        return Result(wrong, self.writes, stored, live)

    def _step(self, step: int) -> None:
        rng = self.rng
        replica = rng.choice(self.replicas)
        if rng.random() < 0.002:
            self.away[rng.randrange(REPLICAS)] = step + rng.randrange(200, 1200)
        act = rng.random()
        if act < 0.35:
            self._write(replica)
        elif act < 0.45:
            for scope in CARRIERS:
                replica.collect(scope)
                replica.compact(scope)
        else:
            peer = rng.choice(self.replicas)
            here = self.away[replica.name] <= step and self.away[peer.name] <= step
            if peer is not replica and here:
                if rng.random() < 0.3:
                    replica.touch(rng.choice([s for s in CARRIERS if replica.carries(s)]))
                replica.pull(peer, rng)

    def _write(self, replica: Replica) -> None:
        rng = self.rng
        scope = rng.choice([s for s in CARRIERS if replica.carries(s)])
        self.writes += 1
        if replica.name in MERGED_AUTHORS[scope] and rng.random() < 0.6:
            key = f"merged{rng.randrange(8)}"
            value = DELETED if rng.random() < 0.4 else self.writes
            stamp = replica.put(scope, key, value)
            old = self.truth.get((scope, key), ((-1, -1), DELETED))
            self.truth[scope, key] = max(
                old, ((stamp, replica.name), value), key=lambda item: item[0]
            )
            return
        key = f"own{replica.name}_{rng.randrange(6)}"
        own = replica.set_of(replica.name, scope)
        if rng.random() < 0.4:
            if key in own.rows and own.rows[key][2] != RETRACTED:
                replica.retract(scope, key)
                self.truth[scope, key] = ((replica.clock, replica.name), DELETED)
            return
        stamp = replica.put(scope, key, self.writes)
        self.truth[scope, key] = ((stamp, replica.name), self.writes)

    def _settle(self) -> None:
        calm = random.Random(0)
        calm.random = lambda: 1.0  # type: ignore[method-assign]
        for _ in range(12):
            for replica in self.replicas:
                for scope in CARRIERS:
                    if replica.carries(scope):
                        replica.touch(scope)
            for _ in range(2):
                for replica in self.replicas:
                    for peer in self.replicas:
                        if peer is not replica:
                            replica.pull(peer, calm)
            for replica in self.replicas:
                for scope in CARRIERS:
                    replica.collect(scope)
                    replica.compact(scope)
        for replica in [*self.replicas, *self.replicas]:
            for peer in self.replicas:
                if peer is not replica:
                    replica.pull(peer, calm)

    def _differing(self) -> str:
        seen: dict[tuple[SetId, int], object] = {}
        for replica in self.replicas:
            for set_id, held in replica.sets.items():
                content = sorted(held.rows.items(), key=lambda item: item[1][0])
                if seen.setdefault((set_id, held.seq), content) != content:
                    return f"equal heads of {set_id} with other rows at {replica.name}"
        return ""

    def _misplaced(self) -> str:
        for replica in self.replicas:
            for author, scope in replica.sets:
                if replica.sets[author, scope].rows and not replica.carries(scope):
                    return f"a row of {scope} at {replica.name}"
        return ""

    def _mistaken(self) -> str:
        for scope, carriers in CARRIERS.items():
            want = {
                key: value
                for (where, key), (_, value) in self.truth.items()
                if where == scope and value != DELETED
            }
            for name in carriers:
                if self.replicas[name].view(scope) != want:
                    return f"a wrong view of {scope} at {name}"
        return ""
