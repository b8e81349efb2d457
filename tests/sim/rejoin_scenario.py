"""rejoin: a site that was dark for 8 weeks comes back by itself.

While it is dark everybody rotates X25519 keys four times, the membership key is replaced twice
by new trust documents, a hub leaves and another joins, the hubs' TLS keys change, members move
to other addresses, rows get fields of a later release; the dark site goes on working, rotates
its own keys and loses power once, or (every fourth seed) is switched off all the time, until
its keys have expired. One thread stays: by seed a hub's name (its TLS key is new), a far
member's address, or the dark site's own address. Then light; nobody does anything. Figures:
``rejoined`` (share of the seeds), ``manual_steps`` (operator's actions after the light came
back), ``back_s_max`` (until register and rows were equal everywhere). Quiet days are skipped:
eight weeks are some minutes of full detail, clocks go on. Signature checks are remembered by
(key, bytes) across members, records are not sealed; handshakes are real.
"""

import argparse
import hashlib
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

from mesh.proto.tables import FLEET, NODE
from mesh.store_tx import authored_rows
from scripts.lib.simulate import over_seeds
from tests.sim.fleet import Fleet, plans
from tests.sim.fleet_faults import revoke_member
from tests.sim.fleet_member import FleetMember
from tests.sim.fleet_org import Plan, hub_url
from tests.sim.remembered import remembered_signatures

SEEDS: Final = 50
WEEKS: Final = 8
WEEK_S: Final = 12.0
"""Full detail of each week; the rest of it is skipped."""
BACK_S: Final = 600.0
THREADS: Final = ("hub name", "far address", "own address")
DARK: Final = "site0"
NEW_HUB: Final = Plan("hub2", "", frozenset({"hub"}))
NEWS: Final = "a field of a later release"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add nothing of its own."""


def one_seed(seed: int) -> dict[str, Any]:
    """Run one seed; return its figures. Raises Violation."""
    with remembered_signatures():
        return Rejoin(seed).run()


class Rejoin:
    """One run."""

    def __init__(self, seed: int) -> None:
        self.thread, self.off = THREADS[seed % 3], seed % 4 == 3
        hidden = [DARK] if self.thread != "own address" and seed % 2 else []
        self.fleet = Fleet(seed, plans(3, 2, 2), hidden=hidden, later=[NEW_HUB])

    def run(self) -> dict[str, Any]:
        """Live through the eight weeks."""
        fleet = self.fleet
        fleet.run_until(10.0)
        fleet.wait("the fleet is up", fleet.equal, 60.0)
        fleet.note("dark", self.thread)
        fleet.net.cut(DARK, "*")
        for member in self._dark() if self.off else ():
            member.crash(power=True)
        fleet.keep_writing(3.0, fleet.now + WEEKS * (WEEK_S + 2.0))
        for week in range(WEEKS):
            self._week(week)
            fleet.run_until(fleet.now + WEEK_S)
            fleet.skip(7.0 - WEEK_S / 86_400)
            fleet.wait("those with light agree", lambda: fleet.equal(self._lit()), 120.0)
        done = fleet.counters["operator"]
        fleet.note("light")
        for member in self._dark():
            member.start()
        fleet.net.heal()
        back_s = fleet.wait("the dark site is back", self._back, BACK_S)
        return {
            "back_s": back_s,
            "manual_steps": fleet.counters["operator"] - done,
            "thread": self.thread,
            "off": self.off,
            "days": round(fleet.skipped_s / 86_400),
            **fleet.checks.at_rest(),
            "node_s": round(fleet.now * len(fleet.members)),
            "trace": fleet.trace_hash(),
        }

    def _dark(self) -> list[FleetMember]:
        return self.fleet.site(DARK)

    def _lit(self) -> list[FleetMember]:
        return [m for m in self.fleet.active() if m.place != DARK]

    def _back(self) -> bool:
        """Everything is equal, the news has come through, links lead out of the site."""
        fleet = self.fleet
        far = {m.author for m in self._lit()}
        linked = any(peer in far for member in self._dark() for peer in member.mains)
        return linked and fleet.equal() and all(map(self._has_news, fleet.active()))

    def _has_news(self, member: FleetMember) -> bool:
        rows = authored_rows(member.disk, FLEET, NODE, None)
        told = [row for row in rows if NEWS in row.body]
        return len(told) >= len(self._lit()) - 1 and all(row.body[NEWS] for row in told)

    # -- what happens meanwhile ----------------------------------------------------------------

    def _week(self, week: int) -> None:
        fleet = self.fleet
        if week % 2 == 0:
            for member in fleet.active():
                fleet.rotate_key(member)
        step = (
            self._rotate_role_key, self._new_hub, self._new_tls, self._old_hub_goes,
            self._move, self._news, self._rotate_role_key, self._lose_power,
        )[week]  # fmt: skip
        fleet.after(WEEK_S / 2, step)

    def _desk(self) -> FleetMember:
        """The hub at which the operator works."""
        return next(hub for hub in self._hubs() if hub.up)

    def _hubs(self) -> list[FleetMember]:
        return [hub for hub in self.fleet.hubs() if self.fleet.register.active(hub.author)]

    def _rotate_role_key(self) -> None:
        self.fleet.publish(self.fleet.org.begin_rotation(), self._desk())
        self.fleet.publish(self.fleet.org.end_rotation(), self._desk())

    def _new_hub(self) -> None:
        fleet = self.fleet
        fleet.publish([fleet.org.admit(NEW_HUB)], self._desk())
        hub = fleet.add(NEW_HUB)
        address = fleet.org.hub_address("hub2", hub_url("hub2", 1))
        fleet.publish([hub.identity.key_record, address], hub)

    def _new_tls(self) -> None:
        for hub in self._hubs():
            self._announce(hub, 1)

    def _announce(self, hub: FleetMember, url: int) -> None:
        label = hub.plan.label
        where = hub_url(label, url)
        self.fleet.net.listeners[where] = hub.name
        tls = self.fleet.rng.randbytes(32)
        self.fleet.publish([self.fleet.org.hub_address(label, where, tls)], hub)

    def _old_hub_goes(self) -> None:
        fleet, gone = self.fleet, self.fleet.member("hub0")
        desk = next(hub for hub in self._hubs() if hub is not gone)
        revoke_member(fleet, gone, desk)
        gone.crash(power=True)
        fleet.net.listeners.pop(hub_url("hub0", 1))

    def _move(self) -> None:
        """Everybody with light moves, but for the one thread that is left."""
        fleet, kept = self.fleet, self._thread()
        for member in self._lit():
            if member is not kept:
                fleet.move(member)
                member.tell_address()
        for hub in self._hubs():
            if hub is not kept:
                fleet.net.listeners.pop(hub_url(hub.plan.label, 1))
                self._announce(hub, 2)
        if self.thread != "own address":
            for member in self._dark():
                fleet.move(member)
                if member.up:
                    member.tell_address()

    def _thread(self) -> FleetMember | None:
        if self.thread == "hub name":
            return self.fleet.member("hub1")
        return self.fleet.member("s1n0") if self.thread == "far address" else None

    def _news(self) -> None:
        for member in self._lit():
            member.tell_address({NEWS: [1, {"two": b"three"}]})

    def _lose_power(self) -> None:
        for member in self._dark():
            if member.up:
                member.crash(power=True)
                self.fleet.after(self.fleet.rng.uniform(1.0, 4.0), member.start)


def run(args: argparse.Namespace, say: Callable[[str], None]) -> dict[str, Any]:
    """Run the seeds."""
    total: Counter[str] = Counter()
    trace = hashlib.blake2b(digest_size=16)
    slowest_s = 0.0
    failures: list[str] = []
    for seed, figures, again in over_seeds(one_seed, args, failures):
        if figures["lost"] or figures["resurrected"] or figures["manual_steps"]:
            failures.append(f"seed {seed}: {figures}, {again}")
        total["rejoined"] += 1
        for name in ("manual_steps", "lost", "resurrected", "node_s"):
            total[name] += figures[name]
        slowest_s = max(slowest_s, figures["back_s"])
        trace.update(bytes.fromhex(figures["trace"]))
        say(f"seed {seed}: {figures}")
    return {
        "rejoined": total.pop("rejoined") / args.seeds,
        **total,
        "back_s_max": slowest_s,
        "skipped_days": 7 * WEEKS,
        "trace": trace.hexdigest(),
        "failures": failures,
    }
