"""propagation: how fast one write reaches everybody, and how many copies of it arrive.

The real overlay and tree broadcast (tests/sim/tree_fleet.py) on 250 sites of 20 members, of
whom up to 1,000 write their fleet row. First the tree settles over some writes; then single
writes are measured, or with ``--writes-per-s`` that many a second for ``--for-s``. What taking
a delta over comes to is computed once by the real rules and shared by all members; every 64th
frame goes through the codec. Anchor: memberlist with its WAN settings on the same map.
"""

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from scripts.lib.simulate import over_seeds
from tests.sim.gossip_anchor import anchor
from tests.sim.tree_fleet import TreeFleet

SEEDS: Final = 1
AUTHORS_MAX: Final = 1000
GAP_S: Final = 1.5
"""Between single writes: each is through before the next."""
P99_MS_MAX, LAST_MS_MAX, COPIES_MAX = 500, 1000, 1.1


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the size, the load and the loss."""
    parser.add_argument("--sites", type=int, default=250)
    parser.add_argument("--members", type=int, default=20, help="members of a site")
    parser.add_argument("--loss", type=float, default=0.01)
    parser.add_argument("--settle", type=int, default=20, help="writes before it is measured")
    parser.add_argument("--messages", type=int, default=50, help="single writes to measure")
    parser.add_argument("--writes-per-s", type=float, default=0.0)
    parser.add_argument("--for-s", type=float, default=30.0)
    parser.add_argument("--anchor-messages", type=int, default=5)


def measure(seed: int, args: argparse.Namespace) -> dict[str, Any]:
    """Run one seed."""
    fleet = TreeFleet(seed, args.sites, args.members, args.loss)
    fleet.run_until(5.0)
    names = sorted(fleet.nodes)
    authors = fleet.rng.sample(names, min(AUTHORS_MAX, len(names)))
    fleet.settle(args.settle, GAP_S, authors)
    fleet.begin()
    if args.writes_per_s:
        end = fleet.now + args.for_s
        while fleet.now < end:
            fleet.write(fleet.rng.choice(authors))
            fleet.run_until(fleet.now + fleet.rng.expovariate(args.writes_per_s))
        fleet.run_until(fleet.now + 5.0)
    else:
        fleet.settle(args.messages, GAP_S, authors)
    counted = fleet.counted()
    return {
        "nodes": len(names),
        **fleet.figures(),
        "grafts": counted.get("grafts", 0),
        "takes_computed": fleet.authors.counters["takes computed"],
        "trace": fleet.trace_hash(),
        **anchor(seed, fleet.site_of, args.loss, args.anchor_messages),
    }


def run(args: argparse.Namespace, say: Callable[[str], None]) -> dict[str, Any]:
    """Run the seeds; return the figures of the worst (by p99) and what fell short."""
    found: list[dict[str, Any]] = []
    failures: list[str] = []
    for seed, figures, again in over_seeds(partial(measure, args=args), args, failures):
        say(f"seed {seed}: {figures}")
        found.append(figures)
        if figures["delivered"] < 1.0:
            failures.append(f"delivered to {figures['delivered']} of all, {again}")
        if figures["p99_ms"] > P99_MS_MAX or figures["last_ms"] > LAST_MS_MAX:
            failures.append(f"p99 {figures['p99_ms']}, last {figures['last_ms']} ms, {again}")
        if figures["copies"] > COPIES_MAX:
            failures.append(f"{figures['copies']} copies a member, {again}")
    worst = max(found, key=lambda each: each["p99_ms"], default={})
    return {**worst, "failures": failures}
