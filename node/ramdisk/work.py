"""The agent's loop: say hello, ask for a step, do it, report it, until the machine restarts.

It knows when to say hello again and when to give up; it does not know what a step does to a
disk (``steps.py``). Rule: a report is kept until a node has taken it, and a step that was done
is never done twice for the same id; it is reported twice.
"""

import traceback
from collections.abc import Callable, Mapping
from typing import Any, Final, cast

from node.ramdisk.client import AgentClient, Hello, poll_seconds
from node.ramdisk.errors import Aborted, RamdiskError, Refused, StepFailed, Stopped, Unreachable
from node.ramdisk.hardware import Hardware
from node.ramdisk.progress import Progress
from node.ramdisk.steps import STEPS, StepContext

ENDS: Final = frozenset({"reboot", "poweroff"})
FIRST_POLL_S: Final = 1.0
BOUND_IDLE_FACTOR: Final = 6
"""A bound machine belongs to a job that ends it; it waits this much longer than idle ones."""
REPORTS_KEPT: Final = 16
ERROR_CHARS_MAX: Final = 300

Report = dict[str, Any]


class Agent:
    """One run of the agent on one machine, from its first hello to its end."""

    def __init__(
        self,
        hardware: Hardware,
        client: AgentClient,
        stop: Callable[[], bool],
        bind_address: str | None,
    ) -> None:
        self._hardware = hardware
        self._client = client
        self._stop = stop
        self._bind_address = bind_address
        self._bound = False
        self._poll_s = FIRST_POLL_S
        self._idle_s = 600.0
        self._useful_at = hardware.now()
        self._report: Report | None = None
        self._reports: dict[str, Report] = {}

    def run(self) -> str:
        """Work until told to end; return ``reboot``, ``poweroff`` or ``stopped``."""
        try:
            while True:
                end = self._turn()
                if end is not None:
                    return end
        except Stopped:
            return "stopped"
        finally:
            self._client.close()

    def _turn(self) -> str | None:
        if self._stop():
            raise Stopped("stopped")
        try:
            if not self._bound:
                hello = self._hello()
                if hello.do in ENDS:
                    return hello.do
            if self._bound:
                return self._ask()
        except Unreachable as exc:
            self._hardware.say(f"no node answers: {exc}")
        except Refused as exc:
            self._hardware.say(f"refused: {exc}")
            self._bound = False
        return self._pause()

    def _hello(self) -> Hello:
        hello = self._client.hello()
        self._bound = hello.bound and bool(hello.session)
        self._poll_s, self._idle_s = hello.poll_s, hello.idle_s
        word = "bound to a job" if self._bound else "inventory sent, waiting"
        self._hardware.say(f"{word}: {hello.detail}" if hello.detail else word)
        return hello

    def _ask(self) -> str | None:
        answer = self._client.next(self._report)
        self._report = None
        self._poll_s = poll_seconds(answer)
        step = answer.get("step")
        if not isinstance(step, dict) or not isinstance(step.get("id"), str):
            return self._pause()
        step = cast("dict[str, Any]", step)
        do = str(step.get("do"))
        if do in ENDS:
            self._farewell(step["id"])
            return do
        known = self._reports.get(step["id"])
        if known is None or not known["ok"]:
            known = self._perform(step["id"], do, step)
        self._report = known
        self._useful_at = self._hardware.now()
        return None

    def _farewell(self, step_id: str) -> None:
        """Report the last step before it is done: afterwards nobody is here to do so."""
        try:
            self._client.next({"step": step_id, "ok": True, "evidence": {}, "error": None})
        except (Unreachable, Refused) as exc:
            self._hardware.say(f"the last report was not taken: {exc}")

    def _perform(self, step_id: str, do: str, args: Mapping[str, Any]) -> Report:
        self._hardware.say(f"step {do} begins")
        progress = Progress(self._client, self._hardware, step_id, self._stop)
        context = StepContext(
            self._hardware,
            self._client.session,
            self._client.seal_key,
            progress,
            self._bind_address,
        )
        evidence: dict[str, Any] = {}
        error: str | None = None
        try:
            perform = STEPS.get(do)
            if perform is None:
                raise StepFailed(f"this ramdisk does not know the step {do!r}")
            evidence = perform(context, args)
        except Stopped:
            raise
        except Aborted as exc:
            error = f"ended by the node: {exc}"
        except (RamdiskError, OSError) as exc:
            error = str(exc) or type(exc).__name__
        except Exception as exc:  # the step's arguments, or our fault: told, not hidden
            self._hardware.say(traceback.format_exc())
            error = f"the step {do} failed unexpectedly: {type(exc).__name__}: {exc}"
        if error is not None:
            error = error[:ERROR_CHARS_MAX]
        self._hardware.say(f"step {do} {'failed: ' + error if error else 'done'}")
        report = {"step": step_id, "ok": not error, "evidence": evidence, "error": error}
        while len(self._reports) >= REPORTS_KEPT:
            del self._reports[next(iter(self._reports))]
        self._reports[step_id] = report
        return report

    def _pause(self) -> str | None:
        """Wait for the poll interval; return ``poweroff`` when idle for too long."""
        allowed_s = self._idle_s * (BOUND_IDLE_FACTOR if self._bound else 1)
        if self._hardware.now() - self._useful_at >= allowed_s:
            self._hardware.say(f"nothing to do for {allowed_s:.0f} s, switching off")
            return "poweroff"
        until = self._hardware.now() + self._poll_s
        while (left := until - self._hardware.now()) > 0:
            if self._stop():
                raise Stopped("stopped")
            self._hardware.sleep(min(left, 1.0))
        return None
