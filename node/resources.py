"""The site as the API shows it: every resource made from this node's rows, when asked for.

The same views as the hub's (mesh/rest/views.py). It knows neither HTTP nor orders. Rule: what
nobody here can know is null.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

from mesh.host.clock import Clock
from mesh.proto.hook import Hook, in_force
from mesh.proto.order import Order, OrderRefused, open_order
from mesh.proto.tables import (
    BMC_SIGHTING,
    FLEET,
    HOOK,
    INVENTORY,
    JOB,
    NODE,
    ORDER,
    SERVER,
    SIGHTING,
    SITE,
    TEMPLATE,
    VERDICT,
    site_scope,
)
from mesh.rest import asset_view, groups, views
from mesh.rest.bmc_types import FoundBmc
from mesh.rest.bmc_view import bmcs
from mesh.rest.job_view import Here, as_seen
from mesh.rest.lists import JOB_OVER, Page, Plan, page
from mesh.rest.problems import RequestProblem
from mesh.rest.types import Asset, Group, Inventory, Job, Node, Pending, Server, Site

NO_ROOM: Final = "waits for room on the node's disk"


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """Reads what this node knows."""

    node: str
    site: str
    store: Any
    register: Any
    peers: Any
    clock: Clock

    def page(self, asked: Plan) -> Page:
        """Return a page of one of the lists."""
        lists: dict[str, Callable[[], list[Any]]] = {
            "sites": self.sites, "nodes": self.nodes, "servers": self.servers,
            "pending": self.pending, "jobs": self.jobs, "groups": self.groups,
            "assets": self.assets, "bmcs": self.bmcs,
        }  # fmt: skip
        return page(asked, lists[asked.of.noun]())

    def sites(self) -> list[Site]:
        """Return the sites of the organisation; counts only of this one."""
        running = [job for job in self.jobs() if job["state"] not in JOB_OVER]
        regions = {row.key: row.body.get("region") for row in self.store.rows(FLEET, SITE)}
        states = dict(Counter(server["state"] for server in self.servers()))
        waiting = sum(not seen["rejected"] for seen in self.pending())
        return views.sites(
            regions, self.nodes(), {self.site: states}, {self.site: len(running)},
            {self.site: waiting},
        )  # fmt: skip

    def nodes(self) -> list[Node]:
        """Return all members, with those that this node reaches now."""
        rows = self.store.authored(FLEET, NODE)
        said = {row.author: row.body for row in rows if row.author == row.key}
        near = {*self.peers.connected(), self.node}
        now = self.clock.now_ms()
        return [
            views.node(m, said.get(m.node_id, {}), True, now)
            if m.node_id in near
            else views.node(m, said.get(m.node_id, {}), None, None)
            for m in self.register.members()
        ]

    def servers(self) -> list[Server]:
        """Return the servers of the site."""
        return [views.server(row.body) for row in self.store.rows(self.scope, SERVER)]

    def server(self, name_or_id: str) -> Server:
        """Return a server by name or id."""
        found = [s for s in self.servers() if name_or_id in (s["id"], s["name"])]
        return cast(Server, _only(found, "server", name_or_id))

    def inventory(self, name_or_id: str) -> Inventory:
        """Return what a server is made of."""
        server = self.server(name_or_id)
        for mac in server["macs"]:
            row = self.store.get(self.scope, INVENTORY, mac)
            if row is not None:
                return views.inventory({**row.body, "mac": mac}, server["id"])
        raise RequestProblem(
            "not-found", f"{server['name']} has not been inspected: it never ran the ramdisk"
        )

    def pending(self) -> list[Pending]:
        """Return machines that were seen here and not accepted."""
        seen = [(row.author, row.body) for row in self.store.authored(self.scope, SIGHTING)]
        servers = [row.body for row in self.store.rows(self.scope, SERVER)]
        inventories, verdicts = (
            self.store.rows(self.scope, table) for table in (INVENTORY, VERDICT)
        )
        return views.pending(self.site, seen, servers, inventories, verdicts)

    def bmcs(self) -> list[FoundBmc]:
        """Return the BMCs that scans of this site have found."""
        seen = [(row.author, row.body) for row in self.store.authored(self.scope, BMC_SIGHTING)]
        servers = [row.body for row in self.store.rows(self.scope, SERVER)]
        return bmcs(self.site, seen, servers)

    def jobs(self) -> list[Job]:
        """Return jobs and orders as they look from here now."""
        rows, orders, servers = (
            self.store.rows(self.scope, table) for table in (JOB, ORDER, SERVER)
        )
        jobs = [views.job(row.body) for row in rows]
        jobs += views.waiting_orders(self.site, orders, rows, servers, self._read_order)
        here = self._here()
        jobs = [as_seen(job, here) for job in jobs]
        if self.store.full:  # what it waits for cannot be written into its row
            for job in (job for job in jobs if job["runner"] in (None, self.node)):
                if job["state"] not in (*JOB_OVER, "parked"):
                    job["waits_for"] = NO_ROOM
        return jobs

    def job(self, job_id: str) -> Job:
        """Return a job by id."""
        found = [job for job in self.jobs() if job["id"] == job_id]
        return cast(Job, _only(found, "job", job_id))

    def groups(self) -> list[Group]:
        """Return this site's part of the groups."""
        return groups.groups(self.jobs())

    def group_jobs(self, group: str) -> list[Job]:
        """Return the jobs of a group at this site."""
        found = [job for job in self.jobs() if job["group"] == group]
        if not found:
            raise RequestProblem("not-found", f"there is no group {group!r} at this site")
        return found

    def assets(self) -> list[Asset]:
        """Return all assets with how they fare at the sites."""
        return asset_view.assets_in(self.store, self.register)

    def asset(self, name: str) -> Asset:
        """Return an asset by name."""
        found = [asset for asset in self.assets() if asset["name"] == name]
        return cast(Asset, _only(found, "asset", name))

    def templates(self) -> dict[str, Mapping[str, Any]]:
        """Return the rows of the boot templates, by name."""
        return {row.key: row.body for row in self.store.rows(FLEET, TEMPLATE)}

    def hooks(self) -> dict[str, Hook]:
        """Return the hooks that are in force, by name."""
        return in_force((row.key, row.body) for row in self.store.rows(FLEET, HOOK))

    @property
    def scope(self) -> str:
        """The scope of this site's rows."""
        return site_scope(self.site)

    def _here(self) -> Here:
        """Return what this node knows beside the rows of jobs."""
        rows = self.store.authored(FLEET, NODE)
        named = {row.author: row.body.get("name") for row in rows}
        members = {
            member.node_id: str(named.get(member.node_id) or member.node_id[:8])
            for member in self.register.site_members(self.site)
        }
        return Here(
            now_ms=self.clock.now_ms(),
            name="this node",
            reachable={self.node, *self.peers.connected()},
            members=members,
        )

    def _read_order(self, row: views.RowLike) -> Order | None:
        signed = row.body.get("signed")
        try:
            if isinstance(signed, bytes):
                return open_order(signed, self.register, None, site=self.site)
        except OrderRefused as exc:
            return exc.order  # of somebody who may give orders; it ends with the sentence
        return None


def _only(found: list[Any], noun: str, name: str) -> Any:
    if not found:
        raise RequestProblem("not-found", f"there is no {noun} {name!r}")
    return found[0]
