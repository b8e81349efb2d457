"""Who drives a device when nodes stop, die and lose each other; what each rule is good for."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from node.proto.tenure import Grant, Tenure
from tests.sim import work_node, work_runner
from tests.sim.fencing_scenario import COUNTED, GUARD30, NAIVE, OURS, one_run, one_seed
from tests.sim.work_node import Node
from tests.sim.work_site import Policy

SEEDS = 1000


def test_a_thousand_seeds_drive_no_device_twice_and_a_bare_lease_does():
    sums = {policy.name: Counter[str]() for policy in (OURS, NAIVE, GUARD30)}
    for seed in range(SEEDS):
        found, _ = one_seed(seed)
        again = f"scripts/sim --scenario fencing --seed {seed} --seeds 1"
        assert not any(found[OURS.name][name] for name in (*COUNTED, "unfinished")), again
        for name, counted in found.items():
            sums[name] += counted
    assert sums[OURS.name]["taken_over"] > SEEDS / 10
    assert sums[OURS.name]["succeeded"] > SEEDS / 2
    for name in COUNTED:
        assert sums[NAIVE.name][name] > 0, name
    assert 0 < sums[GUARD30.name]["stale_actions"] < sums[NAIVE.name]["stale_actions"]


def test_a_seed_gives_one_trace():
    assert one_seed(5) == one_seed(5)
    assert one_seed(5)[1] != one_seed(9)[1]


class Hasty(Tenure):
    """Planted bug: no guard where there is no fence."""

    def may_claim(self, holder: str, fenced: bool, now: float) -> bool:
        return super().may_claim(holder, True, now)

    def judge(
        self, job: str, claim: Grant, named: Grant, row: Grant | None, fenced: bool, now: float
    ) -> None:
        super().judge(job, claim, named, row, True, now)


def _make_hasty(policy: Policy, me: str, now: float, grants: dict[str, Grant]) -> Tenure:
    return Hasty(me, policy.times, now, grants)


def _never_asks_its_lease(node: Node) -> bool:
    return node.row is not None and node.row[1]["runner"] == node.name


def _tells_nobody(runner: work_runner.Runner, step: str) -> Any:
    runner.tell(lambda now: runner.job.on_confirmed(step, "nobody", now))
    yield from ()


def _goes_alone(_runner: work_runner.Runner) -> bool:
    return True


def _shuts_nobody_out(_runner: work_runner.Runner) -> Any:
    yield from ()


def _doubts_nothing(row: dict[str, Any]) -> dict[str, Any]:
    return row


@pytest.mark.parametrize(
    ("where", "name", "bug", "seed", "seen"),
    [
        (Policy, "make", _make_hasty, 281, "stale_actions"),
        (Node, "holds", _never_asks_its_lease, 92, "stale_actions"),
        (work_runner.Runner, "_shut_out", _shuts_nobody_out, 272, "stale_actions"),
        (work_runner.Runner, "_confirm", _tells_nobody, 384, "one_shot_twice"),
        (work_runner.Runner, "_may_go_alone", _goes_alone, 356, "one_shot_twice"),
        (work_node, "doubted", _doubts_nothing, 706, "one_shot_twice"),
    ],
)
def test_without_one_of_the_rules_a_device_is_driven_twice(
    monkeypatch: pytest.MonkeyPatch,
    where: Any,
    name: str,
    bug: Callable[..., Any],
    seed: int,
    seen: str,
):
    assert not one_run(seed, OURS)[0][seen]
    monkeypatch.setattr(where, name, bug)
    assert one_run(seed, OURS)[0][seen]
