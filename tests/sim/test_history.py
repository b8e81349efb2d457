"""The real cores, through loss, partitions, crashes and long absences, from seeds.

``scripts/sim`` runs as many seeds as one likes; this is the portion for every run of the tests.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mesh.proto.sets import SetId
from tests.sim.clockwork import Violation
from tests.sim.history import History

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
SHORT = {"storm_s": 700.0, "calm_s": 900.0}


@pytest.mark.parametrize("seed", range(30))
def test_nothing_is_lost_or_resurrected_in_history(seed):
    figures = History(seed, **SHORT).run()
    assert (figures["lost"], figures["resurrected"]) == (0, 0), f"seed {seed}"
    assert figures["writes"] > 100


def test_at_rest_little_more_is_stored_than_lives():
    runs = [History(seed, **SHORT).run() for seed in range(100, 105)]
    assert sum(r["stored"] for r in runs) <= 1.15 * sum(r["live"] for r in runs)


TRACE = """
from tests.sim.history import History
print(History(5, storm_s=120.0, calm_s=60.0).run()["trace"])
"""


def _trace(hash_seed: str) -> str:
    env = {**os.environ, "PYTHONHASHSEED": hash_seed}
    done = subprocess.run(
        [sys.executable, "-c", TRACE], cwd=ROOT, env=env, check=True,
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    return done.stdout.strip()


def test_a_seed_gives_the_same_trace_whatever_the_hash_seed():
    assert _trace("1") == _trace("2") != ""


def _wrong(history: History) -> bool:
    try:
        figures = history.run()
    except AssertionError:  # a Violation, or an assertion of the cores
        return True
    return bool(figures["lost"] or figures["resurrected"])


def test_a_roster_that_forgets_authors_is_found():
    """Markers would go before every author has promised: deleted rows come back."""

    def planted(seed: int) -> bool:
        history = History(seed, **SHORT)
        history.world.roster.merged_authors = lambda scope: ()
        return _wrong(history)

    assert any(planted(seed) for seed in range(12))


def test_a_roster_that_leaks_scopes_is_found():
    history = History(1, **SHORT)
    roster = history.world.roster
    roster.carries = lambda node, scope, author=None: True
    with pytest.raises(Violation, match="not of its scopes"):
        history.run()


def test_a_disk_that_lies_about_flushes_is_found():
    """What was acknowledged and announced is gone after a crash: two heads for one point."""

    def planted(seed: int) -> bool:
        history = History(seed, **SHORT)
        for member in history.world.members.values():
            member.disk.forget_undo = lambda: None  # the flush makes nothing final
        return _wrong(history)

    assert any(planted(seed) for seed in range(4))


def test_a_member_that_drops_rows_silently_is_found():
    history = History(2, **SHORT)

    def rot() -> None:
        for member in history.world.members.values():
            for author, scope in member.heads:
                set_id = SetId(author, scope)
                for entry in list(member.disk.entries(set_id))[:1]:
                    member.disk.delete_entries(set_id, [(entry.table, entry.key)])

    history.world.at(300.0, rot)
    assert _wrong(history)
