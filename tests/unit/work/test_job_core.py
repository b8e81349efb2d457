"""The job machine in virtual time: order of effects, crashes at every boundary, back-off."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import pytest

from node.proto import job as j
from node.proto import job_words
from node.proto.job import Act, Confirm, Ended, Job, Note, Probe, Save, Stop
from node.proto.plan import Step, plan
from node.proto.server_view import server_view

ASSET = "b3:" + "ab" * 32
PARAMS: dict[str, dict[str, Any]] = {
    "server.accept": {"machine": "52:54:00:00:00:01", "name": "srv1", "server": "s"},
    "server.deploy": {"server": "s", "asset": ASSET, "image": "demo", "hostname": "web1"},
    "server.release": {"server": "s"},
    "server.power": {"server": "s", "on": True},
}


def new_row(kind: str, steps: tuple[Step, ...]) -> dict[str, Any]:
    return {
        "id": "job1", "kind": kind, "site": "lab", "server": "s", "state": "queued",
        "waits_for": None, "params": PARAMS.get(kind, {}), "attempt": 1, "attempt_first": 1,
        "steps": j.new_steps(steps), "started_ms": None, "ended_ms": None, "error": None,
        "from_state": "available", "agent": None,
    }  # fmt: skip


class Crash(Exception):
    """The node died here."""


class World:
    """A server behind a BMC with the contract's behaviour, and the disk's row of a job.

    Every durable write and every side effect passes ``boundary`` before and after.
    """

    def __init__(self, crash_at: frozenset[int] = frozenset()) -> None:
        self.crash_at = crash_at
        self.boundaries = 0
        self.durable: dict[str, Any] | None = None
        self.power, self.boot, self.disk = "off", "disk", "old"
        self.first_boot = False
        self.phoned = False
        self.cached = False
        self.writes: list[str] = []
        self.flashed = 0
        self.begun_elsewhere: set[str] = set()

    def boundary(self) -> None:
        self.boundaries += 1
        if self.boundaries in self.crash_at:
            raise Crash

    def save(self, row: dict[str, Any]) -> None:
        self.boundary()
        self.durable = copy.deepcopy(row)
        self.boundary()

    def act(self, step: Step) -> dict[str, Any]:
        assert self.durable is not None
        entry = next(e for e in self.durable["steps"] if e["id"] == step.id)
        assert entry["state"] == "running", "a side effect without a durable begin"
        if step.kind != "observe":
            assert step.id in self.begun_elsewhere or entry["solo"], "nobody else knows"
        self.boundary()
        evidence = self.change(step)
        self.boundary()
        return evidence

    def change(self, step: Step) -> dict[str, Any]:
        match step.do:
            case "power":
                on = step.args["on"]
                if (self.power == "on") != on:
                    self.writes.append(step.id)
                self.power = "on" if on else "off"
                if on and self.boot == "disk" and self.first_boot:
                    self.phoned = True
                if not on:
                    self.phoned = False
            case "boot":
                self.boot = step.args["device"]
            case "fetch":
                self.cached = True
            case "agent" if step.args["do"] == "write_image":
                assert (self.power, self.boot) == ("on", "network")
                self.disk = "image"
            case "agent" if step.args["do"] == "first_boot":
                assert self.disk == "image"
                self.first_boot = True
            case "agent" if step.args["do"] == "wipe":
                self.disk, self.first_boot = "zeros", False
            case "phone-in":
                assert self.phoned
            case "flash":
                self.flashed += 1
        return {"seen": True}


def probe(world: World, step: Step) -> tuple[Any, Any]:
    if step.do == "power":
        return ("done" if (world.power == "on") == step.args["on"] else "not done"), {}
    if step.do == "boot":
        return ("done" if world.boot == step.args["device"] else "not done"), {}
    if step.do == "fetch":
        return ("done" if world.cached else "not done"), {}
    return "unknown", None


def run(world: World, kind: str, steps: tuple[Step, ...], witness: str | None = "other") -> Job:
    """Run until the end, restarting after each crash from what is durable."""
    now = 1_000
    if world.durable is None:
        world.durable = new_row(kind, steps)
    for _ in range(20):
        job = Job(copy.deepcopy(world.durable), steps)
        if job.ended:
            return job
        try:
            todo = job.start(now)
            while todo:
                effect, now = todo.pop(0), now + 10
                match effect:
                    case Save():
                        world.save(job.row)
                    case Confirm(name):
                        if witness is not None:
                            world.begun_elsewhere.add(name)
                        todo += job.on_confirmed(name, witness, now)
                    case Probe(name):
                        seen, evidence = probe(world, job.step(name))
                        todo += job.on_probed(name, seen, evidence, now)
                    case Act(name):
                        todo += job.on_done(name, world.act(job.step(name)), now)
                    case Ended() | Note() | Stop():
                        pass
            assert job.ended
            return job
        except Crash:
            continue
    raise AssertionError("never came to an end")


CASES = [
    (kind, bmc)
    for kind in ("server.accept", "server.deploy", "server.release", "server.power")
    for bmc in (True, False)
    if bmc or kind != "server.power"
]


def check(kind: str, bmc: bool, world: World, job: Job) -> None:
    assert job.row["state"] == "succeeded"
    assert [e["state"] for e in job.row["steps"]] == ["done"] * len(job.plan)
    assert world.durable == job.row
    view = server_view(job.row, job.plan)
    if kind == "server.deploy":
        assert (world.disk, view["state"], view["cleaned"]) == ("image", "active", False)
        if bmc:
            assert (world.power, world.boot, world.phoned) == ("on", "disk", True)
            assert world.writes.count("restart-on") == 1
    if kind == "server.release":
        assert (world.disk, view["state"], view["cleaned"]) == ("zeros", "available", True)
        assert not bmc or world.power == "off"
    if kind == "server.accept":
        assert (world.disk, view["state"]) == ("old", "available")
        assert "cleaned" not in view
    if kind == "server.power":
        assert (world.power, view) == ("on", {"job": None})


def start_world(kind: str, bmc: bool, crash_at: frozenset[int] = frozenset()) -> World:
    world = World(crash_at)
    if not bmc:
        world.power, world.boot, world.phoned = "on", "network", True
    return world


@pytest.mark.parametrize(("kind", "bmc"), CASES)
def test_killed_at_every_boundary_the_job_completes_once(kind: str, bmc: bool) -> None:
    steps = plan(kind, PARAMS[kind], "srv1", bmc)
    clean = start_world(kind, bmc)
    check(kind, bmc, clean, run(clean, kind, steps))
    assert clean.boundaries >= 4
    for at in range(1, clean.boundaries + 1):
        world = start_world(kind, bmc, frozenset({at}))
        check(kind, bmc, world, run(world, kind, steps))
        assert world.boundaries > at or at == clean.boundaries


@pytest.mark.parametrize(("kind", "bmc"), CASES)
def test_killed_twice_at_every_pair_of_boundaries(kind: str, bmc: bool) -> None:
    steps = plan(kind, PARAMS[kind], "srv1", bmc)
    clean = start_world(kind, bmc)
    run(clean, kind, steps)
    last = clean.boundaries + 8
    for pair in itertools.combinations(range(1, last), 2):
        world = start_world(kind, bmc, frozenset(pair))
        check(kind, bmc, world, run(world, kind, steps))


def test_with_no_other_node_in_reach_every_begin_is_marked_solo() -> None:
    steps = plan("server.release", PARAMS["server.release"], "srv1", True)
    job = run(World(), "server.release", steps, witness=None)
    solo = {e["id"]: e["solo"] for e in job.row["steps"]}
    assert solo.pop("ramdisk") is False  # observed, nothing was done
    assert all(solo.values())


FLASH = (Step(id="flash", name="flash BIOS", kind="one-shot", do="flash"),)


def test_one_shot_runs_at_most_once_whatever_crashes() -> None:
    clean = World()
    assert run(clean, "x", FLASH).row["state"] == "succeeded"
    for at in range(1, clean.boundaries + 1):
        world = World(frozenset({at}))
        job = run(world, "x", FLASH)
        assert world.flashed <= 1
        assert job.row["state"] == (
            "succeeded" if at <= 1 or at >= clean.boundaries else "parked"
        )
        if job.row["state"] == "parked":
            assert "nobody knows whether it was done" in job.row["waits_for"]


def diamond() -> tuple[Step, ...]:
    return (
        Step(id="a", name="a", kind="set", do="x"),
        Step(id="b", name="b", kind="set", do="x", after=("a",), tries=2),
        Step(id="c", name="c", kind="set", do="x", after=("a",)),
        Step(id="d", name="d", kind="observe", do="x", after=("b", "c"), waits="waits for d"),
    )


def acts(effects: list[Any]) -> list[str]:
    return [e.step for e in effects if isinstance(e, Act)]


def begin(job: Job, effects: list[Any], now: int) -> list[Any]:
    """Answer every Confirm with a witness."""
    out = list(effects)
    for effect in effects:
        if isinstance(effect, Confirm):
            out += job.on_confirmed(effect.step, "other", now)
    return out


def test_a_diamond_runs_its_arms_side_by_side() -> None:
    job = Job(new_row("x", diamond()), diamond())
    assert acts(begin(job, job.start(0), 0)) == ["a"]
    assert acts(begin(job, job.on_done("a", {}, 10), 10)) == ["b", "c"]
    assert acts(begin(job, job.on_done("c", {}, 20), 20)) == []
    assert acts(begin(job, job.on_done("b", {}, 30), 30)) == ["d"]
    assert job.row["waits_for"] == "waits for d"
    assert job.on_done("d", {"x": 1}, 40)[-1] == Ended("succeeded")


def test_a_passing_failure_waits_and_tries_again_then_fails() -> None:
    job = Job(new_row("x", diamond()), diamond())
    begin(job, job.start(0), 0)
    begin(job, job.on_done("a", {}, 10), 10)
    job.on_done("c", {}, 20)
    effects = job.on_failed("b", "BMC says 503", True, 30)
    assert Save() in effects
    assert job.row["state"] == "retry_wait"
    assert job.row["waits_for"] == "waits 2 s to try b again: BMC says 503"
    assert job.deadline == 2030
    assert job.on_timer(2029) == []
    assert acts(begin(job, job.on_timer(2030), 2030)) == ["b"]
    effects = job.on_failed("b", "BMC says 503", True, 2040)
    assert effects[-1] == Ended("failed")
    assert job.row["error"] == "b: BMC says 503"
    assert job.deadline is None


def test_a_failed_arm_lets_the_other_end_and_starts_nothing() -> None:
    job = Job(new_row("x", diamond()), diamond())
    begin(job, job.start(0), 0)
    begin(job, job.on_done("a", {}, 10), 10)
    effects = job.on_failed("b", "no", False, 20)
    assert job.row["state"] == "running"
    effects = job.on_done("c", {}, 30)
    assert effects[-1] == Ended("failed")
    assert job.entry("d")["state"] == "waiting"


def test_progress_is_saved_every_two_seconds_only() -> None:
    steps = diamond()[:1]
    job = Job(new_row("x", steps), steps)
    begin(job, job.start(0), 0)
    assert job.on_progress("a", 1, 10, 100) == []
    assert job.on_progress("a", 2, 10, 200) == []
    assert job.deadline == 2000
    assert job.on_timer(2000) == [Save(urgent=False)]
    assert job.on_progress("a", 2, 10, 9000) == []  # nothing new
    assert job.on_progress("a", 11, 10, 9000) == []  # nonsense
    assert job.on_progress("a", 9, 10, 9000) == [Save(urgent=False)]


def test_a_step_that_does_not_end_is_stopped_with_a_sentence() -> None:
    steps = (
        Step(id="a", name="wait", kind="observe", do="x", waits="waits for b", limit_ms=60_000),
    )
    job = Job(new_row("x", steps), steps)
    job.start(0)
    effects = job.on_timer(60_000)
    assert effects[0] == Stop("a")
    assert job.row["error"] == "wait: wait did not end within 1 minutes: it waits for b"


def test_cancel_stops_what_runs_and_late_answers_change_nothing() -> None:
    job = Job(new_row("x", diamond()), diamond())
    begin(job, job.start(0), 0)
    effects = job.on_cancel("ann", 10)
    assert effects[0] == Stop("a")
    assert effects[-1] == Ended("cancelled")
    row = copy.deepcopy(job.row)
    assert job.on_done("a", {}, 20) == []
    assert job.on_failed("a", "x", True, 20) == []
    assert job.on_progress("a", 1, 2, 20) == []
    assert job.on_cancel("ann", 30) == []
    assert job.on_timer(10**9) == []
    assert job.row == row


def test_a_lost_machine_begins_again_at_most_three_attempts() -> None:
    steps = plan("server.deploy", PARAMS["server.deploy"], "srv1", True)
    job = Job(new_row("server.deploy", steps), steps)
    now = 0
    effects = begin(job, job.start(now), now)
    effects += begin(job, job.on_probed("fetch", "done", {}, now), now)
    for attempt in (1, 2, 3):
        assert job.row["attempt"] == attempt
        for name in ("power-off", "boot-network", "power-on", "ramdisk"):
            effects = begin(job, effects, now)
            assert job.entry(name)["state"] == "running"
            effects = job.on_done(name, {}, now)
        begin(job, effects, now)
        assert job.entry("write")["state"] == "running"
        effects = job.on_lost("write", "silent for 10 minutes", now)
    assert effects[-1] == Ended("failed")
    assert job.row["error"] == "write image: silent for 10 minutes"
    view = server_view(job.row, steps)
    assert view["state"] == "deploying failed"
    assert view["cleaned"] is False


def test_retry_goes_back_to_where_the_machine_can_be_had_again() -> None:
    steps = plan("server.deploy", PARAMS["server.deploy"], "srv1", True)
    row = new_row("server.deploy", steps)
    for entry in row["steps"][:5]:
        entry["state"] = "done"
    row["steps"][5].update(state="failed", error="disk smaller than the image")
    row.update(state="failed", error="x", touched=True)
    assert job_words.reopen(row, steps, 5) is None
    assert [e["state"] for e in row["steps"]] == ["done"] + ["waiting"] * 10
    assert (row["attempt"], row["attempt_first"], row["state"]) == (2, 2, "queued")
    assert job_words.reopen(row, steps, 6) == (
        "the job is queued; only a failed, parked or cancelled job is tried again"
    )
    row.update(state="failed", attempt=250)
    assert "give a new order" in str(job_words.reopen(row, steps, 7))


def test_cancelled_before_anything_was_touched_the_server_goes_back() -> None:
    steps = plan("server.deploy", PARAMS["server.deploy"], "srv1", True)
    job = Job(new_row("server.deploy", steps), steps)
    job.start(0)
    job.on_cancel("ann", 1)
    assert server_view(job.row, steps)["state"] == "available"
    job = Job(new_row("server.deploy", steps), steps)
    begin(job, job.start(0), 0)
    job.on_probed("fetch", "done", {}, 1)
    job.on_cancel("ann", 2)
    assert server_view(job.row, steps)["state"] == "deploying failed"


def test_without_a_bmc_the_job_says_who_has_to_do_what() -> None:
    steps = plan("server.release", {"server": "s"}, "srv1", False)
    job = Job(new_row("server.release", steps), steps)
    job.start(0)
    assert job.row["waits_for"] == "power it on by hand: srv1 has no BMC"
    job.on_waits("ramdisk", "waits for srv1 to restart: its idle ramdisk was told to", 5)
    assert job.row["waits_for"].startswith("waits for srv1 to restart")
    job.on_waits("ramdisk", None, 6)
    assert job.row["waits_for"] == "power it on by hand: srv1 has no BMC"


def test_retry_wait_survives_a_clock_that_was_set_back() -> None:
    steps = diamond()[:2]
    row = new_row("x", steps)
    row["steps"][0]["state"] = "done"
    row["steps"][1].update(state="waiting", next_ms=10**15, attempts=1, error="503")
    row["state"] = "retry_wait"
    job = Job(row, steps)
    job.start(1000)
    assert job.deadline == 61_000


def at_the_ramdisk(bmc: bool) -> Job:
    steps = plan("server.release", PARAMS["server.release"], "srv1", bmc)
    row = new_row("server.release", steps)
    for entry in row["steps"][: [s.id for s in steps].index("ramdisk")]:
        entry["state"] = "done"
    job = Job(row, steps)
    job.start(0)
    return job


def test_a_machine_that_booted_its_disk_is_switched_off_at_once_a_bounded_number_of_times() -> (
    None
):
    job = at_the_ramdisk(bmc=True)
    effects = job.on_strayed(5)
    assert (job.row["attempt"], job.current().id) == (2, "power-off")  # type: ignore[union-attr]
    assert effects[-1] == Confirm("power-off")
    assert job.on_strayed(6) == []  # not at the ramdisk now
    job.row["attempt"] = 3
    late = Job(job.row, job.plan)
    for entry in late.row["steps"][:3]:
        entry["state"] = "done"
    late.start(7)
    assert late.on_strayed(8)[-1] == Ended("failed")
    assert "booted from its disk" in late.row["error"]


def test_without_a_bmc_a_machine_that_booted_its_disk_is_waited_for_by_hand() -> None:
    job = at_the_ramdisk(bmc=False)
    job.on_strayed(5)
    assert job.row["waits_for"] == (
        "the machine booted from its disk instead of the network:"
        " restart it by hand from the network"
    )
    assert (job.row["attempt"], job.row["state"]) == (1, "running")
