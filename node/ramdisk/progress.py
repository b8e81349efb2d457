"""Progress of the step that runs: what is done of what, told to the node at least every 3 s.

It is also the signed heartbeat, so it is sent while nothing moves, too. Rule: a node that does
not answer never ends a step; its ``abort``, its word for a minute that no job wants this
machine, and our own caller's stop do.
"""

from collections.abc import Callable
from typing import Final

from node.ramdisk.client import AgentClient
from node.ramdisk.errors import Aborted, Refused, Stopped, Unreachable
from node.ramdisk.hardware import Hardware

INTERVAL_S: Final = 2.0
"""Between two messages; with the slice of a wait (1 s) it stays within the promised 3 s."""

UNBOUND_S: Final = 60.0
"""A node that just started may not know our job yet; after so long it has none for us."""


class Progress:
    """Counts of one step, in bytes."""

    def __init__(
        self,
        client: AgentClient,
        hardware: Hardware,
        step: str,
        stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self._client = client
        self._hardware = hardware
        self._step = step
        self._stop = stop
        self._sent_at = hardware.now()
        self._unbound_at: float | None = None
        self.done = 0
        self.total = 0
        self.lost = 0
        """Messages that no node took."""

    def begin(self, total: int) -> None:
        """Set what there is to do."""
        self.done, self.total = 0, total

    def add(self, count: int) -> None:
        """Count work as done, and tick."""
        self.done += count
        self.tick()

    def tick(self) -> None:
        """Send a message when it is time. Raises Aborted or Stopped."""
        if self._stop():
            raise Stopped("stopped")
        if self._hardware.now() - self._sent_at < INTERVAL_S:
            return
        try:
            answer = self._client.progress(self._step, min(self.done, self.total), self.total)
        except Refused:
            self.lost += 1
            self._greet()
        except Unreachable:
            self.lost += 1
        else:
            self._unbound_at = None
            if abort := answer.get("abort"):
                raise Aborted(str(abort))
        self._sent_at = self._hardware.now()

    def _greet(self) -> None:
        """The node forgot our session (it was restarted): tell it who works here."""
        try:
            bound = self._client.hello().bound
        except Refused:
            bound = False
        except Unreachable:
            return
        now = self._hardware.now()
        if bound:
            self._unbound_at = None
        elif self._unbound_at is None:
            self._unbound_at = now
        elif now - self._unbound_at >= UNBOUND_S:
            raise Aborted("no job wants this machine any more")
