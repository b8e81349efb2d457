"""What a person's word makes of a job: every word in every state, and what it must not do."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.proto import job as j
from node.proto import job_words
from node.proto.job import Act, Confirm, Ended, Job
from node.proto.plan import Step, may_skip, plan
from node.proto.server_view import server_view

BY, WHY = "ann@hub", {"reason": "seen by eye"}
PARAMS: dict[str, dict[str, Any]] = {
    "server.deploy": {"server": "s", "asset": "b3:" + "ab" * 32, "image": "d", "hostname": "w"},
    "server.release": {"server": "s"},
}
FLASH = (
    Step(id="flash", name="flash BIOS", kind="one-shot", do="flash"),
    Step(id="look", name="look", kind="observe", do="x", after=("flash",)),
)
STATES = ("queued", "blocked", "running", "retry_wait", "held", "parked", "failed",
          "succeeded", "cancelled")  # fmt: skip
ENTRIES = ("waiting", "running", "done", "failed", "parked", "skipped")


def row_of(kind: str, steps: tuple[Step, ...], **more: Any) -> dict[str, Any]:
    row = {
        "id": "job1", "kind": kind, "server": "s", "server_name": "srv1", "state": "queued",
        "params": PARAMS.get(kind, {}), "attempt": 1, "attempt_first": 1, "error": None,
        "steps": j.new_steps(steps), "started_ms": 1, "ended_ms": None, "agent": None,
        "waits_for": None, "from_state": "available", "runner": "n1",
    }  # fmt: skip
    return {**row, **more}


def say(word: str, row: dict[str, Any], steps: tuple[Step, ...], done: bool) -> str | None:
    match word:
        case "retry":
            return job_words.reopen(row, steps, 9)
        case "skip":
            return job_words.skip(row, steps, WHY, BY, 9)
        case "confirm":
            return job_words.confirm(row, steps, {**WHY, "done": done}, BY, 9)
        case "kill":
            return job_words.kill(row, WHY, BY, 9)
        case "hold":
            return job_words.hold(row, WHY, BY, 9)
        case "unhold":
            return job_words.unhold(row)
        case _:
            return job_words.archive(row, 9)


@given(
    word=st.sampled_from(["retry", "skip", "confirm", "kill", "hold", "unhold", "archive"]),
    state=st.sampled_from(STATES),
    entries=st.lists(st.sampled_from(ENTRIES), min_size=10, max_size=10),
    kind=st.sampled_from(["server.deploy", "server.release", "flash"]),
    held=st.booleans(),
    done=st.booleans(),
)
def test_a_word_is_refused_without_a_trace_or_makes_a_job_that_can_go_on(
    word: str, state: str, entries: list[str], kind: str, held: bool, done: bool
) -> None:
    steps = FLASH if kind == "flash" else plan(kind, PARAMS[kind], "srv1", True)
    row = row_of(kind, steps, state=state, held={"by": "bob"} if held else None)
    for entry, at in zip(row["steps"], entries, strict=False):
        entry["state"] = at
    before = copy.deepcopy(row)
    refusal = say(word, row, steps, done)
    if refusal is not None:
        assert row == before
        assert refusal[0].islower() and "\n" not in refusal
        return
    was = {e["id"]: e["state"] for e in before["steps"]}
    for step, entry in zip(steps, row["steps"], strict=True):
        if entry["state"] == "done" and was[step.id] != "done":
            assert word == "confirm" and done and step.kind == "one-shot"
            assert entry["evidence"]["confirmed by"] == BY
        if entry["state"] == "skipped" and was[step.id] != "skipped":
            assert word == "skip" and may_skip(step)
            assert entry["evidence"] == {"skipped by": BY, "reason": "seen by eye"}
        if word == "kill":
            assert entry["state"] not in {"running", "parked"}
    assert row["state"] in STATES
    if row["state"] == "queued" and word in ("retry", "skip", "confirm"):
        assert {e["state"] for e in row["steps"]} <= {"waiting", "done", "skipped"}
        assert row["ended_ms"] is None and row["error"] is None
        Job(row, steps).start(10)  # what was said leaves a job that can be begun


@pytest.mark.parametrize(
    ("kind", "needed"), [("server.deploy", "write"), ("server.release", "wipe")]
)
def test_no_word_stands_in_for_what_was_written_or_wiped(kind: str, needed: str) -> None:
    steps = plan(kind, PARAMS[kind], "srv1", True)
    row = row_of(kind, steps, state="failed")
    for entry in row["steps"]:
        entry["state"] = "failed" if entry["id"] == needed else "waiting"
    refusal = job_words.skip(row, steps, WHY, BY, 9)
    assert refusal is not None and "cannot be skipped: what follows rests on it" in refusal
    refusal = job_words.skip(row, steps, {**WHY, "step": "off"}, BY, 9)
    assert refusal == f"step 'off' of the job has not failed; those that may be meant: {needed}"


def test_a_killed_job_says_that_nobody_knows_and_its_server_has_failed() -> None:
    steps = plan("server.deploy", PARAMS["server.deploy"], "srv1", True)
    row = row_of("server.deploy", steps, state="running")
    row["steps"][0]["state"] = "running"
    assert job_words.kill(row, WHY, BY, 9) is None
    said = "killed by ann@hub (seen by eye): nobody knows how srv1 stands, look at it"
    assert (row["state"], row["error"]) == ("failed", said)
    assert server_view(row, steps) == {
        "state": "deploying failed", "job": None, "error": said,
    }  # fmt: skip
    queued = row_of("server.deploy", steps, started_ms=None)
    assert job_words.kill(queued, WHY, BY, 9) is None
    assert queued["state"] == "cancelled"  # it had not begun: nothing is unknown


@pytest.mark.parametrize("done", [True, False])
def test_a_one_shot_runs_again_only_when_a_person_says_that_it_was_not_done(done: bool) -> None:
    row = row_of("flash", FLASH, state="running")
    row["steps"][0].update(state="running", attempts=1)
    job = Job(row, FLASH)
    job.start(1)
    job.on_probed("flash", "unknown", None, 2)
    assert row["state"] == "parked"
    assert job_words.confirm(row, FLASH, {**WHY, "done": done}, BY, 3) is None
    again = Job(row, FLASH)
    effects = again.start(4)
    acted = [e for e in effects if isinstance(e, Act | Confirm)]
    assert acted == ([Act("look")] if done else [Confirm("flash")])
    assert job_words.confirm(row, FLASH, {**WHY, "done": True}, BY, 5) is not None


def test_a_held_job_ends_its_step_and_begins_no_other_until_it_is_let_go() -> None:
    steps = (Step(id="a", name="a", kind="observe", do="x"),
             Step(id="b", name="b", kind="observe", do="x", after=("a",), tries=3))  # fmt: skip
    job = Job(row_of("x", steps), steps)
    assert job.start(1)[-1] == Act("a")
    assert job.on_hold({"by": BY, "reason": "rack is moved"}, 2)
    assert job.on_hold({"by": "bob"}, 2) == []  # it is held already
    assert job.row["state"] == "running"
    assert not [e for e in job.on_done("a", None, 3) if isinstance(e, Act | Ended)]
    assert (job.row["state"], job.deadline) == ("held", None)
    assert job.row["waits_for"] == "a person: held by ann@hub (rack is moved)"
    assert job.on_timer(10**9) == []
    again = Job(copy.deepcopy(job.row), steps)  # the node was restarted
    assert not [e for e in again.start(4) if isinstance(e, Act)]
    assert again.row["state"] == "held"
    assert again.on_hold(None, 5)[-1] == Act("b")
    assert again.row["state"] == "running"
    again.on_hold({"by": BY}, 6)
    again.on_failed("b", "no answer", True, 7)
    assert (again.row["state"], again.deadline) == ("held", None)
    assert Act("b") in again.on_hold(None, 10**7)
    assert again.on_done("b", None, 10**7 + 1)[-1] == Ended("succeeded")
