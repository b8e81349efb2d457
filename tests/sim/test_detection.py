"""Whole sites under stalls and one-way loss: detectors that lie, and that they would show."""

from collections.abc import Callable
from math import inf
from typing import Any

import pytest

from mesh.proto import detector
from mesh.proto.detector import PROBE_EACH_S, Detector
from mesh.proto.detector_effects import Effect
from tests.sim.detection import run_site
from tests.sim.detection_model import Model, run_model
from tests.sim.detection_scenario import DETECT_S_MAX, SEEDS, at_share, one_seed

HOUR_S = 3600.0


def test_200_node_hours_of_stalls_and_loss_make_no_false_verdict_and_crashes_are_seen():
    seen_s: list[float] = []
    for seed in range(SEEDS):
        found = one_seed(seed, 200 / SEEDS)
        assert found["wrong"] == [], f"scripts/sim --scenario detection --seed {seed} --seeds 1"
        seen_s += found["seen_s"]
    assert len(seen_s) > 500
    assert at_share(seen_s, 0.99) <= DETECT_S_MAX


def test_a_seed_gives_one_trace():
    first, again = (run_site(5, 5, 300).trace_hash() for _ in range(2))
    assert first == again
    assert first != run_site(6, 5, 300).trace_hash()


class Deaf(Detector):
    """Planted bug: pings nobody before it accuses it."""

    def _ask(self, case: Any, now: float, effects: list[Any]) -> None:
        case.probes += 1
        case.probe_at = now + PROBE_EACH_S


class Proud(Detector):
    """Planted bug: trusts what it believes after a stall."""

    def _woke(self, now: float) -> None:
        self._late_at = inf

    def _decide(self, now: float, effects: list[Effect]) -> None:
        self._hear_until = -inf
        super()._decide(now, effects)


def false_verdicts(make: Callable[..., Detector], size: int, seeds: int = 3) -> int:
    return sum(len(run_site(seed, size, HOUR_S / 2, make=make).false) for seed in range(seeds))


def test_without_pings_lost_heartbeats_make_false_verdicts():
    assert false_verdicts(Deaf, 2) > 0
    assert false_verdicts(Detector, 2) == 0


def test_without_self_suppression_stalled_observers_make_false_verdicts():
    assert run_site(0, 20, 300.0, make=Proud).false
    assert not run_site(0, 20, 300.0).false


def test_a_quorum_of_one_makes_false_verdicts(monkeypatch: pytest.MonkeyPatch):
    assert false_verdicts(Deaf, 5, seeds=1) == 0
    monkeypatch.setattr(detector, "agreed", lambda suspects, hearers, least: suspects > 0)
    assert false_verdicts(Deaf, 5, seeds=1) > 0


def places(verdicts: list[tuple[float, str, str]]) -> list[tuple[int, str, str]]:
    return [(int(at / 10), decider, subject) for at, decider, subject in verdicts]


def test_the_model_that_skips_finds_the_false_verdicts_that_the_whole_simulation_finds():
    found = 0
    for seed in (0, 2):
        whole = run_site(seed, 2, HOUR_S, make=Deaf, crash_each_s=0).false
        skipped, _ = Model(seed, 2, HOUR_S, pings=False).false_verdicts(Deaf)
        assert places(skipped) == places(whole)
        found += len(whole)
    assert found > 3
    assert run_model(3, 2, 20) == (0, pytest.approx(0, abs=1.0))
