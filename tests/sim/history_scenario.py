"""history: authors write, delete and vanish; nothing may be lost, come back, or pile up.

With loss (one-way too), late, doubled and reordered frames, partitions, long absences, crashes
with torn tails, restores from old backups, clocks that drift and jump by ten years, two
processes on one identity, members that leave or are revoked, and one that lies.

Figures over all seeds: ``writes``, ``lost`` and ``resurrected`` rows, ``stored`` and ``live``
rows at rest with their ratio ``stored_per_live``.
"""

import argparse
import hashlib
from collections.abc import Callable
from typing import Any, Final

from scripts.lib.simulate import over_seeds
from tests.sim.history import COUNTED, History

SEEDS: Final = 10
STORED_PER_LIVE_MAX: Final = 1.1
SUMMED: Final = (
    "writes", "lost", "resurrected", "stored", "live",
    "events", "frames", "rows_sent", "tainted", "lies", *COUNTED,
)  # fmt: skip


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add nothing of its own."""


def one_seed(seed: int) -> dict[str, Any]:
    """Run one seed."""
    return History(seed).run()


def run(args: argparse.Namespace, say: Callable[[str], None]) -> dict[str, Any]:
    """Run the seeds; return sums."""
    total: dict[str, Any] = dict.fromkeys(SUMMED, 0)
    trace = hashlib.blake2b(digest_size=16)
    failures: list[str] = []
    for seed, figures, again in over_seeds(one_seed, args, failures):
        if figures["lost"] or figures["resurrected"]:
            failures.append(f"wrong rows at rest, {again}")
        for name in SUMMED:
            total[name] += figures[name]
        trace.update(bytes.fromhex(figures["trace"]))
        say(f"seed {seed}: {figures}")
    ratio = round(total["stored"] / max(1, total["live"]), 3)
    if ratio > STORED_PER_LIVE_MAX and args.seeds >= 10:
        failures.append(
            f"stored_per_live is {ratio}, at most {STORED_PER_LIVE_MAX} is allowed at rest"
        )
    return {**total, "stored_per_live": ratio, "trace": trace.hexdigest(), "failures": failures}
