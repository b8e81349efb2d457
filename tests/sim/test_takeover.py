"""A job's runner dies at each boundary; another node takes the job to its end."""

import pytest

from tests.sim.detection_scenario import at_share
from tests.sim.takeover_scenario import (
    KINDS,
    PARAMS,
    RESUME_LONG_S_MAX,
    RESUME_S_MAX,
    Killed,
    one_seed,
    wrong,
)


@pytest.fixture(scope="module")
def killed() -> list[Killed]:
    return one_seed(0)


def test_every_kill_of_a_runner_is_survived_by_its_job_in_time(killed: list[Killed]):
    again = "scripts/sim --scenario takeover --seed 0 --seeds 1"
    assert [wrong(one) for one in killed if wrong(one)] == [], again
    assert len(killed) > 10 * len(KINDS) * len(PARAMS)
    fast = [k.resume_s for k in killed if k.resume_s is not None and " 3 redfish" in k.case]
    slow = [k.resume_s for k in killed if k.resume_s is not None and " 3 redfish" not in k.case]
    assert 15.0 < at_share(fast, 0.5) <= at_share(fast, 0.95) <= RESUME_S_MAX
    assert 15.0 < at_share(slow, 0.5) <= at_share(slow, 0.95) <= RESUME_LONG_S_MAX


def test_a_runner_that_dies_during_a_flash_leaves_it_to_a_person(killed: list[Killed]):
    flashes = [one for one in killed if one.case.startswith("flash 3")]
    assert {one.state for one in flashes} == {"succeeded", "parked"}
    assert all(one.flashes <= 1 for one in flashes)
