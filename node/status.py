"""How a node fares, in one sentence and a list of problems with what to do."""

from typing import TYPE_CHECKING, Final

from mesh.host.build import BUILD
from mesh.proto.evidence import problems as proven
from mesh.proto.tables import FLEET, NODE
from mesh.rest.types import Status

if TYPE_CHECKING:
    from node.main import Node


NEEDED: Final = frozenset({"vmlinuz", "initrd", "undionly.kpxe"})
"""Without these no machine of the first kind (BIOS) can boot off this node."""


def node_status(node: "Node") -> Status:
    """Return the status resource of a running node."""
    register = node.register.register
    connected = node.peers.connected()
    hubs = [hub.node_id for hub in register.hubs()]
    linked = [hub for hub in hubs if hub in connected]
    names = {row.author: row.body.get("name") for row in node.store.authored(FLEET, NODE)}
    twin = node.store.own.twin_problem(node.clock.now_ms())
    boot = node.boot.problems() if node.boot else []
    said = (
        node.store.room.problem,
        node.clock.problem,
        twin,
        node.work.tenure.trouble(),
        *boot,
    )
    problems = [*filter(None, said), *proven(node.store.proofs)]
    if node.secrets.current() is None:
        problems.append("the site secret is not known yet: machines cannot be given work")
    missing = sorted(NEEDED - set(node.files.names())) if node.boot else []
    if missing:
        problems.append(
            f"boot files are missing ({', '.join(missing)}): scripts/fetch-boot-files and"
            " scripts/build-ramdisk make them"
        )
    if hubs and not linked:
        problems.append("no hub is in reach; the site works on by itself")
    peers = [
        {
            "node": peer,
            "name": names.get(peer) or peer[:8],
            "role": "hub" if peer in hubs else "node",
            "site": member.site if (member := register.member(peer)) else None,
            "since_ms": info.since_ms,
            "address": info.address,
        }
        for peer, info in connected.items()
    ]
    where = f"{len(linked)} of {len(hubs)} hubs, {len(connected) - len(linked)} nodes connected"
    word = "healthy" if not problems else "degraded"
    return Status(
        role="node",
        name=node.joined.name,
        node=node.identity.node_id,
        site=node.joined.site,
        healthy=not problems,
        sentence=f"node {node.joined.name} of site {node.joined.site} is {word}; {where}",
        problems=problems,
        build=BUILD,
        started_ms=node.started_ms,
        root_fingerprint=register.root_fp.hex(),
        peers=peers,
        services={
            "ports": dict(node.ports),
            "boot": node.boot.statistics() if node.boot else {},
        },
    )
