"""What machines say about themselves: INVENTORY and SIGHTING rows from the ramdisk's hello.

It knows no jobs. Rules: a row is written when something changed, else at most every ten
minutes; the number of machines is bounded, a flood of invented ones is dropped and counted;
nothing that another service of this node wrote into a sighting is lost."""

from collections.abc import Callable
from typing import Any, Final

from mesh.proto import tables
from node.proto.agent_wire import Hello, summary
from node.work.ports import Tx
from node.work.rows import SiteRows

AGAIN_MS: Final = 600_000
MACHINES_MAX: Final = 4096
"""INVENTORY rows of a site."""


class Machines:
    """Keeps what hellos say."""

    def __init__(self, rows: SiteRows, now_ms: Callable[[], int]) -> None:
        self._rows = rows
        self._now_ms = now_ms
        self.dropped = 0

    async def keep(self, hello: Hello, client_ip: str) -> bool:
        """Keep a hello's inventory; False when there are too many machines."""
        scope, now = self._rows.scope, self._now_ms()
        known = self._rows.inventory(hello.mac)
        body: dict[str, Any] = {
            "mac": hello.mac, "macs": list(hello.macs), "inventory": hello.inventory,
            "uuid": hello.uuid, "serial": hello.serial, "summary": summary(hello.inventory),
            "ip": client_ip, "at_ms": now,
        }  # fmt: skip
        if known is not None:
            same = {**known, "at_ms": now} == body
            if same and now - int(known.get("at_ms") or 0) < AGAIN_MS:
                return True
        elif len(self._rows.store.rows(scope, tables.INVENTORY)) >= MACHINES_MAX:
            self.dropped += 1
            return False

        def fn(tx: Tx) -> None:
            tx.put(scope, tables.INVENTORY, hello.mac, body)
            own = tx.own(scope, tables.SIGHTING, hello.mac)
            old = dict(own.body) if own is not None else {}
            sighting = {
                **old, "mac": hello.mac, "macs": body["macs"], "ip": client_ip,
                "uuid": hello.uuid or old.get("uuid"), "last_ms": now, "where": "ramdisk",
                "summary": body["summary"], "first_ms": old.get("first_ms") or now,
                "arch": old.get("arch") or "",
            }  # fmt: skip
            tx.put(scope, tables.SIGHTING, hello.mac, sighting)

        await self._rows.store.write(fn)
        return True
