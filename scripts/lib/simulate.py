"""Run a simulator scenario over seeds; see ``scripts/sim``."""

import argparse
import hashlib
import json
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.sim.checks import Violation
from tests.sim.history import History

STORED_PER_LIVE_MAX = 1.1
SUMMED = (
    "writes", "lost", "resurrected", "stored", "live",
    "events", "frames", "rows_sent", "rollbacks", "tainted",
)  # fmt: skip


def main() -> int:
    """Run; return the exit status."""
    args = _arguments()
    total: dict[str, Any] = dict.fromkeys(SUMMED, 0)
    trace = hashlib.blake2b(digest_size=16)
    failed: list[int] = []
    began = time.perf_counter()
    for seed in range(args.seed, args.seed + args.seeds):
        try:
            figures = History(seed).run()
        except Violation as exc:
            failed.append(seed)
            print(f"violation: {exc}\nreplay with: {_replay(args.scenario, seed)}")
            continue
        if figures["lost"] or figures["resurrected"]:
            failed.append(seed)
            print(f"wrong rows at rest, replay with: {_replay(args.scenario, seed)}")
        for name in SUMMED:
            total[name] += figures[name]
        trace.update(bytes.fromhex(figures["trace"]))
        if not args.json:
            print(f"seed {seed}: {figures}")
    ratio = round(total["stored"] / max(1, total["live"]), 3)
    if ratio > STORED_PER_LIVE_MAX and args.seeds >= 10:
        failed.append(-1)
        print(f"stored_per_live is {ratio}, at most {STORED_PER_LIVE_MAX} is allowed at rest")
    report = {
        "scenario": args.scenario,
        "seed": args.seed,
        "seeds": args.seeds,
        **total,
        "stored_per_live": ratio,
        "violations": len(failed),
        "trace_hash": trace.hexdigest(),
        "seconds": round(time.perf_counter() - began, 1),
    }
    print(json.dumps(report))
    return 1 if failed else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/sim", description=__doc__)
    parser.add_argument("--scenario", choices=["history"], default="history")
    parser.add_argument("--seed", type=int, default=0, help="first seed")
    parser.add_argument("--seeds", type=int, default=10, help="how many")
    parser.add_argument("--json", action="store_true", help="only the last line")
    return parser.parse_args()


def _replay(scenario: str, seed: int) -> str:
    return f"scripts/sim --scenario {scenario} --seed {seed} --seeds 1"


if __name__ == "__main__":
    sys.exit(main())
