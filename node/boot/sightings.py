"""Sightings: this node's rows about the machines that it has seen on DHCP.

It knows no packets. Rule: a row is written when something about the machine changed, else at
most once a minute, so that a thousand renewing machines cost no stream of replication; what
other services of this node wrote into the row (hardware summary, first time) stays.
"""

from collections import Counter, OrderedDict
from functools import partial
from typing import Any, Final

import trio

from mesh.errors import Refused, StoreFull
from mesh.host.clock import Clock
from mesh.proto import tables
from mesh.store import MeshStore, Tx
from node.proto.dhcp_answer import Seen

AGAIN_MS: Final = 60_000
GATHER_S: Final = 0.1
"""Sightings of one moment go into one commit."""
WAITING_MAX: Final = 1024
REMEMBERED_MAX: Final = 16_384
NEW_PER_MINUTE_MAX: Final = 600
"""MAC addresses never seen before; a flood of invented ones is dropped and counted."""


class Sightings:
    """Gathers what was seen and writes it; ``run`` returns only when it is cancelled."""

    def __init__(self, store: MeshStore, scope: str, clock: Clock) -> None:
        self.counts: Counter[str] = Counter()
        self._store = store
        self._scope = scope
        self._clock = clock
        self._written: OrderedDict[str, tuple[Seen, int]] = OrderedDict()
        self._waiting: dict[str, Seen] = {}
        self._arch: OrderedDict[str, str] = OrderedDict()
        self._wake = trio.Event()
        self._minute = 0
        self._new = 0

    def note(self, seen: Seen) -> None:
        """Remember one sighting for the next commit, unless it says nothing new."""
        now_ms = self._clock.now_ms()
        before = self._written.get(seen.mac)
        if before is not None and before[0] == seen and now_ms - before[1] < AGAIN_MS:
            return
        if seen.mac not in self._waiting:
            if before is None and not self._admit_new(now_ms):
                self.counts["sightings dropped flood"] += 1
                return
            if len(self._waiting) >= WAITING_MAX:
                self.counts["sightings dropped full"] += 1
                return
        self._waiting[seen.mac] = seen
        self._written[seen.mac] = (seen, now_ms)
        self._arch[str(seen.ip)] = seen.arch
        while len(self._arch) > REMEMBERED_MAX:
            self._arch.popitem(last=False)
        self._written.move_to_end(seen.mac)
        while len(self._written) > REMEMBERED_MAX:
            self._written.popitem(last=False)
        self._wake.set()

    def arch_at(self, client_ip: str) -> str:
        """Return the kind of firmware that last got an address, "" when it never did."""
        return self._arch.get(client_ip, "")

    def _admit_new(self, now_ms: int) -> bool:
        if now_ms // AGAIN_MS != self._minute:
            self._minute, self._new = now_ms // AGAIN_MS, 0
        self._new += 1
        return self._new <= NEW_PER_MINUTE_MAX

    async def run(self) -> None:
        """Write what is noted, gathered over a moment."""
        while True:
            await self._wake.wait()
            await trio.sleep(GATHER_S)
            self._wake = trio.Event()
            batch, self._waiting = self._waiting, {}
            try:
                await self._store.write(partial(self._put, batch))
            except (StoreFull, Refused):
                self.counts["sightings not written"] += len(batch)
            else:
                self.counts["sightings written"] += len(batch)

    def _put(self, batch: dict[str, Seen], tx: Tx) -> None:
        for mac, seen in batch.items():
            row = tx.own(self._scope, tables.SIGHTING, mac)
            body: dict[str, Any] = dict(row.body) if row is not None else {}
            body.setdefault("first_ms", tx.now_ms)
            body.setdefault("macs", [mac])
            body.setdefault("summary", "")
            body |= {"mac": mac, "ip": str(seen.ip), "last_ms": tx.now_ms, "where": seen.where}
            body["arch"] = seen.arch or body.get("arch", "")
            body["uuid"] = seen.uuid or body.get("uuid")
            body["port"] = seen.port or body.get("port", "")
            tx.put(self._scope, tables.SIGHTING, mac, body)
