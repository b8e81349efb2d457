"""What is plain of a job from here and now, though no row says it."""

from typing import Any

import pytest

from mesh.rest import views
from mesh.rest.job_view import Here, as_seen

NOW = 1_800_000_000_000
HERE = Here(now_ms=NOW, name="this hub", reachable={"me", "n1"}, members={"n1": "a", "n2": "b"})


def seen(**body: Any) -> tuple[str, str | None, str | None]:
    base = {"id": "j", "site": "lab", "state": "running", "runner": "n1", "waits_for": "x"}
    job = as_seen(views.job({**base, **body}), HERE)
    return job["state"], job["waits_for"], job["error"]


def test_a_job_with_its_runner_in_reach_is_shown_as_it_is() -> None:
    assert seen() == ("running", "x", None)


@pytest.mark.parametrize("state", ["running", "retry_wait", "held", "queued", "blocked"])
def test_a_runner_out_of_reach_or_gone_is_named(state: str) -> None:
    assert seen(state=state, runner="n2") == (
        state, "its runner b is out of reach of this hub", None,
    )  # fmt: skip
    assert seen(state=state, runner="n3") == (
        state, "its runner n3 is no member any more: cancel the job", None,
    )  # fmt: skip


@pytest.mark.parametrize("state", ["succeeded", "failed", "cancelled", "parked"])
def test_what_has_ended_needs_no_runner(state: str) -> None:
    assert seen(state=state, runner="n3", waits_for=None) == (state, None, None)


def test_an_order_that_nobody_took_up_in_time_has_failed() -> None:
    order = {"state": "queued", "runner": None, "waits_for": "x"}
    assert seen(**order, not_after_ms=NOW) == ("queued", "x", None)
    assert seen(**order) == ("queued", "x", None)
    assert seen(**order, not_after_ms=NOW - 1) == (
        "failed", None, "the order ran out of time before a node of site lab took it up",
    )  # fmt: skip
