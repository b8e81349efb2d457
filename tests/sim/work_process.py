"""Processes that stop, die and come back, and the networks between them, in virtual time.

A process that stands still (SIGSTOP) does nothing: not what was due, nor what it was about to
send; what came for it lies in its sockets. When it goes on, all of that happens at once, in any
order. It knows nothing of what the processes do.
"""

import random
from collections.abc import Callable, Generator
from typing import Any, Final

from tests.sim.clockwork import Clockwork

Arm = Callable[[Callable[[Any], None]], None]
"""Arranges that a task is gone on with, once, with a value."""
Steps = Generator[Arm, Any, Any]

WAKE_S: Final = 0.05
"""In which all that lay there happens after a standstill."""
DRIFT: Final = 0.01
"""How much faster or slower a node's clock may run."""


class Process:
    """One node's process over its lives."""

    def __init__(self, clock: Clockwork, rng: random.Random, name: str) -> None:
        self.clock, self.rng, self.name = clock, rng, name
        self.alive = True
        self.stopped = 0
        """How many standstills overlap now."""
        self.life = 0
        self._rate = rng.uniform(1 - DRIFT, 1 + DRIFT)
        self._ahead = rng.uniform(0, 1e5)
        self._pending: list[tuple[Callable[..., None], tuple[Any, ...]]] = []

    def now(self) -> float:
        """Return its clock, in seconds."""
        return self.clock.now * self._rate + self._ahead

    def later(self, delay_s: float, fn: Callable[..., None], *args: Any) -> None:
        """Call something in this life after a delay by its clock."""
        self.clock.after(delay_s / self._rate, self._due, self.life, fn, args)

    def deliver(self, fn: Callable[..., None], *args: Any) -> None:
        """Hand it a message of now."""
        self._due(self.life, fn, args)

    def _due(self, life: int, fn: Callable[..., None], args: tuple[Any, ...]) -> None:
        if not self.alive or life != self.life:
            return
        if self.stopped:
            self._pending.append((fn, args))
        else:
            fn(*args)

    def stop(self) -> None:
        """Let it stand still."""
        self.stopped += 1

    def go_on(self) -> None:
        """Let it go on."""
        self.stopped -= 1
        if not self.stopped:
            pending, self._pending = self._pending, []
            for fn, args in pending:
                self.clock.after(self.rng.uniform(0, WAKE_S), self._due, self.life, fn, args)

    def die(self) -> None:
        """Lose all that is not on disk."""
        self.alive = False
        self.life += 1
        self._pending = []


class Task:
    """Something that goes on over waits; ends with its process, or when cancelled."""

    def __init__(self, steps: Steps) -> None:
        self._steps = steps
        self.over = False

    def start(self) -> None:
        """Begin."""
        self._step(None)

    def cancel(self) -> None:
        """Never go on."""
        self.over = True

    def _step(self, value: Any) -> None:
        if self.over:
            return
        try:
            arm = self._steps.send(value)
        except StopIteration:
            self.over = True
            return
        called = False

        def once(result: Any) -> None:
            nonlocal called
            if not called:
                called = True
                self._step(result)

        arm(once)


def sleep(process: Process, delay_s: float) -> Arm:
    """Wait by a process's clock."""
    return lambda resume: process.later(delay_s, resume, None)


def never(_resume: Callable[[Any], None]) -> None:
    """Wait for ever."""


class Net:
    """Messages between processes: late, lost, cut in one direction."""

    def __init__(self, clock: Clockwork, rng: random.Random, loss: float) -> None:
        self.clock, self.rng, self.loss = clock, rng, loss
        self.cut: set[tuple[str, str]] = set()

    def send(self, src: str, to: Process, fn: Callable[..., None], *args: Any) -> None:
        """Send a message, for what it is worth."""
        if (src, to.name) in self.cut or self.rng.random() < self.loss:
            return
        late = self.rng.random()
        delay_s = late * 0.05 if late < 0.95 else self.rng.uniform(0.1, 2.0)
        self.clock.after(delay_s, to.deliver, fn, *args)

    def ask(
        self, src: Process, to: Process, answer: Callable[..., Any], *args: Any
    ) -> Callable[[float], Arm]:
        """Ask; the answer, or None after a time."""

        def waiting(limit_s: float) -> Arm:
            def arm(resume: Callable[[Any], None]) -> None:
                def reply(value: Any) -> None:
                    self.send(to.name, src, resume, value)

                self.send(src.name, to, answer, reply, *args)
                src.later(limit_s, resume, None)

            return arm

        return waiting
