"""The rows of one site as work reads them.

It knows tables and keys, no rules. Rule: what comes back is a copy's body that may be read but
never changed in place; missing fields are the caller's business (``.get``).
"""

import re
from collections.abc import Mapping
from typing import Any, Final

from mesh.errors import Refused
from mesh.proto import tables
from mesh.proto.trust import ROLE_HUB
from node.proto import lifecycle
from node.proto.plan import Step, plan
from node.work.ports import Members, Store

BOOT_URL: Final = re.compile(r"http://[0-9A-Za-z.\-]{1,253}(?::[0-9]{1,5})?\Z")
"""What may stand in a kernel command line; other nodes' rows are input."""
BOOT_URLS_MAX: Final = 8


class SiteRows:
    """Reads what is known about a site now."""

    def __init__(self, store: Store, members: Members, site: str, node_id: str) -> None:
        self.store = store
        self.members = members
        self.site = site
        self.node_id = node_id
        self.scope = tables.site_scope(site)

    def server(self, server_id: str | None) -> Mapping[str, Any] | None:
        """Return a SERVER row's body."""
        return self._body(tables.SERVER, server_id)

    def servers(self) -> list[Mapping[str, Any]]:
        """Return the bodies of all SERVER rows."""
        found = [row.body for row in self.store.rows(self.scope, tables.SERVER)]
        return [body for body in found if isinstance(body.get("macs"), list) and body.get("id")]

    def server_by_mac(self, mac: str) -> Mapping[str, Any] | None:
        """Return the server that has an interface with this MAC."""
        return next((s for s in self.servers() if mac in (s.get("macs") or ())), None)

    def job(self, job_id: str | None) -> Mapping[str, Any] | None:
        """Return a JOB row's body."""
        body = self._body(tables.JOB, job_id)
        return body if body is not None and is_job(body) else None

    def jobs(self) -> dict[str, Mapping[str, Any]]:
        """Return the bodies of all JOB rows by id."""
        found = self.store.rows(self.scope, tables.JOB)
        return {
            row.key: row.body for row in found if is_job(row.body) and row.key == row.body["id"]
        }

    def inventory(self, mac: str) -> Mapping[str, Any] | None:
        """Return an INVENTORY row's body."""
        return self._body(tables.INVENTORY, mac)

    def inventories(self) -> list[Mapping[str, Any]]:
        """Return the bodies of all INVENTORY rows."""
        return [row.body for row in self.store.rows(self.scope, tables.INVENTORY)]

    def refuse_new(self, params: Mapping[str, Any]) -> str | None:
        """Say why an accept or adopt cannot make its server, or None."""
        return lifecycle.refuse_accept(params, self.servers(), self.inventories())

    def inventory_of(self, server: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """Return the inventory of the first of a server's MACs that has one."""
        for mac in server.get("macs") or ():
            found = self.inventory(mac)
            if found is not None:
                return found
        return None

    def site_nodes(self) -> list[str]:
        """Return the active nodes of the site, this one included."""
        found = {
            member.node_id
            for member in self.members.members()
            if member.site == self.site and "node" in member.roles
            if self.members.active(member.node_id)
        }
        return sorted(found | {self.node_id})

    def check_near(self, peer: str) -> None:
        """Raise Refused unless the caller is an active node of this site."""
        if peer not in self.site_nodes():
            raise Refused(f"only nodes of site {self.site} may ask this")

    def check_near_or_hub(self, peer: str) -> None:
        """Raise Refused unless the caller is an active node of this site, or a hub."""
        member = next((m for m in self.members.members() if m.node_id == peer), None)
        hub = member is not None and ROLE_HUB in member.roles and self.members.active(peer)
        if not hub:
            self.check_near(peer)

    def node_bodies(self) -> dict[str, Mapping[str, Any]]:
        """Return the NODE rows of the site's active nodes."""
        nodes = set(self.site_nodes())
        rows = self.store.authored(tables.FLEET, tables.NODE)
        return {row.author: row.body for row in rows if row.author in nodes}

    def node_names(self) -> dict[str, str]:
        """Return the names that nodes give themselves, also of those that are gone."""
        rows = self.store.authored(tables.FLEET, tables.NODE)
        said = {row.author: row.body.get("name") for row in rows}
        return {node: name for node, name in said.items() if isinstance(name, str) and name}

    def boot_urls(self) -> list[str]:
        """Return the boot URLs of the site's nodes, ours first."""
        bodies = self.node_bodies()
        order = sorted(bodies, key=lambda node: (node != self.node_id, node))
        urls = [bodies[node].get("boot_url") for node in order]
        found = [url.rstrip("/") for url in urls if isinstance(url, str)]
        return [url for url in found if BOOT_URL.match(url)][:BOOT_URLS_MAX]

    def _body(self, table: str, key: str | None) -> Mapping[str, Any] | None:
        if not key:
            return None
        row = self.store.get(self.scope, table, key)
        return None if row is None else row.body


def is_job(body: Mapping[str, Any]) -> bool:
    """Whether a JOB row of any author has what is needed to read it."""
    texts = all(isinstance(body.get(name), str) for name in ("id", "kind", "runner", "state"))
    steps = body.get("steps")
    return (
        texts
        and isinstance(body.get("attempt"), int)
        and isinstance(body.get("params"), Mapping)
        and isinstance(steps, list)
        and all(isinstance(e, Mapping) and {"id", "state"} <= e.keys() for e in steps)
        and (not steps or body["kind"] in lifecycle.KINDS)
    )


def plan_of(row: Mapping[str, Any]) -> tuple[Step, ...]:
    """Return the plan of a job's row (empty for rows that were refused before a plan)."""
    return planned(row) if row.get("steps") else ()


def planned(row: Mapping[str, Any]) -> tuple[Step, ...]:
    """Return the plan of what a job's row says, also before it has steps."""
    name = row.get("server_name") or row.get("server") or "the server"
    bmc, rotate = bool(row.get("bmc")), bool(row.get("rotate"))
    media = bmc and bool(row.get("media"))
    return plan(row["kind"], row["params"], name, bmc, media, rotate)
