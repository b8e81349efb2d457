"""darkhub: no hub anywhere for 14 days; sites go on by themselves.

Every day somebody writes at each site, members lose power and come back, X25519 keys are
rotated; a site admits a new node and revokes one with its own delegated key. Every write must
reach everybody who carries it, between sites as well. Figures: ``days``, ``writes``,
``admitted``, ``revoked``, ``spread_s_max`` (until a day's writes were at all who were up),
``lost``, ``resurrected``. Quiet hours are skipped, clocks go on. Signature checks are
remembered by (key, bytes) across members, records are not sealed; handshakes are real.
"""

import argparse
import hashlib
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

from scripts.lib.simulate import over_seeds
from tests.sim.fleet import Fleet, plans
from tests.sim.fleet_faults import revoke_member
from tests.sim.fleet_org import Plan
from tests.sim.remembered import remembered_signatures

SEEDS: Final = 10
DAYS: Final = 14
DAY_S: Final = 8.0
"""Full detail of each day; the rest of it is skipped."""
WRITTEN_S: Final = 0.5
SPREAD_S: Final = 150.0
"""Two rounds of anti-entropy, and some."""
NEWCOMER: Final = Plan("s1new", "site1")


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add nothing of its own."""


def one_seed(seed: int) -> dict[str, Any]:
    """Run one seed; return its figures. Raises Violation."""
    with remembered_signatures():
        return DarkHub(seed).run()


class DarkHub:
    """One run."""

    def __init__(self, seed: int) -> None:
        self.fleet = Fleet(seed, plans(3, 3, 1), delegated=True, later=[NEWCOMER])
        self.done: Counter[str] = Counter()

    def run(self) -> dict[str, Any]:
        """Live through the days."""
        fleet = self.fleet
        fleet.run_until(10.0)
        fleet.wait("the fleet is up", fleet.equal, 60.0)
        for hub in fleet.hubs():
            hub.crash(power=True)
        slowest_s = 0.0
        for day in range(DAYS):
            began = fleet.now
            self._day(day)
            fleet.run_until(began + WRITTEN_S)
            fleet.wait("the day is known", fleet.equal, SPREAD_S)
            slowest_s = max(slowest_s, fleet.now - began)
            fleet.run_until(max(fleet.now, began + DAY_S))
            fleet.wait("whoever was away knows it too", fleet.equal, SPREAD_S)
            fleet.skip(1.0 - DAY_S / 86_400)
        return {
            **fleet.checks.at_rest(),
            "days": DAYS,
            "writes": fleet.checks.counters["writes"],
            "spread_s": slowest_s,
            **self.done,
            "node_s": round(fleet.now * len(fleet.members)),
            "trace": fleet.trace_hash(),
        }

    def _day(self, day: int) -> None:
        fleet, rng = self.fleet, self.fleet.rng
        for member in fleet.active():
            fleet.write(member)
        if day % 3 == 1:
            gone = rng.choice(fleet.active())
            gone.crash(power=rng.random() < 0.5)
            fleet.after(rng.uniform(1.0, 6.0), gone.start)
        if day % 5 == 2:
            for member in fleet.active():
                fleet.rotate_key(member)
        if day == 4:
            self._admit()
        if day == 8:
            self._revoke()

    def _admit(self) -> None:
        """A site's own key admits a new node of that site."""
        fleet = self.fleet
        desk = fleet.member("s1n0")
        record = fleet.org.admit(NEWCOMER, fleet.org.site_keys["site1"])
        fleet.publish([record], desk)
        new = fleet.add(NEWCOMER)
        fleet.register.merge(new.identity.key_record)
        new.merge((new.identity.key_record,))
        self.done["admitted"] += desk.book.active(new.author)

    def _revoke(self) -> None:
        """A site's own key revokes a node of that site."""
        fleet = self.fleet
        gone, desk = fleet.member("s2n1"), fleet.member("s2n0")
        revoke_member(fleet, gone, desk, fleet.org.site_keys["site2"])
        self.done["revoked"] += not desk.book.active(gone.author)


def run(args: argparse.Namespace, say: Callable[[str], None]) -> dict[str, Any]:
    """Run the seeds."""
    total: Counter[str] = Counter()
    trace = hashlib.blake2b(digest_size=16)
    slowest_s = 0.0
    failures: list[str] = []
    for seed, figures, again in over_seeds(one_seed, args, failures):
        good = figures.get("admitted") == 1 and figures.get("revoked") == 1
        if figures["lost"] or figures["resurrected"] or not good:
            failures.append(f"seed {seed}: {figures}, {again}")
        names = ("days", "writes", "admitted", "revoked", "lost", "resurrected", "node_s")
        total.update({name: figures.get(name, 0) for name in names})
        slowest_s = max(slowest_s, figures["spread_s"])
        trace.update(bytes.fromhex(figures["trace"]))
        say(f"seed {seed}: {figures}")
    return {
        **total,
        "spread_s_max": slowest_s,
        "trace": trace.hexdigest(),
        "failures": failures,
    }
