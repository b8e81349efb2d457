"""Progress of the step that runs: what is done of what, told to the node at least every 3 s.

It is also the signed heartbeat, so it is sent while nothing moves, too. Rule: a node that does
not answer never ends a step; only its ``abort`` and our own caller's stop do.
"""

from collections.abc import Callable
from typing import Final

from node.ramdisk.client import AgentClient
from node.ramdisk.errors import Aborted, Refused, Stopped, Unreachable
from node.ramdisk.hardware import Hardware

INTERVAL_S: Final = 2.0
"""Between two messages; with the slice of a wait (1 s) it stays within the promised 3 s."""


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
            if abort := answer.get("abort"):
                raise Aborted(str(abort))
        self._sent_at = self._hardware.now()

    def _greet(self) -> None:
        """The node forgot our session (it was restarted): tell it who works here."""
        try:
            self._client.hello()
        except (Refused, Unreachable):
            self.lost += 1
