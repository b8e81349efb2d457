"""Hooks around the steps of an order, and what their ends mean for the job."""

from typing import Any

import pytest

from node.proto import job as job_core
from node.proto.job import Act, Confirm, Job, Probe
from node.proto.plan import Step, plan
from node.proto.server_view import server_view
from tests.unit.work.test_job_core import PARAMS

ASSET = "b3:" + "3" * 64
WEBHOOK: dict[str, Any] = {
    "name": "ci", "point": "before-deploy", "kind": "webhook", "url": "https://ci.example/x",
    "secret": "hook-ci",
}  # fmt: skip
PLAY: dict[str, Any] = {
    "name": "play", "point": "before-deploy", "kind": "ansible", "asset": "site",
    "asset_id": ASSET, "connection": "local",
}  # fmt: skip
SSH: dict[str, Any] = {
    "name": "reg", "point": "after-deploy", "kind": "ssh", "command": "true",
    "secret": "hook-ssh", "timeout_s": 5,
}  # fmt: skip
HOOKS = [WEBHOOK, PLAY, SSH, {**SSH, "name": "reg2", "repeatable": True}]


def planned(kind: str, hooks: list[dict[str, Any]], **params: Any) -> tuple[Step, ...]:
    return plan(kind, {**PARAMS[kind], **params, "hooks": hooks}, "srv1", True)


def test_nothing_of_a_deploy_begins_before_its_hooks_and_the_last_come_after_all() -> None:
    steps = planned("server.deploy", HOOKS)
    bare = plan("server.deploy", PARAMS["server.deploy"], "srv1", True)
    ids = [step.id for step in steps]
    before = ["hook-1", "hook-2-fetch", "hook-2"]
    assert ids == [*before, *(step.id for step in bare), "hook-3", "hook-4"]
    for step, follows in zip(steps[1:], ids, strict=False):
        assert step.after == (follows,), step.id
    kinds = {step.id: step.kind for step in steps if step.id.startswith("hook")}
    assert kinds == {
        "hook-1": "keyed", "hook-2-fetch": "keyed", "hook-2": "one-shot",
        "hook-3": "one-shot", "hook-4": "set",
    }  # fmt: skip
    assert not any(step.touches for step in steps if step.id.startswith("hook"))
    assert [(s.tries, s.limit_ms) for s in steps[:1]] == [(5, 660_000)]


@pytest.mark.parametrize("kind", ["server.deploy", "server.release"])
def test_a_plan_without_hooks_is_what_it_was(kind: str) -> None:
    assert planned(kind, []) == plan(kind, PARAMS[kind], "srv1", True)


def test_every_arm_of_a_live_boot_waits_for_its_hooks() -> None:
    files = [{"role": role, "name": role, "asset": ASSET} for role in ("kernel", "initrd")]
    boot = {"kind": "live", "cmdline": "", "files": files}
    steps = planned("server.deploy", [WEBHOOK, SSH], boot=boot)
    after = {step.id: step.after for step in steps}
    assert after["fetch-0"] == after["fetch-1"] == ("hook-1",)
    assert after["hook-2"] == ("booted",)
    row = row_of(steps, boot=boot)
    row.update(state="succeeded", touched=True)
    for entry in row["steps"]:
        entry.update(state="done", evidence={"phoned_in": entry["id"] == "booted"})
    assert server_view(row, steps)["boot"]["phoned_in"] is True, "not what the hook said"


def row_of(steps: tuple[Step, ...], **params: Any) -> dict[str, Any]:
    return {
        "id": "job1", "kind": "server.deploy", "site": "lab", "server": "s",
        "state": "queued", "waits_for": None, "attempt": 1, "attempt_first": 1,
        "params": {**PARAMS["server.deploy"], **params}, "steps": job_core.new_steps(steps),
        "started_ms": None, "ended_ms": None, "error": None, "from_state": "available",
        "agent": None,
    }  # fmt: skip


def begun(job: Job, effects: list[Any], now: int) -> list[str]:
    """Go through probes and confirmations; return the steps that are to be done."""
    acts: list[str] = []
    queue = list(effects)
    while queue:
        match queue.pop(0):
            case Confirm(step):
                queue += job.on_confirmed(step, "other", now)
            case Probe(step):
                queue += job.on_probed(step, "unknown", None, now)
            case Act(step):
                acts.append(step)
            case _:
                pass
    return acts


def test_a_hook_that_fails_before_leaves_the_server_as_it_was() -> None:
    steps = planned("server.deploy", [{**WEBHOOK, "tries": 1}, SSH])
    job = Job(row_of(steps), steps)
    assert begun(job, job.start(0), 0) == ["hook-1"]
    job.on_failed("hook-1", "ci.example answered 500", True, 10)
    assert job.row["state"] == "failed"
    assert job.row["error"] == "hook ci (webhook): ci.example answered 500"
    view = server_view(job.row, steps)
    assert (view["state"], view["job"]) == ("available", None)


def test_a_hook_whose_failure_counts_not_is_skipped_and_says_why() -> None:
    steps = planned("server.deploy", [{**WEBHOOK, "tries": 2, "on_failure": "continue"}])
    job = Job(row_of(steps), steps)
    begun(job, job.start(0), 0)
    job.on_failed("hook-1", "ci.example answered 500", True, 10)
    assert job.row["state"] == "retry_wait", "it has its tries all the same"
    assert begun(job, job.on_timer(5_000), 5_000) == ["hook-1"]
    assert begun(job, job.on_failed("hook-1", "again", True, 6_000), 6_000) == ["fetch"]
    entry = job.entry("hook-1")
    assert (entry["state"], entry["error"]) == ("skipped", "again")


@pytest.mark.parametrize(
    ("repeatable", "state"), [(False, "parked"), (True, "running")], ids=str
)
def test_after_a_crash_a_command_is_done_again_only_if_it_may(
    repeatable: bool, state: str
) -> None:
    host = {"host": "10.0.0.1", "host_key": host_key()}
    hook = {**SSH, "point": "before-deploy", **host, "repeatable": repeatable}
    steps = planned("server.deploy", [hook])
    first = Job(row_of(steps), steps)
    assert begun(first, first.start(0), 0) == ["hook-1"]
    again = Job(first.row, steps)
    acts = begun(again, again.start(1_000), 1_000)
    assert (again.row["state"], acts) == (state, ["hook-1"] if repeatable else [])


def test_a_webhook_is_sent_again_after_a_crash() -> None:
    steps = planned("server.deploy", [WEBHOOK])
    first = Job(row_of(steps), steps)
    begun(first, first.start(0), 0)
    again = Job(first.row, steps)
    assert begun(again, again.start(1_000), 1_000) == ["hook-1"]


def test_a_one_shot_that_runs_out_of_its_time_parks() -> None:
    play = {**PLAY, "asset": None, "asset_id": None, "playbook": "site.yml", "timeout_s": 1}
    steps = planned("server.deploy", [play])
    job = Job(row_of(steps), steps)
    assert begun(job, job.start(0), 0) == ["hook-1"]
    job.on_timer(70_000)
    assert job.row["state"] == "parked"
    assert "hook play (ansible) did not end within 1 minutes" in job.row["waits_for"]


def host_key() -> str:
    from tests.support.hook_hosts import new_key

    return new_key()[1]
