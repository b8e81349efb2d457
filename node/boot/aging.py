"""Ends dynamic bindings of machines that nobody has seen for a day.

It knows no packets. Rule: only the rendezvous owner of the site sweeps, only bindings of
machines that are no accepted servers go, and a machine that comes back computes the same
candidate again; so a pool that was filled with invented addresses empties by itself.
"""

from collections.abc import Collection, Iterable
from typing import Any, Final

import trio

from mesh.errors import Refused, StoreFull
from mesh.host.clock import Clock
from mesh.host.log import Log
from mesh.proto import tables
from mesh.proto.rendezvous import owner
from mesh.store import MeshStore, Row, Tx
from node.boot.snapshot import SnapshotSource

KEEP_MS: Final = 24 * 3_600_000
"""Well above the longest lease that a busy site uses and any difference of clocks."""
SWEEP_S: Final = 600.0
SWEEP_MAX: Final = 500
"""Bindings that one sweep ends; the next one goes on."""


def stale(
    bindings: Iterable[Row], sightings: Iterable[Row], known: Collection[str], now_ms: int
) -> list[str]:
    """Return the MACs whose binding may end, oldest first, at most SWEEP_MAX."""
    last: dict[str, int] = {}
    for row in sightings:
        last[row.key] = max(last.get(row.key, 0), _ms(row.body.get("last_ms")))
    found: list[tuple[int, str]] = []
    for row in bindings:
        seen_ms = max(last.get(row.key, 0), _ms(row.body.get("claimed_ms")))
        if row.key not in known and seen_ms + KEEP_MS < now_ms:
            found.append((seen_ms, row.key))
    return [mac for _, mac in sorted(found)[:SWEEP_MAX]]


async def sweep_forever(
    store: MeshStore, scope: str, snapshots: SnapshotSource, clock: Clock, log: Log
) -> None:
    """Sweep every ten minutes while we are the owner."""
    while True:
        await trio.sleep(SWEEP_S)
        try:
            await sweep(store, scope, snapshots, clock, log)
        except (StoreFull, Refused) as exc:  # the next sweep finds them again
            log.warning("bindings not swept", error=exc)


async def sweep(
    store: MeshStore, scope: str, snapshots: SnapshotSource, clock: Clock, log: Log
) -> None:
    """End what is stale now, if that is our task."""
    snapshot = snapshots.current()
    present = [m.node for m in snapshot.members if m.node not in snapshot.absent]
    if owner(present, "bindings") != store.author:
        return
    macs = stale(
        store.rows(scope, tables.BINDING),
        store.authored(scope, tables.SIGHTING),
        snapshot.known.keys(),
        clock.now_ms(),
    )
    if not macs:
        return

    def end(tx: Tx) -> None:
        for mac in macs:
            tx.delete(scope, tables.BINDING, mac)

    await store.write(end)
    log.info("bindings of machines long gone ended", count=len(macs))


def _ms(value: Any) -> int:
    return value if isinstance(value, int) else 0
