"""detection: a crash is seen by the site in time, and nobody that was sending is given up.

Each seed runs sites of 2, 3, 5, 20 and 60 nodes. A tenth of the time of every node is stalls of
up to 10 s, one direction of every link loses 20 % of its packets, and nodes crash (half of them
with their machine) and come back. Every fourth seed has no UDP.

Figures: ``detect_p99_s`` from a crash to the verdict of a node that did not stall meanwhile
(``woken_p99_s``: of one that did, from when it woke); ``false_verdicts`` of nodes that had been
sending; ``node_hours``; ``stalled_given_up`` is how often a node that had stalled was given up,
``stalled_below_5_s`` how often before it had stalled for 5 s.

``--model`` skips what cannot matter to false verdicts (tests/sim/detection_model.py), in sites
of 2, 3 and 5 nodes: ``false_verdicts``, ``node_hours``, ``simulated_node_hours`` (the part that
was simulated exactly) and ``false_per_node_hour_max``, the bound with 95 % confidence.
"""

import argparse
import hashlib
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from scripts.lib.simulate import over_seeds
from tests.sim.detection import run_site
from tests.sim.detection_model import run_model

SEEDS: Final = 10
SHARES: Final = {2: 0.3, 3: 0.3, 5: 0.3, 20: 0.07, 60: 0.03}
"""Which part of the node-hours each size of site gets."""
MODEL_SHARES: Final = {2: 0.4, 3: 0.3, 5: 0.3}
RULE_OF_THREE: Final = 3.0
"""After n trials without an event, its rate is below 3 / n with 95 % confidence."""
CRASH_EACH_S: Final = 120.0
DETECT_S_MAX: Final = 5.0


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add how long a seed runs."""
    parser.add_argument("--node-hours", type=float, default=20.0, help="of one seed, all sizes")
    parser.add_argument("--model", action="store_true", help="skip what cannot matter")


def one_seed(seed: int, node_hours: float) -> dict[str, Any]:
    """Run one seed."""
    counters: Counter[str] = Counter()
    seen_s: list[float] = []
    woken_s: list[float] = []
    wrong: list[tuple[int, float, str, str]] = []
    trace = hashlib.blake2b(digest_size=16)
    for size, share in SHARES.items():
        seconds = share * node_hours * 3600 / size
        site = run_site(seed, size, seconds, crash_each_s=CRASH_EACH_S, udp=seed % 4 != 3)
        counters += site.counters
        seen_s += site.seen_s
        woken_s += site.woken_seen_s
        wrong += [(size, *one) for one in site.false]
        trace.update(bytes.fromhex(site.trace_hash()))
    return {
        "counters": counters, "seen_s": seen_s, "woken_s": woken_s, "wrong": wrong,
        "trace": trace.hexdigest(),
    }  # fmt: skip


def one_model(seed: int, node_hours: float) -> tuple[int, float]:
    """Run the model of one seed: false verdicts, and node-hours simulated exactly."""
    found = [run_model(seed, size, node_hours * share) for size, share in MODEL_SHARES.items()]
    return sum(false for false, _ in found), sum(hours for _, hours in found)


def run_models(args: argparse.Namespace, say: Callable[[str], None]) -> dict[str, Any]:
    """Run the models of the seeds; return the figures of all."""
    false, simulated, seeds = 0, 0.0, 0
    failures: list[str] = []
    one = partial(one_model, node_hours=args.node_hours)
    for seed, found, again in over_seeds(one, args, failures):
        seeds += 1
        false += found[0]
        simulated += found[1]
        if found[0]:
            failures.append(f"{found[0]} false verdicts\n{again}")
        say(f"seed {seed}: {found[0]} false, {found[1]:.2f} node-hours simulated exactly")
    node_hours = args.node_hours * seeds
    return {
        "false_verdicts": false,
        "node_hours": node_hours,
        "simulated_node_hours": round(simulated, 2),
        "false_per_node_hour_max": RULE_OF_THREE / node_hours if seeds and not false else None,
        "failures": failures,
    }


def run(args: argparse.Namespace, say: Callable[[str], None]) -> dict[str, Any]:
    """Run the seeds; return the figures of all."""
    if args.model:
        return run_models(args, say)
    counters: Counter[str] = Counter()
    seen_s: list[float] = []
    woken_s: list[float] = []
    failures: list[str] = []
    false = 0
    trace = hashlib.blake2b(digest_size=16)
    one = partial(one_seed, node_hours=args.node_hours)
    for seed, found, again in over_seeds(one, args, failures):
        counters += found["counters"]
        seen_s += found["seen_s"]
        woken_s += found["woken_s"]
        false += len(found["wrong"])
        trace.update(bytes.fromhex(found["trace"]))
        if found["wrong"]:
            failures.append(f"false verdicts {found['wrong'][:5]}\n{again}")
        say(
            f"seed {seed}: {found['counters']['crashes']} crashes, at most"
            f" {max(found['seen_s'], default=0.0):.2f} s, {len(found['wrong'])} false"
        )
    detect_p99_s = at_share(seen_s, 0.99)
    if detect_p99_s > DETECT_S_MAX:
        failures.append(f"detect_p99_s is {detect_p99_s}, at most {DETECT_S_MAX} is allowed")
    return {
        "detect_p50_s": at_share(seen_s, 0.5),
        "detect_p99_s": detect_p99_s,
        "detect_max_s": at_share(seen_s, 1.0),
        "woken_p99_s": at_share(woken_s, 0.99),
        "false_verdicts": false,
        "node_hours": args.node_hours * (args.seeds - len(failures)),
        "crashes": counters["crashes"],
        "verdicts": counters["verdicts"],
        "stalled_given_up": counters["of_stalled"] + counters["of_just_woken"],
        "stalled_below_5_s": counters["of_stalled_below_5_s"],
        "trace": trace.hexdigest(),
        "failures": failures,
    }


def at_share(values: list[float], share: float) -> float:
    """Return the value below which this share of them lies (0 without any)."""
    ordered = sorted(values)
    return (
        round(ordered[min(len(ordered) - 1, int(len(ordered) * share))], 3) if values else 0.0
    )
