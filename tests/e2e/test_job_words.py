"""Words about jobs in a real browser: skip, archive, hold and let go, kill."""

from collections.abc import Generator
from typing import Any

import pytest
from chromium import CHROMIUM, Visit, chromium, sign_in, visit

from tests.support.fleet import Fleet, fleet, one_sentence, run, until

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed"),
]


@pytest.fixture(scope="module")
def rack(tmp_path_factory: pytest.TempPathFactory) -> Generator[Fleet]:
    with fleet(tmp_path_factory.mktemp("words"), 1) as made:
        made.start_sites()
        made.accept(1)
        yield made


@pytest.fixture(scope="module")
def at(rack: Fleet) -> Generator[Visit]:
    url = f"https://127.0.0.1:{rack.hub_port}"
    with chromium() as browser, visit(browser, url) as made:
        sign_in(made, "admin", (rack.hub / "admin-password").read_text().strip())
        yield made
        assert made.complaints == []


def say(at: Visit, job: str, word: str, button: str, reason: str) -> None:
    """Unfold a word on the job's page, give the reason and send it."""
    at.open(f"/jobs/{job}")
    at.page.click(f"#{word} summary")
    at.page.fill(f"#{word} input[name=reason]", reason)
    at.page.click(f"#{word} button:has-text('{button}')")


def state(rack: Fleet, job: str, *states: str) -> dict[str, Any]:
    """Wait until the hub shows the job in one of these states."""
    found: dict[str, Any] = until(
        f"job {job} is {' or '.join(states)}",
        lambda: (seen := rack.job(job, rack.hub))["state"] in states and seen,
        60,
    )
    return found


def test_a_step_is_skipped_and_its_job_leaves_the_list(rack: Fleet, at: Visit) -> None:
    rack.set_bmc_secret("wrong")
    job = rack.order("server", "power", "srv1", "off", "--yes")
    assert "srv1" in str(state(rack, job, "failed")["server_name"])
    say(at, job, "skip", "Skip the step", "seen off in the rack")
    done = state(rack, job, "succeeded")
    assert done["steps"][0]["state"] == "skipped"
    assert done["steps"][0]["evidence"]["reason"] == "seen off in the rack"
    rack.set_bmc_secret(rack.bmc_login()["password"])
    shown = run("job", "show", job, "--data", rack.hub)
    assert "  skipped   power" in shown.out
    assert "reason: seen off in the rack" in shown.out
    again = run("job", "skip", job, "--reason", "x", "--wait", "--data", rack.hub)
    assert again.code == 1
    assert "the job is succeeded" in one_sentence(again)
    at.open(f"/jobs/{job}")
    at.page.click("button:has-text('Archive')")
    until("it is archived", lambda: rack.job(job, rack.hub)["archived"])
    assert job not in run("job", "list", "--data", rack.hub).out
    assert job in run("job", "list", "--all", "--data", rack.hub).out


def test_a_job_at_a_silent_bmc_is_held_let_go_and_another_one_killed(
    rack: Fleet, at: Visit
) -> None:
    rack.pause("rack")
    try:
        job = rack.order("server", "power", "srv1", "on", "--yes")
        state(rack, job, "running", "retry_wait")
        say(at, job, "hold", "Hold the job", "the rack is moved")
        held = state(rack, job, "held")
        assert held["waits_for"].endswith("(the rack is moved)")
        assert held["waits_for"].startswith("a person: held by admin@")
        rack.go_on("rack")
        at.open(f"/jobs/{job}")
        at.page.click("button:has-text('Let go on')")
        state(rack, job, "succeeded")
        rack.pause("rack")
        job = rack.order("server", "power", "srv1", "off", "--yes")
        state(rack, job, "running", "retry_wait")
        say(at, job, "kill", "Kill the job", "nobody answers")
        dead = state(rack, job, "failed")
        assert "(nobody answers): nobody knows how srv1 stands" in dead["error"]
    finally:
        rack.go_on("rack")
    rack.no_traceback()
