"""The data model holds in random histories, and the checker finds what is planted."""

import pytest

from tests.sim.model import Bugs, run

SEEDS = range(40)


@pytest.mark.parametrize("seed", SEEDS)
def test_model_holds_in_random_history(seed):
    result = run(seed)
    assert result.wrong == "", f"seed {seed}: {result.wrong}"
    assert result.writes > 500


def test_at_rest_little_more_is_stored_than_lives():
    results = [run(seed) for seed in range(12)]
    stored = sum(result.stored for result in results)
    assert stored <= 1.1 * sum(result.live for result in results)


@pytest.mark.parametrize(
    ("bugs", "least_of_20"),
    [
        (Bugs(keep_below_base=True), 18),
        (Bugs(markers_at_once=True), 2),
        (Bugs(torn_pulls=True), 3),
        (Bugs(leak_scopes=True), 20),
    ],
    ids=["rows below base are kept", "markers go at once", "pulls are torn", "scopes leak"],
)
def test_a_planted_bug_is_found(bugs, least_of_20):
    assert sum(run(seed, bugs).wrong != "" for seed in range(20)) >= least_of_20
