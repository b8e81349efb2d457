"""chaos: all faults at once, by seed, over the whole stack; then calm, and all must be well.

Each seed picks some faults (``fleet_faults.FAULTS``; ``--faults NAME,NAME`` picks them by hand)
and lets each strike a few times. Afterwards everybody must have the same register and rows
within ``CALM_S`` and nothing may be lost or come back. Figures: ``runs``, ``converge_s_max``,
``lost``, ``resurrected``, ``faults`` (how often each struck). Signature checks are remembered
by (key, bytes) across members, records are not sealed; handshakes are real.
"""

import argparse
import hashlib
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from scripts.lib.simulate import over_seeds
from tests.sim.fleet import Fleet, plans
from tests.sim.fleet_faults import FAULTS, calm
from tests.sim.remembered import remembered_signatures

SEEDS: Final = 20
SETTLE_S: Final = 20.0
STORM_S: Final = 150.0
CALM_S: Final = 300.0
WRITE_S: Final = 2.0
SAMPLE_S: Final = 5.0


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add what can be chosen."""
    parser.add_argument("--faults", help="names, with commas; by seed without it")


def one_seed(seed: int, faults: str | None = None) -> dict[str, Any]:
    """Run one seed; return its figures. Raises Violation."""
    with remembered_signatures():
        return Chaos(seed, faults.split(",") if faults else None).run()


class Chaos:
    """One run."""

    def __init__(self, seed: int, names: list[str] | None) -> None:
        sites, nodes = ((2, 2), (3, 3), (2, 4), (4, 2))[seed % 4]
        members = plans(sites, nodes, 1 + seed // 2 % 2)
        old = [f"s0n{nodes - 1}"] if seed % 3 == 0 else []
        self.fleet = Fleet(seed, members, old=old)
        rng = self.fleet.rng
        self.names = names or sorted(rng.sample(sorted(FAULTS), 5))

    def run(self) -> dict[str, Any]:
        """Let things go wrong, then wait for the calm."""
        fleet = self.fleet
        fleet.run_until(SETTLE_S)
        until = SETTLE_S + STORM_S
        fleet.keep_writing(WRITE_S, until)
        for name in self.names:
            for _ in range(1 + (name in ("stall", "crash", "partition_site", "move"))):
                at = fleet.rng.uniform(SETTLE_S, until - 10.0)
                fleet.at(at, self._strike, name, until)
        while fleet.now < until:
            fleet.run_until(min(until, fleet.now + SAMPLE_S))
            fleet.checks.sample()
        calm(fleet)
        took_s = fleet.wait("all are equal again", fleet.equal, CALM_S)
        fleet.run_until(fleet.now + 2 * SAMPLE_S)
        figures = fleet.checks.at_rest()
        fleet.note("rest", sorted(figures.items()))
        return {
            **figures,
            "converge_s": round(took_s, 1),
            "faults": self.names,
            "counters": dict(fleet.counters),
            "node_s": round(fleet.now * len(fleet.members)),
            "trace": fleet.trace_hash(),
        }

    def _strike(self, name: str, until: float) -> None:
        self.fleet.note("fault", name)
        FAULTS[name](self.fleet, until)


def run(args: argparse.Namespace, say: Callable[[str], None]) -> dict[str, Any]:
    """Run the seeds."""
    total: Counter[str] = Counter()
    struck: Counter[str] = Counter()
    trace = hashlib.blake2b(digest_size=16)
    slowest_s = 0.0
    failures: list[str] = []
    for seed, figures, again in over_seeds(
        partial(one_seed, faults=args.faults), args, failures
    ):
        if figures["lost"] or figures["resurrected"]:
            failures.append(f"seed {seed}: wrong rows at rest, {again}")
        for name in ("lost", "resurrected", "places", "node_s"):
            total[name] += figures[name]
        struck.update(figures["faults"])
        slowest_s = max(slowest_s, figures["converge_s"])
        trace.update(bytes.fromhex(figures["trace"]))
        say(f"seed {seed}: {figures}")
    return {
        "runs": args.seeds,
        **total,
        "converge_s_max": slowest_s,
        "faults": dict(sorted(struck.items())),
        "trace": trace.hexdigest(),
        "failures": failures,
    }
