"""One job at its runner in the simulator: the real job machine, over a device that is far away.

Each message to the device asks the lease first, and is then on its way whatever becomes of the
runner. Rules: a new runner shuts other sessions out before it looks at a device that has any;
without, it waits for the orders of its own earlier life. In a site of three nobody works on
alone: a begin that no other node has told is not acted on.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from node.proto import job as j
from node.proto.job import Job
from node.proto.plan import Step
from tests.sim.work_device import AGENT_S, UNAUTHORIZED
from tests.sim.work_process import Arm, Steps, Task, sleep

if TYPE_CHECKING:
    from tests.sim.work_node import Node

RECEIPT_S: Final = 5.0
FETCH_S: Final = 3.0
READS_MAX: Final = 4

Event = Callable[[int], list[j.Effect]]


class Gone(Exception):
    """The job is not ours any more, or its device will not have us."""


class Runner:
    """Works on the job until it ends here or is taken away."""

    def __init__(self, node: "Node", row: dict[str, Any], taken: bool) -> None:
        self.node, self.site = node, node.site
        self.epoch: int = row["epoch"]
        self.taken = taken
        self.job = Job(row, self.site.plan)
        self.command: str | None = None
        """The step that the machine's agent is to do."""
        self._token: int | None = None
        self._events: list[Event] = []
        self._wake: Callable[[Any], None] | None = None
        self._tasks: list[Task] = []

    def start(self) -> None:
        """Begin."""
        self._spawn(self._loop())

    def stop(self) -> None:
        """End at once."""
        for task in self._tasks:
            task.cancel()

    # -- the loop --------------------------------------------------------------------------

    def _ms(self) -> int:
        return int(self.node.process.now() * 1000)

    def _spawn(self, steps: Steps) -> None:
        task = Task(self._guarded(steps))
        self._tasks = [one for one in self._tasks if not one.over]
        self._tasks.append(task)
        task.start()

    def _guarded(self, steps: Steps) -> Steps:
        try:
            yield from steps
        except Gone:
            if self.node.runner is self:
                self.node.drop_runner()

    def tell(self, event: Event) -> None:
        """Hand the loop an event."""
        self._events.append(event)
        if self._wake is not None:
            wake, self._wake = self._wake, None
            wake(None)

    def _wait(self) -> Arm:
        deadline = self.job.deadline

        def arm(resume: Callable[[Any], None]) -> None:
            self._wake = resume
            if deadline is not None:
                delay_s = max(0, deadline - self._ms()) / 1000
                self.node.process.later(delay_s, resume, None)

        return arm

    def _loop(self) -> Steps:
        yield from self._shut_out()
        yield from self._perform(self.job.start(self._ms()))
        while not self.job.ended:
            if not self._events:
                yield self._wait()
            if self._events:
                yield from self._perform(self._events.pop(0)(self._ms()))
            else:
                yield from self._perform(self.job.on_timer(self._ms()))

    def _perform(self, effects: list[j.Effect]) -> Steps:
        for effect in effects:
            match effect:
                case j.Save():
                    yield from self._save()
                case j.Confirm(step):
                    self._spawn(self._confirm(step))
                case j.Probe(step):
                    self._spawn(self._probe(self.job.step(step)))
                case j.Act(step):
                    self._spawn(self._act(self.job.step(step)))
                case j.Stop(step) if self.command == step:
                    self.command = None
                case _:
                    pass

    def _save(self) -> Steps:
        yield from self.site.cut(self.node)
        if not self.node.holds():
            raise Gone
        if not (yield from self.node.write_row(self.job.row)):
            raise Gone
        yield from self.site.cut(self.node)

    def _confirm(self, step: str) -> Steps:
        witness: str | None = None
        row = self.node.row
        assert row is not None
        yield from self.site.cut(self.node)
        if self.site.policy.careful:
            got: list[str] = []

            def ask(peer: Any) -> Steps:
                name = yield self.node.ask_receipt(peer, row)(RECEIPT_S)
                if name is not None:
                    got.append(name)

            for peer in self.node.peers():
                Task(ask(peer)).start()
            for _ in range(int(RECEIPT_S / 0.05)):
                if got:
                    break
                yield sleep(self.node.process, 0.05)
            witness = got[0] if got else None
            if witness is None and not self._may_go_alone():
                raise Gone  # nobody hears us: begin anew once we hold it
        yield from self.site.cut(self.node)
        self.tell(lambda now: self.job.on_confirmed(step, witness, now))

    def _may_go_alone(self) -> bool:
        return len(self.site.names) <= 2

    # -- the device ------------------------------------------------------------------------

    def _shut_out(self) -> Steps:
        """Make sure that nobody else's order, nor ours of before, reaches the device later."""
        yield from self.site.cut(self.node)
        policy = self.site.policy
        if not policy.careful or not self.node.device_begun():
            return
        if not self.site.device.fence:
            wait_s = 0.0 if self.taken else self.node.quiet_until - self.node.process.now()
            yield sleep(self.node.process, max(0.0, wait_s))
            return
        while (yield from self._ask("shut out")) != "ok":
            yield sleep(self.node.process, 1.0)

    def _ask(self, what: str, arg: Any = None) -> Steps:
        """Send one message to the device; the answer, None when none came."""
        if self.site.device.fence and self._token is None:
            self._token = yield from self._order("login", None)
            if self._token is None:
                return None
        answer = yield from self._order(what, arg)
        if answer == UNAUTHORIZED:
            raise Gone
        return answer

    def _order(self, what: str, arg: Any) -> Steps:
        yield from self.site.cut(self.node)
        if not self.node.holds():
            raise Gone
        process, rng, times = self.node.process, self.site.rng, self.site.policy.times
        slow = self.site.device_slow
        local_s = rng.uniform(0, 0.3) if rng.random() >= slow else rng.uniform(0.3, 3)
        flight_s = (
            rng.uniform(0, 0.5) if rng.random() >= slow else rng.uniform(0.5, times.order_s)
        )
        lost = rng.random() < self.site.device_loss
        answer_lost = rng.random() < self.site.device_loss

        def arm(resume: Callable[[Any], None]) -> None:
            def arrive(token: int | None) -> None:
                answer = self.site.device.carry_out(
                    what, arg, token, self.node.name, self.epoch
                )
                if what in ("power", "boot", "flash"):
                    self.site.went_on(self.node)
                if not answer_lost:
                    self.site.clock.after(0.02, process.deliver, resume, answer)

            def send(token: int | None) -> None:  # nobody stops it any more
                delay_s = min(flight_s, times.order_s - local_s)
                if not lost:
                    self.site.clock.after(delay_s, arrive, token)

            process.later(local_s, send, self._token)
            process.later(times.order_s + times.stall_s, resume, None)

        answer = yield arm
        yield from self.site.cut(self.node)
        return answer

    # -- steps -----------------------------------------------------------------------------

    def _probe(self, step: Step) -> Steps:
        seen: j.Seen = "unknown"
        yield from self.site.cut(self.node)
        match step.do:
            case "power" | "boot" | "flash":
                state = yield from self._ask("read")
                if state is not None:
                    seen = _seen(step, state, self.site.policy.careful)
            case "fetch":
                seen = "done" if self.node.cached else "not done"
            case "record":
                seen = "done" if self.site.recorded else "not done"
            case _:
                pass
        yield from self.site.cut(self.node)
        if seen == "done":
            self.site.went_on(self.node)
        self.tell(lambda now: self.job.on_probed(step.id, seen, {}, now))

    def _act(self, step: Step) -> Steps:
        yield from self.site.cut(self.node)
        match step.do:
            case "power" | "boot":
                yield from self._set(step)
            case "flash":
                yield from self._flash(step)
            case "fetch":
                yield sleep(self.node.process, FETCH_S)
                self.node.cached = True
                yield from self._done(step)
            case "record" | "inspect":
                self.site.recorded = True
                yield from self._done(step)
            case "agent":
                self.command = step.id
            case _:
                self.site.went_on(self.node)  # it waits for the machine now

    def _done(self, step: Step) -> Steps:
        self.site.went_on(self.node)
        yield from self.site.cut(self.node)
        self.tell(lambda now: self.job.on_done(step.id, {}, now))

    def _set(self, step: Step) -> Steps:
        value = step.args.get("device") or ("on" if step.args["on"] else "off")
        yield from self._ask(step.do, value)
        yield sleep(self.node.process, self.site.rng.uniform(0, self.site.settle_s))
        for _ in range(READS_MAX):
            yield sleep(self.node.process, 1.0)
            state = yield from self._ask("read")
            if state is not None and _seen(step, state, True) == "done":
                yield from self._done(step)
                return
        self.tell(lambda now: self.job.on_failed(step.id, "it did not obey", True, now))

    def _flash(self, step: Step) -> Steps:
        if not self.site.policy.careful:
            state = yield from self._ask("read")
            if state is not None and state["flashes"]:
                yield from self._done(step)
                return
        if (yield from self._ask("flash")) == "ok":
            yield from self._done(step)
        elif self.site.policy.careful:
            self.tell(lambda now: self.job.on_unsure(step.id, "no answer came", now))
        else:
            self.tell(lambda now: self.job.on_failed(step.id, "no answer came", True, now))

    # -- the machine -----------------------------------------------------------------------

    def on_machine(self, what: str) -> None:
        """The machine's agent, or what it booted, speaks to us."""
        current = self.job.current()
        if current is None:
            return
        if (current.do, what) in (("ramdisk", "ramdisk"), ("phone-in", "system")):
            self.tell(lambda now: self.job.on_done(current.id, {}, now))
        elif what == "ramdisk" and current.id == self.command:
            self.site.went_on(self.node)
            self.node.process.later(AGENT_S, self._reported, current)

    def _reported(self, step: Step) -> None:
        if self.command == step.id and self.site.device.up == "ramdisk":
            self.command = None
            self.site.device.perform(step.args["do"])
            self.tell(lambda now: self.job.on_done(step.id, {}, now))


def _seen(step: Step, state: dict[str, Any], careful: bool) -> j.Seen:
    match step.do:
        case "power":
            return (
                "done" if state["power"] == ("on" if step.args["on"] else "off") else "not done"
            )
        case "boot":
            return "done" if state["boot"] == step.args["device"] else "not done"
        case _ if careful:
            return "unknown"  # a flash leaves no evidence
        case _:
            return "done" if state["flashes"] else "not done"
