"""Runs one job at its runner: carries out the effects of the job machine and of the agent desk.

It knows how to wait and to write; what happens next is decided by ``node/proto/job.py`` and
``node/proto/agent_desk.py``. Rule: one loop handles one event at a time and carries out its
effects in order, so nothing is answered or done before what it rests on is durable. A full disk
stops a job as a power cut would: it goes on from its row when there is room.
"""

import copy
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, Final

import trio

from mesh.errors import Refused, StoreFull
from mesh.host.first_of import first_of
from mesh.host.log import get_log
from mesh.proto import tables
from node.proto import agent_desk as desk_core
from node.proto import job as job_core
from node.proto import lifecycle
from node.proto.agent_desk import AgentDesk, Answer
from node.proto.agent_wire import Hello, Report, SignedCall
from node.proto.hold import witnessed
from node.proto.job import Job
from node.proto.moving import MOVED
from node.proto.plan import Step
from node.proto.server_view import server_view
from node.work import net_boot
from node.work.agent_work import AgentWork
from node.work.erases import Finished, PolicyBroken
from node.work.means import Means, NotHeld, StoodStill, Superseded, put_server_view
from node.work.ports import Tx
from node.work.rows import plan_of
from node.work.steps import Doing, StepFailed
from node.work.tenure import ours

log = get_log("jobs")

EVENTS_MAX: Final = 64
LOOK_S: Final = 5.0
"""Longest sleep of the loop: silence of a machine is seen this late."""

Event = Callable[[int], list[job_core.Effect]]


class JobRunner:
    """One job from now until it ends, parks or is taken away."""

    def __init__(self, row: Mapping[str, Any], means: Means) -> None:
        self._means = means
        body = copy.deepcopy(dict(row))
        self.job = Job(body, plan_of(body))
        self.id: str = body["id"]
        self.desk = AgentDesk(
            str(body.get("server_name")),
            body["attempt"],
            body.get("attempt_first", 1),
            job_core.ATTEMPTS_PER_RETRY,
            body.get("agent"),
            means.now_ms(),
        )
        self._send, self._receive = trio.open_memory_channel[tuple[Event, trio.Event]](
            EVENTS_MAX
        )
        self._tasks: dict[str, trio.CancelScope] = {}
        self._agent: AgentWork | None = None
        self._began_ms = 0
        self._records: dict[str, dict[str, Any]] = {}
        """Of disks that this job erased; written with its row."""
        self._lacking: str | None = None
        self._over = trio.Event()
        self._scope = trio.CancelScope()
        self._nursery: trio.Nursery

    # -- from outside ----------------------------------------------------------------------

    async def run(self) -> None:
        """Run until the job has ended or parked here."""
        try:
            with self._scope:
                await self._run()
        except* Superseded:
            log.warning("job taken over", job=self.id)
        except* (StoreFull, StoodStill, NotHeld):
            pass  # whoever made us has seen it, too, and begins again from the row
        finally:
            self._over.set()

    async def _run(self) -> None:
        async with trio.open_nursery() as self._nursery:
            await self._perform(self.job.start(self._means.now_ms()))
            while not self.job.ended:
                await self._turn()
            self._nursery.cancel_scope.cancel()

    async def cancel(self, by: str) -> None:
        """Cancel the job; returns when that is durable."""
        await self._ask(lambda now: self.job.on_cancel(by, now))

    async def hold(self, held: Mapping[str, Any] | None) -> bool:
        """Hold the job or let it go on (None); returns when durable, False: it is over."""
        return await self._ask(
            lambda now: self.job.on_hold(held and {**held, "at_ms": now}, now)
        )

    async def rewrite(self) -> None:
        """Write the job's row again: another one stands there."""
        await self._ask(self.job.on_changed)

    async def wait_over(self) -> None:
        """Wait until nothing more will be written about the job from here."""
        await self._over.wait()

    def abandon(self) -> None:
        """Stop at once without another write: somebody else runs it."""
        self._scope.cancel()

    async def hello(self, hello: Hello, capability_attempt: int, session: str) -> Answer:
        """Answer a machine that shows a capability of this job."""
        return await self._at_desk(
            lambda now: self.desk.on_hello(hello, capability_attempt, session, now)
        )

    async def next(self, call: SignedCall, report: Report | None) -> Answer:
        """Answer an agent that asks what to do."""

        def args(command: desk_core.Command) -> Mapping[str, Any]:
            return self._means.args_for(self.job, self.desk, command)

        def event(now: int) -> list[desk_core.Effect]:
            try:
                return self.desk.on_next(call, report, args, now)
            except Refused as exc:  # the call was good, but something is missing at this node
                self._lacking = str(exc)
                return [Answer(200, {"step": None, "poll_s": desk_core.POLL_S})]

        return await self._at_desk(event)

    async def progress(self, call: SignedCall, step: str, done: int, total: int) -> Answer:
        """Take an agent's progress."""
        return await self._at_desk(
            lambda now: self.desk.on_progress(call, step, done, total, now)
        )

    async def phone_in(self, attempt: int, said: Mapping[str, Any]) -> Answer:
        """Take the phone-in of the installed system; ``said``: its address and host keys."""
        answers = [Answer(200, {"detail": "thank you"})]

        def event(now: int) -> list[job_core.Effect]:
            strayed = self.job.on_strayed(now)
            if strayed:
                answers[0] = _strayed(self.desk.name)
                return strayed
            boots = self.job.row["params"].get("boot")  # then every attempt phones in anew
            if attempt != self.job.row.get("attempt" if boots else "phone_attempt"):
                answers[0] = Answer(403, {"detail": "this phone-in is of an older attempt"})
                return []
            self.job.row.update(phoned_ms=now, phoned=dict(said))
            effects = self.job.on_changed(now)
            effects += net_boot.on_news(self.job, {"phoned_in": True}, now)
            current = self.job.current()
            if current is not None and current.args.get("do") == "reboot":
                effects += self._end_agent(current.id, {"phoned in": True}, now)
            current = self.job.current()
            if current is not None and current.do == "phone-in":
                effects += self.job.on_done(current.id, {"attempt": attempt}, now)
            return effects

        done = await self._ask(event)
        return answers[0] if done else _gone()

    async def heard(self, attempt: int, news: Mapping[str, Any]) -> Answer:
        """Take what a machine that boots off the network let a node hear."""
        answers = [Answer(200, {"detail": "thank you"})]

        def event(now: int) -> list[job_core.Effect]:
            if attempt != self.job.row["attempt"]:
                answers[0] = Answer(403, {"detail": "this is of an older attempt"})
                return []
            answers[0] = net_boot.refusal(self.job, news) or answers[0]
            return net_boot.on_news(self.job, news, now)

        done = await self._ask(event)
        return answers[0] if done else _gone()

    async def strayed(self) -> Answer:
        """Take the phone-in of what an earlier job had installed on this job's server."""
        await self._ask(self.job.on_strayed)
        return _strayed(self.desk.name)

    # -- the loop --------------------------------------------------------------------------

    async def _turn(self) -> None:
        now = self._means.now_ms()
        deadline = self.job.deadline
        wait_s = LOOK_S if deadline is None else min(LOOK_S, max(0, deadline - now) / 1000)
        got: tuple[Event, trio.Event] | None = None
        with trio.move_on_after(wait_s):
            got = await self._receive.receive()
        now = self._means.now_ms()
        if got is None:
            effects = self.job.on_timer(now) + self._watch_agent(now)
            await self._perform(effects + net_boot.look(self.job, now))
            return
        event, done = got
        await self._perform(event(now))
        done.set()

    async def _ask(self, event: Event) -> bool:
        """Hand an event to the loop; return True when its effects are done, False when over."""
        done = trio.Event()
        try:
            self._send.send_nowait((event, done))
        except trio.WouldBlock:
            await first_of(partial(self._send.send, (event, done)), self._over.wait)
        await first_of(done.wait, self._over.wait)
        return done.is_set()

    async def _perform(self, effects: list[job_core.Effect]) -> None:
        queue = list(effects)
        while queue:
            queue += await self._carry_out(queue.pop(0))
        if self.job.row["attempt"] != self.desk.attempt:
            self.desk.on_new_attempt(self.job.row["attempt"])

    async def _carry_out(self, effect: job_core.Effect) -> list[job_core.Effect]:
        means, now = self._means, self._means.now_ms()
        match effect:
            case job_core.Save(urgent):
                await self.save(urgent)
            case job_core.Confirm(step):
                self._spawn(step, self._confirm)
            case job_core.Probe(step):
                self._spawn(step, self._probe)
            case job_core.Act(step):
                return self._act(self.job.step(step), now)
            case job_core.Stop(step):
                self._stop(step)
            case job_core.Note(line):
                means.log.add(self.id, now, line)
            case job_core.Ended(state):
                await self.save(False)  # for the log's last lines
                row = self.job.row
                took_ms = now - (row.get("started_ms") or now)
                log.info(
                    "job ended", job=self.id, kind=row["kind"], name=row.get("server_name"),
                    state=state, ms=took_ms, error=row.get("error"),
                )  # fmt: skip
                if state == MOVED:
                    self.abandon()
        return []

    async def save(self, urgent: bool) -> None:
        """Write the job's row, its log and what it makes of its server, in one transaction."""
        if not self._means.holds(self.job.row):
            raise NotHeld
        if fence := self._means.steps.fences(str(self.job.row["server"])):
            self.job.row["fence"] = fence
        scope, row = self._means.rows.scope, copy.deepcopy(self.job.row)
        row["agent"] = self.desk.agent_row()
        lines = self._means.log.take(self.id)
        view = server_view(row, self.job.plan) if urgent else {}
        records = dict(self._records)
        view |= {"fence": fence} if view and fence else {}

        def fn(tx: Tx) -> None:
            known = tx.get(scope, tables.JOB, self.id)
            if known is not None and not ours(known.body, row):
                raise Superseded
            if known is not None and known.body.get("killed_ms") != row.get("killed_ms"):
                raise Superseded
            tx.put(scope, tables.JOB, self.id, row)
            put_server_view(tx, scope, row, view)
            for key, body in records.items():
                tx.put(scope, tables.ERASE_RECORD, key, body)
            self._means.log.write_lines(tx, self.id, lines)

        try:
            await self._means.rows.store.write(fn)
            self._records = {k: b for k, b in self._records.items() if k not in records}
        except StoreFull:
            self._means.log.give_back(self.id, lines)
            if urgent:
                raise

    # -- steps in tasks --------------------------------------------------------------------

    def _spawn(self, step: str, work: Callable[[str], Awaitable[Event]]) -> None:
        self._stop(step)
        scope = trio.CancelScope()
        self._tasks[step] = scope

        async def task() -> None:
            with scope:
                event = await work(step)
                await self._send.send((event, trio.Event()))

        self._nursery.start_soon(task)

    def _stop(self, step: str) -> None:
        scope = self._tasks.pop(step, None)
        if scope is not None:
            scope.cancel()
        if self._agent is not None and self._agent.step.id == step:
            self._agent, self.desk.command = None, None

    async def _confirm(self, step: str) -> Event:
        means = self._means
        witness = await means.wait_witness()
        if witness is None and means.stood_still() and not witnessed(self.job.row):
            raise StoodStill
        if witness is None and len(means.rows.site_nodes()) > 2:
            await trio.sleep(means.limits.receipt_s)  # a link comes back, or the lease ends
            raise NotHeld  # an heir could not know of it: begin anew
        return lambda now: self.job.on_confirmed(step, witness, now)

    async def _probe(self, step: str) -> Event:
        seen, evidence = await self._means.steps.probe(self._doing(step))
        return lambda now: self._noticed(
            step, self.job.on_probed(step, seen, evidence, now), seen == "done"
        )

    async def _do(self, step: str) -> Event:
        try:
            evidence = await self._means.steps.act(self._doing(step))
        except StepFailed as exc:
            failure = exc
            return lambda now: failure.tell(self.job, step, now)
        except (OSError, ValueError, KeyError, TypeError, trio.TooSlowError) as exc:
            error = f"failed unexpectedly: {type(exc).__name__}: {exc}"
            log.error("step failed unexpectedly", job=self.id, step=step, error=error)
            return lambda now: self.job.on_failed(step, error, True, now)
        return lambda now: self._noticed(step, self.job.on_done(step, evidence, now), True)

    def _noticed(
        self, step: str, effects: list[job_core.Effect], done: bool
    ) -> list[job_core.Effect]:
        plan = self.job.step(step)
        if done and plan.do == "power" and not plan.args["on"]:
            self.desk.on_power_cut()
        return effects

    def _doing(self, step: str) -> Doing:
        async def progress(done: int, total: int) -> None:
            await self._ask(lambda now: self.job.on_progress(step, done, total, now))

        async def says(sentence: str | None) -> None:
            await self._ask(lambda now: self.job.on_waits(step, sentence, now))

        return Doing(
            step=self.job.step(step),
            job=copy.deepcopy(self.job.row),
            attempts=self.job.entry(step)["attempts"],
            progress=progress,
            says=says,
        )

    # -- steps at the machine --------------------------------------------------------------

    def _act(self, step: Step, now: int) -> list[job_core.Effect]:
        server = self._means.rows.server(self.job.row.get("server"))
        refusal = lifecycle.refuse_step(step.do, server)
        if refusal is not None:
            return self.job.on_failed(step.id, refusal, False, now)
        match step.do:
            case "ramdisk":
                if self.desk.session is not None:
                    return self.job.on_done(step.id, {"attempt": self.desk.attempt}, now)
            case "phone-in":
                if self.job.row.get("phoned_ms"):
                    return self.job.on_done(step.id, {"attempt": self.desk.attempt}, now)
            case "net-boot":
                return net_boot.look(self.job, now)
            case "agent" if step.args["do"] == "reboot" and self.job.row.get("phoned_ms"):
                return self.job.on_done(step.id, {"phoned in": True}, now)
            case "agent":
                return self._begin_agent(step, now)
            case _:
                self._spawn(step.id, self._do)
        return []

    def _begin_agent(self, step: Step, now: int) -> list[job_core.Effect]:
        row = self.job.row
        if step.args["do"] == "first_boot":
            row["phone_attempt"], row["phoned_ms"] = row["attempt"], None
        fetched: dict[str, Any] = next(
            (e["evidence"] for e in row["steps"] if e["id"] == "fetch"), {}
        )
        tries = self.job.entry(step.id)["attempts"]
        try:
            policy = self._means.erases.policy_for(str(row["server"]))
        except PolicyBroken as exc:
            return self.job.on_failed(step.id, str(exc), False, now)
        work = AgentWork(step, row, fetched, self.desk.inventory, tries, policy)
        if work.refusal is not None:
            return self.job.on_failed(step.id, work.refusal, False, now)
        if work.frozen is not None:
            return self._unfreeze(step, work.frozen, now)
        self._agent, self.desk.command, self._began_ms = work, work.command, now
        return []

    def _unfreeze(self, step: Step, why: str, now: int) -> list[job_core.Effect]:
        """Switch the machine off and on, once a job, since that may free its disks."""
        if not self.job.row.get("bmc"):
            why += "; switch it off and on by hand, then retry the job"
            return self.job.on_failed(step.id, why, False, now)
        self.job.row["unfreeze_ms"] = now
        return self.job.on_lost(step.id, f"{why}; it is switched off and on once", now)

    async def _at_desk(self, act: Callable[[int], list[desk_core.Effect]]) -> Answer:
        answers: list[Answer] = []

        def event(now: int) -> list[job_core.Effect]:
            effects: list[job_core.Effect] = []
            for effect in act(now):
                if isinstance(effect, Answer):
                    answers.append(effect)
                else:
                    effects += self._from_desk(effect, now)
            return effects

        done = self._means.holds(self.job.row) and await self._ask(event)
        return answers[0] if done and answers else _gone()

    def _from_desk(self, effect: desk_core.Effect, now: int) -> list[job_core.Effect]:
        match effect:
            case desk_core.Bound(attempt, reset):
                self.job.row["attempt"] = attempt
                word = "the machine began again" if reset else "the ramdisk reported"
                self._means.log.add(self.id, now, f"{word}: attempt {attempt}")
                return [*self.job.on_changed(now), *self._ramdisk_reported(now)]
            case desk_core.Reported(command, ok, evidence, error):
                return self._on_report(desk_core.Reported(command, ok, evidence, error), now)
            case desk_core.Progressed(_, done, total) if self._agent is not None:
                done, total = self._agent.on_progress(done, total)
                return self.job.on_progress(self._agent.step.id, done, total, now)
            case desk_core.Alarm(sentence):
                log.error("alarm", job=self.id, name=self.desk.name, error=sentence)
                return self.job.on_park(sentence, now)
            case _:
                return []

    def _ramdisk_reported(self, now: int) -> list[job_core.Effect]:
        current = self.job.current()
        if current is None or current.do != "ramdisk":
            return []
        return self.job.on_done(current.id, {"attempt": self.desk.attempt}, now)

    def _on_report(self, report: desk_core.Reported, now: int) -> list[job_core.Effect]:
        work = self._agent
        if work is None or work.command.id != report.command:
            return []
        command, began_ms = work.command, self._began_ms
        over, error = work.on_report(report)
        self._began_ms = now
        if error is None and command.do in ("wipe", "erase"):
            plan = work.plans[work.commands.index(command)]
            done = Finished(command, plan, work.policy, report.evidence, began_ms)
            key, body = self._means.erases.record(self.job.row, self.desk, done, now)
            self._records[key] = body
        if not over:
            self.desk.command = work.command
            return []
        if error is None:
            return self._end_agent(work.step.id, work.evidence(), now)
        self._agent, self.desk.command = None, None
        passing = report.evidence.get("passing") is True
        return self.job.on_failed(work.step.id, error, passing, now)

    def _end_agent(
        self, step: str, evidence: dict[str, Any], now: int
    ) -> list[job_core.Effect]:
        self._agent, self.desk.command = None, None
        return self.job.on_done(step, evidence, now)

    def _watch_agent(self, now: int) -> list[job_core.Effect]:
        """Say that the machine is silent; give it up when we can switch it off and on."""
        if self._agent is None:
            return []
        step, silent_s = self._agent.step, self.desk.silent_ms(now) / 1000
        name = self.desk.name
        if silent_s >= self._means.limits.lost_s and self.job.row.get("bmc") and step.redo:
            self._agent, self.desk.command = None, None
            return self.job.on_lost(step.id, f"{name} was silent for {silent_s:.0f} s", now)
        if silent_s * 1000 < desk_core.SILENCE_MS:
            lacking, self._lacking = self._lacking, None
            return self.job.on_waits(step.id, lacking and f"waits: {lacking}", now)
        return self.job.on_waits(step.id, f"waits for the ramdisk of {name}: it is silent", now)


def _strayed(name: str) -> Answer:
    return Answer(409, {"detail": f"another job works on {name} now"})


def _gone() -> Answer:
    return Answer(409, {"detail": "the job does not run here any more; say hello again"})
