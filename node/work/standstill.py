"""Knows when this process may have missed that others took its work over, and who knows of it.

Rules: what was taken is told to the site before it is begun, so that a process which stops
between the two leaves nothing that others would begin again; who finds that it stood still
writes nothing until it has met the others (``node/proto/hold.py``).
"""

from collections.abc import Callable, Collection
from math import inf

import trio

from mesh.errors import MeshError
from mesh.host.clock import Clock
from mesh.host.log import get_log
from node.proto.hold import Hold
from node.work.ports import Limits, Receipts
from node.work.rows import SiteRows

log = get_log("jobs")


class Standstill:
    """One node's own standstills; to be looked at before each look at the orders."""

    def __init__(
        self,
        rows: SiteRows,
        receipts: Receipts,
        limits: Limits,
        clock: Clock,
        connected: Callable[[], Collection[str]],
    ) -> None:
        """``connected()``: the other nodes of the site with a live link."""
        self._rows, self._receipts, self._limits = rows, receipts, limits
        self._clock, self._connected = clock, connected
        self._looked_s, self._looked_ms = -inf, 0
        self._hold = Hold(limits.settle_s, limits.meet_s)
        self._untold = True

    def holds(self) -> bool:
        """Say whether others may have taken over meanwhile what they knew no job row of."""
        now = trio.current_time()
        if now > self._looked_s + self._limits.stall_s:
            if self._looked_s > -inf:
                log.warning("stood still", s=round(now - self._looked_s, 1))
            self._hold.begin(now)
        self._looked_s, self._looked_ms = now, self._clock.now_ms()
        others = set(self._rows.site_nodes()) - {self._rows.node_id}
        return self._hold.look(now, bool(others), others <= set(self._connected()))

    def stood_still(self) -> bool:
        """Say whether it holds, or has not looked for so long that it will."""
        return self._hold.on or trio.current_time() > self._looked_s + self._limits.stall_s

    def since_look(self, now_ms: int) -> bool:
        """Say whether this process stood still after the last look; from any thread."""
        return now_ms > self._looked_ms + self._limits.stall_s * 1000

    def took(self) -> None:
        """A job became ours of which nobody else knows."""
        self._untold = True

    async def others_know(self) -> bool:
        """Wait until another node has all that we took; False: look anew, time went by.

        Nobody to tell, or nobody who says that he has it, keeps no work from being done.
        """
        if self._untold and self._connected():
            epoch, seq = self._rows.store.head(self._rows.scope)
            witness: str | None = None
            try:
                witness = await self._receipts.wait_receipt(
                    self._rows.scope, epoch, seq, self._limits.receipt_s
                )
            except MeshError:
                pass
            if witness is None and self.stood_still():
                return False
        self._untold = False
        return True
