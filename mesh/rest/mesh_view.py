"""The mesh as resources: made from plain facts of one member, and from what others say.

Pure functions; they know no link and no store. Rule: what another member says is checked field
by field and cut to limits; a member is in a part only if somebody sees a link of it.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Final

from mesh.rest.mesh_types import (
    MeshLink,
    Topology,
    TopologyEdge,
    TopologyNode,
    TopologyPart,
)

LINKS_SAID_MAX: Final = 8192
"""Links in one member's answer that are read."""
PATHS: Final = frozenset({"tcp", "websocket", "udp", "relay"})
Facts = Mapping[str, Any]
"""Of a member: ``name``, ``site``, ``role``."""


def said(links: Iterable[MeshLink], gateway: bool, now_ms: int) -> dict[str, Any]:
    """Return what a member answers when another asks for its links."""
    listed = [[link["node"], link["path"], link["round_trip_ms"]] for link in links]
    return {"at": now_ms, "gateway": gateway, "links": listed[:LINKS_SAID_MAX]}


def heard(answer: Any) -> dict[str, Any] | None:
    """Check a member's answer; None when it is none."""
    if not isinstance(answer, dict) or not isinstance(answer.get("links"), list):
        return None
    links: list[tuple[str, str, float | None]] = []
    for entry in answer["links"][:LINKS_SAID_MAX]:
        match entry:
            case [str(node), str(path), int() | float() | None as round_trip]:
                known = path if path in PATHS else "tcp"
                links.append((node, known, None if round_trip is None else float(round_trip)))
            case _:
                pass
    return {"gateway": answer.get("gateway") is True, "links": links}


def topology(
    me: str,
    members: Mapping[str, Facts],
    views: Mapping[str, tuple[int, Mapping[str, Any]]],
    asked: int,
) -> Topology:
    """Return the graph of links among active ``members``.

    ``views``: by member, when it said (Unix ms) and what (``heard``), our own among them.
    """
    edges = _edges(members, views)
    parts = _parts(members, [(edge["a"], edge["b"]) for edge in edges], me)
    numbers = {node: number for number, part in enumerate(parts) for node in part}
    nodes = [
        TopologyNode(
            node=node,
            name=str(facts["name"]),
            site=str(facts["site"]),
            role=str(facts["role"]),
            gateway=bool(views[node][1]["gateway"]) if node in views else None,
            as_of_ms=views[node][0] if node in views else None,
            part=numbers.get(node),
        )
        for node, facts in sorted(members.items())
    ]
    return Topology(
        node=me,
        asked=asked,
        answered=max(0, len(views) - 1),
        nodes=nodes,
        edges=edges,
        parts=[_part(number, part, members, me) for number, part in enumerate(parts)],
        unknown=sorted(node for node in members if node not in numbers),
    )


def _edges(
    members: Mapping[str, Facts], views: Mapping[str, tuple[int, Mapping[str, Any]]]
) -> list[TopologyEdge]:
    found: dict[tuple[str, str], TopologyEdge] = {}
    for node in sorted(views):
        for peer, path, round_trip in views[node][1]["links"]:
            if peer not in members or node not in members or peer == node:
                continue
            pair = (min(node, peer), max(node, peer))
            known = found.get(pair)
            if known is None:
                found[pair] = TopologyEdge(
                    a=pair[0], b=pair[1], path=path, round_trip_ms=round_trip, said_by=1
                )
            else:
                known["said_by"] = 2
                if known["round_trip_ms"] is None:
                    known["round_trip_ms"] = round_trip
    return [found[pair] for pair in sorted(found)]


def _parts(
    members: Collection[str], pairs: Sequence[tuple[str, str]], me: str
) -> list[list[str]]:
    """Return the connected parts, ours first, then the larger first."""
    near: dict[str, set[str]] = {me: set()}
    for a, b in pairs:
        near.setdefault(a, set()).add(b)
        near.setdefault(b, set()).add(a)
    parts: list[list[str]] = []
    seen: set[str] = set()
    for start in sorted(near):
        if start in seen or start not in members:
            continue
        part, todo = {start}, [start]
        while todo:
            fresh = near[todo.pop()] - part
            part |= fresh
            todo += fresh
        seen |= part
        parts.append(sorted(part))
    return sorted(parts, key=lambda part: (me not in part, -len(part), part))


def _part(
    number: int, part: Sequence[str], members: Mapping[str, Facts], me: str
) -> TopologyPart:
    sites = sorted({str(members[node]["site"]) for node in part} - {""})
    return TopologyPart(number=number, nodes=len(part), sites=sites, here=me in part)
