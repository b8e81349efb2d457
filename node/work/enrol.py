"""How machines become servers: rows made by accept and adopt, and what they are made of.

It knows rows, and no power. Rules: a row is made once, whatever is repeated; a machine may
claim MACs of its own alone; a server that is adopted is monitored from its first row on, so
there is no moment in which it could be booted.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from mesh.proto import tables
from mesh.proto.enrol import MANAGED, MONITORED
from node.proto.agent_wire import summary
from node.proto.lifecycle import ADOPT, machine_mac
from node.work.ports import Tx
from node.work.rows import SiteRows

Job = Mapping[str, Any]


class Enrol:
    """Carries out the steps of accept, adopt and promote that only write rows."""

    def __init__(self, rows: SiteRows) -> None:
        self._rows = rows

    async def record(self, job: Job) -> dict[str, Any]:
        """Make the SERVER row of an accept or adopt, once."""
        params, scope = job["params"], self._rows.scope
        mac = machine_mac(params)
        seen = self._rows.inventory(mac or "") or {}
        adopted = job["kind"] == ADOPT

        def fn(tx: Tx) -> None:
            if tx.get(scope, tables.SERVER, params["server"]) is not None:
                return
            named = [mac, *(params.get("macs") or ()), *(seen.get("macs") or ())]
            macs = _own_macs(tx, scope, params["server"], named)
            body = {
                "id": params["server"], "name": params["name"], "site": self._rows.site,
                "macs": macs,
                "state": "adopting" if adopted else "inspecting",
                "administration": MONITORED if adopted else MANAGED,
                "tags": list(params.get("tags") or ()),
                "serial": params.get("serial") or seen.get("serial"),
                "cleaned": False, "hold": False,
                "bmc": params.get("bmc"), "ip": params.get("ip"), "job": job["id"],
                "image": None, "hostname": None, "error": None,
                "summary": seen.get("summary") or "", "accepted_ms": tx.now_ms,
                "changed_ms": tx.now_ms,
            }  # fmt: skip
            tx.put(scope, tables.SERVER, params["server"], body)

        await self._rows.store.write(fn)
        return {"server": params["server"]}

    async def promote(self, job: Job) -> dict[str, Any]:
        """Make a monitored server a managed one; nothing else of it changes."""
        scope, server_id = self._rows.scope, str(job["server"])

        def fn(tx: Tx) -> None:
            row = tx.get(scope, tables.SERVER, server_id)
            if row is not None and row.body.get("administration") != MANAGED:
                body = {**row.body, "administration": MANAGED, "changed_ms": tx.now_ms}
                tx.put(scope, tables.SERVER, server_id, body)

        await self._rows.store.write(fn)
        return {"administration": MANAGED}

    async def inspect(self, job: Job) -> dict[str, Any]:
        """Wait for the inventory that the machine's ramdisk sends."""
        scope, server_id = self._rows.scope, str(job["server"])
        while True:
            version = self._rows.store.version
            server = self._rows.server(server_id)
            found = None if server is None else self._rows.inventory_of(server)
            if found is not None:
                break
            await self._rows.store.wait_past(version)
        line = str(found.get("summary") or summary(found.get("inventory") or {}))

        def fn(tx: Tx) -> None:
            row = tx.get(scope, tables.SERVER, server_id)
            if row is not None:
                macs = [*(row.body.get("macs") or ()), *(found.get("macs") or ())]
                own = _own_macs(tx, scope, server_id, macs)
                serial = row.body.get("serial") or found.get("serial")
                body = {**row.body, "summary": line, "macs": own, "serial": serial}
                tx.put(scope, tables.SERVER, server_id, body)

        await self._rows.store.write(fn)
        return {"summary": line}


def _own_macs(tx: Tx, scope: str, server_id: str, macs: Iterable[Any]) -> list[str]:
    """Return the MACs that no other server has: a machine may claim what it likes."""
    taken = {
        mac
        for row in tx.rows(scope, tables.SERVER)
        if row.key != server_id
        for mac in row.body.get("macs") or ()
    }
    return [mac for mac in dict.fromkeys(macs) if isinstance(mac, str) and mac not in taken]
