"""fencing: nodes stop, die and lose each other in the middle of power jobs; who drives the BMC?

Each seed is a site of three or two nodes and a BMC, Redfish (its sessions can be ended) or IPMI
(it takes every order), in turn. One job switches the server off and on, flashes it once, then
off and on again. Messages are late, 8 % of them are lost, 4 % of the BMC's. Processes stand
still for up to a minute (before a Redfish fence up to ten), nodes die and come back, the mesh
is cut in one direction, or around a node. Orders are up to 15 s on their way, whatever becomes
of who sent them.

Policies meet the same weather: ours (no prefix), ``naive_``, a lease of 15 s, ``guard30_``, one
of 30 s. Figures: ``stale_actions`` that the BMC carried out of an owner after the next one had
acted, ``wrong_power`` after jobs that say succeeded, ``one_shot_twice``; each is a number of
seeds. ``succeeded``, ``parked`` (a flash of which nobody knows the outcome), ``unfinished``.

``pause_bound_s`` is how long an IPMI job's node may stand still without harm; longer is out of
scope there, and so is the failure of both networks between two nodes that live.
"""

import argparse
import hashlib
import random
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from node.proto.plan import Step
from scripts.lib.simulate import over_seeds
from tests.sim.work_node import Node
from tests.sim.work_site import BEGIN_S, GUARD30, NAIVE, OURS, Policy, Site

SEEDS: Final = 1000
POLICIES: Final = (OURS, NAIVE, GUARD30)
KINDS: Final = ((3, True), (3, False), (2, True), (2, False))
"""Nodes, and whether the BMC can be fenced, by seed modulo four."""
COUNTED: Final = ("stale_actions", "wrong_power", "one_shot_twice")
TROUBLE_S: Final = 60.0
SETTLE_S: Final = 12.0
"""In which the weather's incidents begin."""
PAUSE_S_MAX: Final = 60.0
LONG_PAUSE_S_MAX: Final = 600.0


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add what leaves the others out."""
    parser.add_argument("--ours", action="store_true", help="only our policy, for many seeds")


def steps(careful: bool) -> tuple[Step, ...]:
    """Return the plan: off, on, flash, off, on."""
    plan: list[Step] = []
    for number, word in enumerate(("off", "on", "flash", "off", "on")):
        flash = word == "flash"
        plan.append(
            Step(
                id=f"{number}-{word}",
                name=word,
                kind="one-shot" if flash and careful else "set",
                do="flash" if flash else "power",
                args={} if flash else {"on": word == "on"},
                after=(plan[-1].id,) if plan else (),
                tries=50,
            )
        )
    return tuple(plan)


def trouble(site: Site, seed: int, pause_s_max: float) -> float:
    """Plan a seed's weather; return when it is over."""
    rng, clock, over = random.Random(f"{seed} weather"), site.clock, 0.0
    for _ in range(rng.choice((1, 2, 3, 4))):
        name = site.first if rng.random() < 0.6 else rng.choice(site.names)
        node, at = site.node(name), BEGIN_S + rng.uniform(0, TROUBLE_S)
        kind, long = rng.random(), rng.random() < 0.1
        if kind < 0.45:
            for_s = rng.uniform(1, min(PAUSE_S_MAX, pause_s_max))
            if long and pause_s_max > PAUSE_S_MAX:
                for_s = rng.uniform(PAUSE_S_MAX, pause_s_max)
            clock.at(at, node.process.stop)
            clock.at(at + for_s, node.process.go_on)
        elif kind < 0.65:
            for_s = rng.uniform(0.5, 60)
            clock.at(at, _die, node, at + for_s)
        else:
            for_s = rng.uniform(5, 150)
            others = [n for n in site.names if n != name]
            pairs = {(name, n) for n in others} | {(n, name) for n in others}
            if kind < 0.85:
                pairs = {rng.choice(sorted(pairs))}
            clock.at(at, site.net.cut.update, pairs)
            clock.at(at + for_s, site.net.cut.difference_update, pairs)
        over = max(over, at + for_s)
    return over


def _die(node: Node, back_at: float) -> None:
    if node.process.alive:
        node.die()
        node.site.clock.at(back_at, _come_back, node)


def _come_back(node: Node) -> None:
    if not node.process.alive:
        node.boot()


def one_run(seed: int, policy: Policy) -> tuple[Counter[str], Site]:
    """Run a seed under a policy; return what is counted."""
    size, fence = KINDS[seed % len(KINDS)]
    site = Site(seed, policy, steps(policy.careful), size, fence)
    site.settle_s = SETTLE_S
    over = trouble(site, seed, LONG_PAUSE_S_MAX if fence else OURS.times.pause_s)
    finished = site.run(over)
    state, device = site.best_row()["state"], site.device
    counted = Counter[str]()
    counted["stale_actions"] = bool(device.stale)
    counted["wrong_power"] = state == "succeeded" and device.power != "on"
    counted["one_shot_twice"] = device.flashes > 1
    counted["unfinished"] = not finished or state not in ("succeeded", "parked")
    counted["succeeded"], counted["parked"] = state == "succeeded", state == "parked"
    counted["taken_over"] = site.best_row()["runner"] != site.first
    return counted, site


def one_seed(seed: int, ours: bool = False) -> tuple[dict[str, Counter[str]], str]:
    """Run a seed under all policies, or ours alone."""
    trace = hashlib.blake2b(digest_size=16)
    found: dict[str, Counter[str]] = {}
    for policy in POLICIES[: 1 if ours else None]:
        found[policy.name], site = one_run(seed, policy)
        trace.update(bytes.fromhex(site.clock.trace_hash()))
    return found, trace.hexdigest()


def run(args: argparse.Namespace, say: Callable[[str], None]) -> dict[str, Any]:
    """Run the seeds; return the figures of all."""
    sums = {policy.name: Counter[str]() for policy in POLICIES}
    failures: list[str] = []
    trace, seeds = hashlib.blake2b(digest_size=16), 0
    one = partial(one_seed, ours=args.ours)
    for _, (found, seen), again in over_seeds(one, args, failures):
        seeds += 1
        trace.update(bytes.fromhex(seen))
        for name, counted in found.items():
            sums[name] += counted
        bad = [name for name in (*COUNTED, "unfinished") if found[OURS.name][name]]
        if bad:
            failures.append(f"{', '.join(bad)} under our policy\n{again}")
        if seeds % 100 == 0:
            say(f"{seeds} seeds: {_line(sums[OURS.name])}; naive: {_line(sums['naive'])}")
    figures: dict[str, Any] = {}
    for policy in POLICIES[: 1 if args.ours else None]:
        prefix = "" if policy is OURS else f"{policy.name}_"
        for name in (*COUNTED, "succeeded", "parked", "unfinished", "taken_over"):
            figures[prefix + name] = sums[policy.name][name]
    if seeds >= SEEDS and not args.ours:
        failures += [f"naive_{n} is 0" for n in COUNTED if not sums["naive"][n]]
    return {
        **figures, "pause_bound_s": OURS.times.pause_s, "trace": trace.hexdigest(),
        "failures": failures,
    }  # fmt: skip


def _line(counted: Counter[str]) -> str:
    return ", ".join(f"{counted[name]} {name.replace('_', ' ')}" for name in COUNTED)
