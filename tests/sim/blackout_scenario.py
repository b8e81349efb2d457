"""blackout: a fifth of the sites die at once, without a goodbye; do news still reach the rest?

As propagation, but right after the tree has settled ``--share`` of the sites go dark. Nobody
has noticed yet (TCP links to them stay up and swallow what is sent), and the first writes after
it are measured: they must reach every member that is left.
"""

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from scripts.lib.simulate import over_seeds
from tests.sim.tree_fleet import TreeFleet

SEEDS: Final = 1
GAP_S: Final = 1.5
P99_MS_MAX: Final = 700
"""For the first writes after the blackout."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the size, the loss and the blackout."""
    parser.add_argument("--sites", type=int, default=250)
    parser.add_argument("--members", type=int, default=20, help="members of a site")
    parser.add_argument("--loss", type=float, default=0.01)
    parser.add_argument("--settle", type=int, default=20, help="writes before the blackout")
    parser.add_argument("--messages", type=int, default=3, help="writes after it")
    parser.add_argument("--share", type=float, default=0.2, help="of the sites that die")


def measure(seed: int, args: argparse.Namespace) -> dict[str, Any]:
    """Run one seed."""
    fleet = TreeFleet(seed, args.sites, args.members, args.loss)
    fleet.run_until(5.0)
    fleet.settle(args.settle, GAP_S, sorted(fleet.nodes))
    dead = fleet.rng.sample(sorted(fleet.sites), round(args.share * args.sites))
    for site in dead:
        fleet.kill_site(site)
    fleet.begin()
    fleet.settle(args.messages, GAP_S, fleet.up())
    fleet.run_until(fleet.now + 10.0)
    return {
        "nodes": len(fleet.nodes),
        "dead": len(fleet.nodes) - len(fleet.up()),
        **fleet.figures(),
        "grafts": fleet.counted().get("grafts", 0),
        "trace": fleet.trace_hash(),
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
        if figures["p99_ms"] > P99_MS_MAX:
            failures.append(f"p99 {figures['p99_ms']} ms, {again}")
    worst = max(found, key=lambda each: (-each["delivered"], each["p99_ms"]), default={})
    return {**worst, "failures": failures}
