"""speed: how many seconds of how many members one second of CPU simulates.

``detector_node_s_per_cpu_s``: the failure detectors of 200 nodes (ten sites of 20), alone;
``stack_node_s_per_cpu_s``: the whole stack, 5 sites of 10 nodes and two hubs, settled, a write
every 5 s somewhere (``--sites``, ``--nodes``). One process, CPU time, best of ``--rounds``.
Signature checks are remembered by (key, bytes) across members, records are not sealed.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any, Final

from tests.sim import detection
from tests.sim.fleet import Fleet, plans
from tests.sim.remembered import remembered_signatures

SEEDS: Final = 1
UP_S: Final = 60.0
MEASURED_S: Final = 60.0
DETECTOR_S: Final = 60.0
DETECTOR_LEAST: Final = 30_000
STACK_LEAST: Final = 3_000


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the size of the whole stack."""
    parser.add_argument("--sites", type=int, default=5)
    parser.add_argument("--nodes", type=int, default=10, help="of a site")
    parser.add_argument("--rounds", type=int, default=3)


def stack(seed: int, sites: int, nodes: int, rounds: int) -> float:
    """Return node-seconds of the whole stack per second of CPU."""
    with remembered_signatures():
        fleet = Fleet(seed, plans(sites, nodes, 2))
        fleet.run_until(UP_S)
        fleet.wait("the fleet is up", fleet.equal, UP_S)
        best = 0.0
        for _ in range(rounds):
            fleet.keep_writing(5.0, fleet.now + MEASURED_S)
            began = time.process_time()
            fleet.run_until(fleet.now + MEASURED_S)
            spent_s = time.process_time() - began
            best = max(best, MEASURED_S * len(fleet.members) / spent_s)
    return best


def run(args: argparse.Namespace, say: Callable[[str], None]) -> dict[str, Any]:
    """Measure both."""
    alone = max(detection.speed(DETECTOR_S) for _ in range(args.rounds))
    say(f"detector alone: {alone:.0f} node-s per CPU-s")
    whole = stack(args.seed, args.sites, args.nodes, args.rounds)
    failures = []
    if alone < DETECTOR_LEAST:
        failures.append(f"detector: {alone:.0f} node-s per CPU-s, {DETECTOR_LEAST} wanted")
    if whole < STACK_LEAST:
        failures.append(f"whole stack: {whole:.0f} node-s per CPU-s, {STACK_LEAST} wanted")
    return {
        "detector_node_s_per_cpu_s": round(alone),
        "stack_node_s_per_cpu_s": round(whole),
        "members": args.sites * args.nodes + 2,
        "failures": failures,
    }
