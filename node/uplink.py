"""The cap on what this site's copies of assets take over the uplink.

It knows no transfer. Rule: who took bytes waits until they are paid for before it asks for
more, and that wait ends when the transfer is cancelled.
"""

from collections.abc import Sequence
from datetime import datetime

import trio

from mesh.host.clock import Clock
from mesh.proto.rate import Bucket
from node.config import Cache as CacheConfig
from node.proto.uplink import Hours, parse_hours, rate_at

BURST_BYTES = 1 << 20


class Uplink:
    """One node's account; hours are those of the machine's own time zone."""

    def __init__(self, mbit: float, hours: Sequence[Hours], clock: Clock) -> None:
        """``mbit`` 0: no cap, but at ``hours``."""
        self._mbit, self._hours, self._clock = mbit, hours, clock
        self._rate = 0.0
        self._bucket: Bucket | None = None

    async def pay(self, size: int) -> None:
        """Wait until so many bytes that came are paid for."""
        at = datetime.fromtimestamp(self._clock.now_ms() / 1000)  # noqa: DTZ006 - local hours
        rate = rate_at(at.hour * 60 + at.minute, self._mbit, self._hours)
        now = trio.current_time()
        if rate != self._rate:
            self._rate = rate
            self._bucket = Bucket(rate, BURST_BYTES, now) if rate else None
        if self._bucket is not None:
            await trio.sleep(self._bucket.take(size, now))


def uplink_of(config: CacheConfig, clock: Clock) -> Uplink:
    """Return the account as the node's settings have it."""
    return Uplink(config.uplink_mbit, [parse_hours(t) for t in config.uplink_hours], clock)
