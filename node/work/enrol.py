"""How machines become servers: rows made by accept and adopt, and what they are made of.

It knows rows, and no power. Rules: a row is made once, whatever is repeated; a machine may
claim MACs of its own alone; a server that is adopted is monitored from its first row on, so
there is no moment in which it could be booted.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from mesh.errors import Refused
from mesh.proto import tables
from mesh.proto.enrol import MANAGED, MONITORED
from node.proto.agent_wire import kept_inventory, summary
from node.proto.lifecycle import ADOPT, machine_mac, same_machine
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

        def fn(tx: Tx) -> None:
            if tx.get(scope, tables.SERVER, params["server"]) is None:
                tx.put(scope, tables.SERVER, params["server"], self._new(tx, job, seen))

        await self._rows.store.write(fn)
        return {"server": params["server"]}

    def _new(self, tx: Tx, job: Job, seen: Mapping[str, Any]) -> dict[str, Any]:
        """Return the row of a new server; ``seen`` is the inventory of its machine."""
        params, adopted = job["params"], job["kind"] == ADOPT
        named = [machine_mac(params), *(params.get("macs") or ()), *(seen.get("macs") or ())]
        return {
            "id": params["server"], "name": params["name"], "site": self._rows.site,
            "macs": _own_macs(tx, self._rows.scope, params["server"], named),
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

    async def boot_by(self, job: Job, way: str) -> dict[str, Any]:
        """Write beside a server's BMC how it boots."""
        scope, server_id = self._rows.scope, str(job["server"])

        def fn(tx: Tx) -> None:
            row = tx.get(scope, tables.SERVER, server_id)
            known = row.body if row is not None else {}
            bmc = known.get("bmc")
            if not isinstance(bmc, Mapping):
                raise Refused(f"{job.get('server_name')} has no BMC any more")
            body = {**known, "bmc": {**bmc, "boot_by": way}, "changed_ms": tx.now_ms}
            tx.put(scope, tables.SERVER, server_id, body)

        await self._rows.store.write(fn)
        return {"boot_by": way}

    async def inspected(self, job: Job, found: Mapping[str, Any]) -> dict[str, Any]:
        """Make the server that a BMC describes; Refused when that is another one of ours.

        Only then does its row stand: a wrong BMC leaves nothing behind.

        An inventory that the ramdisk sent stays: it has seen the machine from inside.
        """
        hardware = kept_inventory(found)
        system = hardware.get("system")
        told = system if isinstance(system, Mapping) else {}
        line, serial = summary(hardware), told.get("serial") or None
        listed = hardware.get("nics")
        nics = listed if isinstance(listed, list) else []
        macs = [nic["mac"] for nic in nics if isinstance(nic, Mapping) and nic.get("mac")]
        scope, server_id = self._rows.scope, str(job["server"])

        def fn(tx: Tx) -> list[str]:
            row = tx.get(scope, tables.SERVER, server_id)
            known = row.body if row is not None else self._new(tx, job, {})
            servers = [item.body for item in tx.rows(scope, tables.SERVER)]
            others = [body for body in servers if body.get("id") != server_id]
            params = {**job["params"], "macs": macs, "serial": serial}
            seen = [item.body for item in tx.rows(scope, tables.INVENTORY)]
            same = same_machine(params, others, seen)
            if same is not None:
                raise Refused(f"its BMC says that {same}")
            own = list(dict.fromkeys([*(known.get("macs") or ()), *macs]))
            if not own:
                raise Refused(
                    "its BMC tells no MAC address: accept it by its MAC, after a boot from the"
                    " network"
                )
            body = {
                **known, "macs": own, "summary": line,
                "serial": serial or known.get("serial"), "changed_ms": tx.now_ms,
            }  # fmt: skip
            tx.put(scope, tables.SERVER, server_id, body)
            if not any(_from_ramdisk(tx, scope, mac) for mac in own):
                inventory = {
                    "mac": own[0], "macs": own, "inventory": hardware, "summary": line,
                    "uuid": told.get("uuid") or None, "serial": (serial or "").lower() or None,
                    "ip": None, "at_ms": tx.now_ms, "source": "redfish",
                }  # fmt: skip
                tx.put(scope, tables.INVENTORY, own[0], inventory)
            return own

        own = await self._rows.store.write(fn)
        return {"summary": line, "macs": own, "source": "redfish"}

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


def _from_ramdisk(tx: Tx, scope: str, mac: str) -> bool:
    row = tx.get(scope, tables.INVENTORY, mac)
    return row is not None and row.body.get("source") != "redfish"


def _own_macs(tx: Tx, scope: str, server_id: str, macs: Iterable[Any]) -> list[str]:
    """Return the MACs that no other server has: a machine may claim what it likes."""
    taken = {
        mac
        for row in tx.rows(scope, tables.SERVER)
        if row.key != server_id
        for mac in row.body.get("macs") or ()
    }
    return [mac for mac in dict.fromkeys(macs) if isinstance(mac, str) and mac not in taken]
