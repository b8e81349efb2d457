"""storm: everybody loses power at once and is back within ten seconds.

Handshakes and anti-entropy must be over within 60 s, and traffic must be back at what it was
before. A handshake costs each side 0.2 ms of its one processor, hubs included. ``--sites`` and
``--nodes`` set the size. Figures: ``settled_s`` (all links that are wanted are up, every
session has completed an exchange, all are equal), ``handshakes``, ``busiest_cpu_s`` (CPU of
handshakes at the busiest member), ``before_bytes_per_s`` and ``after_bytes_per_s`` (all links
together). Signature checks are remembered by (key, bytes) across members, records are not
sealed; handshakes are real.
"""

import argparse
import hashlib
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from scripts.lib.simulate import over_seeds
from tests.sim.fleet import Fleet, plans
from tests.sim.fleet_member import FleetMember
from tests.sim.remembered import remembered_signatures

SEEDS: Final = 2
UP_S: Final = 60.0
IDLE_S: Final = 120.0
"""How long traffic is measured: two rounds of anti-entropy."""
BACK_S: Final = 10.0
"""Everybody is switched on again within this."""
SETTLED_S: Final = 60.0
IDLE_AGAIN: Final = 1.25
"""Traffic is back when it is at most this much above what it was."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the size."""
    parser.add_argument("--sites", type=int, default=5)
    parser.add_argument("--nodes", type=int, default=5, help="of a site")


def one_seed(seed: int, sites: int, nodes: int) -> dict[str, Any]:
    """Run one seed; return its figures. Raises Violation."""
    with remembered_signatures():
        fleet = Fleet(seed, plans(sites, nodes, 2))
        fleet.run_until(UP_S)
        fleet.wait("the fleet is up", fleet.equal, UP_S)
        before = _bytes_per_s(fleet)
        _restart(fleet)
        began, shaken = fleet.now, fleet.counters["handshakes"]
        settled_s = fleet.wait("all is settled", partial(_settled, fleet), SETTLED_S)
        fleet.run_until(max(fleet.now, began + SETTLED_S))
        shaken = fleet.counters["handshakes"] - shaken
        after = _bytes_per_s(fleet)
        idle = after <= IDLE_AGAIN * before
        fleet.expect(idle, f"{after:.0f} bytes/s after the storm, {before:.0f} before")
        return {
            "settled_s": settled_s,
            "handshakes": shaken,
            "busiest_cpu_s": round(max(m.cpu_s for m in fleet.members.values()), 4),
            "before_bytes_per_s": round(before),
            "after_bytes_per_s": round(after),
            "members": len(fleet.members),
            "trace": fleet.trace_hash(),
        }


def _restart(fleet: Fleet) -> None:
    for member in list(fleet.members.values()):
        member.crash(power=True)
        member.cpu_s = 0.0
        fleet.after(fleet.rng.uniform(0.0, BACK_S), member.start)


def _bytes_per_s(fleet: Fleet) -> float:
    before = fleet.net.lan_bytes + fleet.net.wan_bytes
    fleet.run_until(fleet.now + IDLE_S)
    return (fleet.net.lan_bytes + fleet.net.wan_bytes - before) / IDLE_S


def _settled(fleet: Fleet) -> bool:
    members = fleet.members.values()
    return all(m.up and _linked(m) and _synced(m) for m in members) and fleet.equal()


def _linked(member: FleetMember) -> bool:
    near = {m.author for m in member.fleet.site(member.plan.site)} - {member.author}
    hub = member.is_hub or any(h.author in member.mains for h in member.fleet.hubs())
    return hub and (member.is_hub or near <= set(member.mains))


def _synced(member: FleetMember) -> bool:
    return all(link.session.counters["completed"] for link in member.links.values())


def run(args: argparse.Namespace, say: Callable[[str], None]) -> dict[str, Any]:
    """Run the seeds; return the worst figures."""
    worst: dict[str, Any] = {}
    trace = hashlib.blake2b(digest_size=16)
    failures: list[str] = []
    work = partial(one_seed, sites=args.sites, nodes=args.nodes)
    for seed, figures, _ in over_seeds(work, args, failures):
        trace.update(bytes.fromhex(figures.pop("trace")))
        say(f"seed {seed}: {figures}")
        for name, value in figures.items():
            worst[name] = max(worst.get(name, value), value)
    return {**worst, "trace": trace.hexdigest(), "failures": failures}
