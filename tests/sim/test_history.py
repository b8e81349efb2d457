"""The real cores, through loss, partitions, crashes and long absences, from seeds.

``scripts/sim`` runs as many seeds as one likes; this is the portion for every run of the tests.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mesh.proto import intake, sync
from mesh.proto.collect import Collector
from mesh.proto.replica import Replica
from mesh.proto.sets import SetId
from mesh.proto.storage import MemoryStorage
from mesh.proto.sync import EXCHANGE_S, JITTER
from tests.sim.clockwork import Violation
from tests.sim.history import History
from tests.sim.history_member import HistoryMember
from tests.sim.world import Weather

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
SHORT = {"storm_s": 700.0, "calm_s": 900.0}


@pytest.mark.parametrize("seed", range(14))
def test_nothing_is_lost_or_resurrected_in_history(seed):
    figures = History(seed, **SHORT).run()
    assert (figures["lost"], figures["resurrected"]) == (0, 0), f"seed {seed}"
    assert figures["writes"] > 100


def test_at_rest_little_more_is_stored_than_lives():
    runs = [History(seed, **SHORT).run() for seed in range(100, 103)]
    assert sum(r["stored"] for r in runs) <= 1.15 * sum(r["live"] for r in runs)


TRACE = """
from tests.sim.history import History
print(History(6, storm_s=120.0, calm_s=60.0).run()["trace"])
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


def test_a_clone_is_noticed_within_one_exchange():
    """Two processes with one identity write the same scope; correct peers compare within it."""
    history = History(0, **SHORT)
    world = history.world
    world.weather = Weather(0.0, 0.0, (0.001, 0.01), 0, 0, 0, 0)
    world.tend_links()
    world.run_until(10.0)
    world.clone("east1")
    world.run_until(20.0)
    for member, value in ((world.members["east1"], 1), (world.clones["east1"], 2)):
        member.submit(
            lambda tx, v=value: tx.put("site:east", "server", f"s{v}", {"v": v}), lambda _: None
        )
    world.run_until(20.0 + EXCHANGE_S * (1 + JITTER) + 2.0)
    assert any(member.noticed_s is not None for member in world.everybody())


def _planted(seed: int) -> bool:
    return _wrong(History(seed, **SHORT))


def test_signatures_that_nobody_checks_are_found():
    """The liar's forged heads and rows of others come through."""

    def planted(seed: int) -> bool:
        history = History(seed, **SHORT)
        history.world.roster.verify = lambda author, body, signature: True
        return _wrong(history)

    assert any(planted(seed) for seed in (10, 16, 22))


def test_a_set_that_goes_back_is_found(monkeypatch):
    monkeypatch.setattr(intake, "_order", lambda held, signed, own: None)
    assert any(_planted(seed) for seed in (2, 7))


def test_rows_that_stay_below_base_are_found(monkeypatch):
    monkeypatch.setattr(MemoryStorage, "delete_entries", lambda self, set_id, keys: None)
    assert any(_planted(seed) for seed in range(3))


def test_authors_that_never_sweep_are_found(monkeypatch):
    monkeypatch.setattr(Replica, "rest", lambda self, scope, now_ms: False)
    figures = History(1, **SHORT).run()
    assert figures["stored"] > 1.15 * figures["live"]


def test_a_clone_that_nobody_notices_is_found(monkeypatch):
    monkeypatch.setattr(HistoryMember, "notice", lambda self: None)
    with pytest.raises(Violation, match="ran twice"):
        History(2, **SHORT).run()


def test_patience_with_a_liar_is_found(monkeypatch):
    monkeypatch.setattr(sync, "STRIKES_MAX", 10**9)
    assert any(_planted(seed) for seed in (4, 22, 28))


def test_dead_authors_sets_that_come_back_are_found(monkeypatch):
    """Nobody remembers that a set was taken over."""
    monkeypatch.setattr(Replica, "bury", Replica.forget)
    monkeypatch.setattr(intake, "inherited", lambda reader, set_id: (0, 0))
    assert any(_planted(seed) for seed in (3, 12, 38))


def test_an_heir_that_stamps_rows_anew_is_found(monkeypatch):
    """What it has not seen, a deletion or a later write, loses against its copy."""

    def copy(self, scope, entry, now_ms):
        self._replica.put(scope, entry.table, entry.key, entry.body, now_ms, entry.hlc)

    monkeypatch.setattr(Collector, "_copy", copy)
    assert any(_planted(seed) for seed in (19, 24, 68))
