"""kill -9 of any process, fifty times, while ten servers are deployed at once."""

import os
from pathlib import Path

import pytest

from tests.e2e.chaos.checker import retries, violations
from tests.e2e.chaos.storm import DEAD_SOCKETS, ChaosSite, storm

pytestmark = [pytest.mark.slow, DEAD_SOCKETS]

KILLS = 50
EVERY_S = 1.8
SEEDS = [int(word) for word in os.environ.get("RACKMESH_CHAOS_SEEDS", "1").split(",")]


@pytest.mark.parametrize("seed", SEEDS, ids=lambda seed: f"seed-{seed}")
def test_fifty_kills_lose_no_order_and_do_nothing_twice(tmp_path: Path, seed: int) -> None:
    print(f"replay: scripts/chaos --seed {seed}")  # shown whatever fails
    site = ChaosSite(tmp_path / "fleet")
    try:
        site.begin()
        books, killed = storm(site, seed, KILLS, EVERY_S)
    finally:
        site.processes.stop_all()
    print(f"seed {seed}: killed {dict(killed)}, {len(books.given)} orders,"
          f" {retries(books.given)} of them retries")  # fmt: skip
    found = violations(books)
    assert not found, "\n".join(found[:40])
    site.no_traceback()
