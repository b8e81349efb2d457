"""Kills of either node while ten servers are deployed: all end, and no BMC is driven twice.

The storm, the books and what is held against them are those of the tests (tests/e2e/chaos);
here only the two nodes are killed, and the figures are counted. ``double_driven``: orders to a
BMC that no single running job explains, or that come in another order than its plan's;
``violations``: these and all else that does not fit the orders that were given.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[2]), str(Path(__file__).parent)]

from demo_processes import say  # noqa: E402

from tests.e2e.chaos.checker import DEPLOY, driven_twice, violations  # noqa: E402
from tests.e2e.chaos.storm import ChaosSite, storm  # noqa: E402

NODES = ("node-one", "node-two")


def measure(seed: int, kills: int, every_s: float) -> dict[str, object]:
    """Run one storm; return the figures."""
    with tempfile.TemporaryDirectory(prefix="rackmesh-chaos-") as name:
        site = ChaosSite(Path(name) / "fleet")
        try:
            site.begin()
            say(f"killing nodes {kills} times while {site.servers} servers are deployed")
            books, killed = storm(site, seed, kills, every_s, NODES)
        finally:
            site.processes.stop_all()
    jobs = next(iter(books.rows.values()))["job"]
    deploys = [jobs.get(given.order) for given in books.given if given.kind == DEPLOY]
    found = violations(books)
    for sentence in found[:20]:
        say(f"  {sentence}")
    return {
        "seed": seed,
        "kills": dict(killed),
        "servers": site.servers,
        "deploys": len(deploys),
        "completed": sum(job is not None and job["state"] == "succeeded" for job in deploys),
        "double_driven": len(driven_twice(books)),
        "violations": len(found),
    }


def main() -> int:
    """Print the JSON object."""
    parser = argparse.ArgumentParser(prog="scripts/bench/chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--every-s", type=float, default=1.8, help="mean time between kills")
    options = parser.parse_args()
    figures = measure(options.seed, options.kills, options.every_s)
    print(json.dumps(figures, sort_keys=True))
    return 0 if not figures["violations"] else 1


if __name__ == "__main__":
    sys.exit(main())
