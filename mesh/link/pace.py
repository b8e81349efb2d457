"""The cap of a link: who sends state, streams or copies pays before the next message.

It knows no frame and no socket. Rule: only the sender of what is capped waits; whatever else
uses the link (register news, detection, calls, control frames) never meets the cap.
"""

from collections.abc import Iterable
from typing import Final, TypeVar

import trio

from mesh.proto.link_effects import Effect, Send
from mesh.proto.rate import Bucket

BURST_S: Final = 0.25
"""A capped link may send what it saved in so long at once..."""
BURST_BYTES: Final = 1 << 18
"""... but at least this."""

Effects = TypeVar("Effects", bound=Iterable[Effect])


class Pace:
    """What a link has sent under its cap."""

    def __init__(self, bytes_per_s: float) -> None:
        """``bytes_per_s`` 0: there is no cap."""
        self._bucket: Bucket | None = None
        self._free_at = 0.0
        if bytes_per_s:
            burst_bytes = max(bytes_per_s * BURST_S, BURST_BYTES)
            self._bucket = Bucket(bytes_per_s, burst_bytes, trio.current_time())

    async def wait(self, over: trio.Event) -> None:
        """Wait until what was sent is paid for, or the link is over."""
        while trio.current_time() < self._free_at and not over.is_set():
            with trio.move_on_at(self._free_at):
                await over.wait()

    def charged(self, effects: Effects) -> Effects:
        """Charge what effects send; return them."""
        if self._bucket is not None:
            now = trio.current_time()
            size = sum(len(effect.message) for effect in effects if isinstance(effect, Send))
            self._free_at = now + self._bucket.take(size, now)
        return effects
