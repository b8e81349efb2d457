"""The mesh as pages and APIs are shown it in tests: a few members, made by the real views."""

from collections.abc import Callable
from typing import Any

import trio

from mesh.rest.mesh_types import Mesh, MeshAway, MeshLink, MeshSite, Topology
from mesh.rest.mesh_view import heard, said, topology


def link(node: str, name: str, site: str = "fra1", **more: Any) -> MeshLink:
    """Return a link with everything in it."""
    found = MeshLink(
        node=node, name=name, site=site, role="node" if site else "hub", path="tcp",
        address="10.0.0.2:4770", dialled=False, since_ms=1_700_000_000_000, round_trip_ms=1.25,
        bytes_in=12_000, bytes_out=34_000, in_per_s=12.0, out_per_s=34.0,
        synced_ms=1_700_000_100_000,
    )  # fmt: skip
    return {**found, **more}  # type: ignore[typeddict-item]


class SeenMesh:
    """What one member sees: the links that it is given, and who is away."""

    def __init__(
        self, me: str, role: str, links: Callable[[], list[MeshLink]], site: str = ""
    ) -> None:
        self.me, self.role, self.site, self.links = me, role, site, links
        self.away: list[MeshAway] = []
        self.others: dict[str, list[MeshLink]] = {}
        """What other members say they have."""

    def mesh(self) -> Mesh:
        links = self.links()
        return Mesh(
            node=self.me, name="here", site=self.site, role=self.role,
            healthy=not self.away, sentence=f"this {self.role} has {len(links)} links",
            gateways=[], members={"member": len(links) + 1}, links=links, away=self.away,
            sites=[MeshSite(site="fra1", members=2, linked=len(links), away=len(self.away),
                            newest_ms=1_700_000_000_000)],
            sets=3, digests={"fleet": "00" * 16}, register="11" * 16,
            counters={"handshakes": 2},
        )  # fmt: skip

    async def gather(self) -> Topology:
        await trio.lowlevel.checkpoint()
        return self.looked()[1]

    def looked(self) -> tuple[int, Topology]:
        now_ms = 1_700_000_200_000
        links = self.links()
        everyone = [*links, *(one for other in self.others.values() for one in other)]
        members = {
            one["node"]: {"name": one["name"], "site": one["site"], "role": one["role"]}
            for one in (*everyone, *self.away)
        }
        for node in self.others:
            members.setdefault(node, {"name": node, "site": "apart", "role": "node"})
        members[self.me] = {"name": "here", "site": self.site, "role": self.role}
        views = {
            node: (now_ms, heard(said(listed, gateway=node != self.me, now_ms=now_ms)))
            for node, listed in {**self.others, self.me: links}.items()
        }
        return now_ms, topology(self.me, members, views, len(links))  # type: ignore[arg-type]
