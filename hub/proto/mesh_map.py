"""Where the members of the mesh stand on a picture, and the halos around its parts.

Pure: a topology in, numbers out, all in the units of a viewBox of SIZE x SIZE. Hubs stand in
the middle, sites on a circle around them, sites of one part side by side, so that a part is an
arc; a site's nodes stand around its own middle. Rule: equal topologies give equal pictures, and
what does not fit is counted, never dropped silently.
"""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from mesh.rest.mesh_types import Topology, TopologyEdge, TopologyNode

SIZE: Final = 720.0
RING: Final = 250.0
"""Radius of the circle on which sites stand."""
HUB_RING: Final = 46.0
SITES_MAX: Final = 40
NODES_MAX: Final = 24
"""Nodes of one site that are drawn."""
HALO: Final = 62.0
"""How far a halo reaches around the middle of a site."""


@dataclass(frozen=True, slots=True)
class Dot:
    """A member."""

    x: float
    y: float
    node: TopologyNode


@dataclass(frozen=True, slots=True)
class Label:
    """A site's name."""

    x: float
    y: float
    anchor: str
    text: str
    more: int  # nodes that are not drawn


@dataclass(frozen=True, slots=True)
class Line:
    """A link."""

    x1: float
    y1: float
    x2: float
    y2: float
    edge: TopologyEdge


@dataclass(frozen=True, slots=True)
class Halo:
    """The outline of a part that has no link to ours, or of members that nobody sees."""

    path: str
    part: int | None


@dataclass(slots=True)
class Picture:
    """All that is drawn."""

    dots: list[Dot] = field(default_factory=list)
    labels: list[Label] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)
    halos: list[Halo] = field(default_factory=list)
    sites_left_out: int = 0


def draw(seen: Topology) -> Picture:
    """Return the picture of a topology."""
    by_site: dict[str, list[TopologyNode]] = defaultdict(list)
    hubs = [node for node in seen["nodes"] if node["role"] == "hub"]
    for node in seen["nodes"]:
        if node["role"] != "hub":
            by_site[node["site"]].append(node)
    sites = sorted(by_site, key=lambda site: (_part_of(by_site[site]), site))
    picture = Picture(sites_left_out=max(0, len(sites) - SITES_MAX))
    shown = sites[:SITES_MAX]
    middle = SIZE / 2
    for number, hub in enumerate(hubs[:NODES_MAX]):
        radius = HUB_RING if len(hubs) > 1 else 0.0
        picture.dots.append(Dot(*_around(middle, middle, radius, number, len(hubs)), hub))
    for number, site in enumerate(shown):
        _place_site(picture, site, by_site[site], number, len(shown))
    places = {dot.node["node"]: dot for dot in picture.dots}
    for edge in seen["edges"]:
        a, b = places.get(edge["a"]), places.get(edge["b"])
        if a is not None and b is not None:
            picture.lines.append(Line(a.x, a.y, b.x, b.y, edge))
    picture.halos = _halos([_part_of(by_site[site]) for site in shown])
    return picture


def _part_of(nodes: Sequence[TopologyNode]) -> int:
    """Return the part of a site's first node with one; unknown ones come last."""
    return min((n["part"] for n in nodes if n["part"] is not None), default=1 << 30)


def _place_site(
    picture: Picture, site: str, nodes: Sequence[TopologyNode], number: int, of: int
) -> None:
    middle = SIZE / 2
    x, y = _around(middle, middle, RING, number, of)
    drawn = sorted(nodes, key=lambda n: (not n["gateway"], n["name"], n["node"]))[:NODES_MAX]
    radius = 0.0 if len(drawn) == 1 else min(14.0 + 2.2 * len(drawn), 40.0)
    for place, node in enumerate(drawn):
        picture.dots.append(Dot(*_around(x, y, radius, place, len(drawn)), node))
    out = RING + radius + 22.0
    label_x, label_y = _around(middle, middle, out, number, of)
    anchor = "middle" if abs(label_x - middle) < 40 else "end" if label_x < middle else "start"
    more = len(nodes) - len(drawn)
    picture.labels.append(Label(label_x, round(label_y + 4, 1), anchor, site, more))


def _halos(parts: Sequence[int]) -> list[Halo]:
    """Return one arc for each run of sites of a part that is not ours (part 0)."""
    found: list[Halo] = []
    start = 0
    for at in range(1, len(parts) + 1):
        if at < len(parts) and parts[at] == parts[start]:
            continue
        if parts[start] != 0:
            path = _arc(start, at - 1, len(parts))
            found.append(Halo(path, parts[start] if parts[start] < 1 << 30 else None))
        start = at
    return found


def _arc(first: int, last: int, of: int) -> str:
    """Return the outline around the sites of the numbers first to last."""
    reach = min(HALO / RING, math.pi / of * 0.96)
    a, b = _angle(first, of) - reach, _angle(last, of) + reach
    inner, outer = RING - HALO, RING + HALO
    if b - a >= 2 * math.pi - 0.01:
        b = a + 2 * math.pi - 0.01
    large = int(b - a > math.pi)
    (x1, y1), (x2, y2) = _point(outer, a), _point(outer, b)
    (x3, y3), (x4, y4) = _point(inner, b), _point(inner, a)
    return (
        f"M{x1} {y1} A{outer} {outer} 0 {large} 1 {x2} {y2} L{x3} {y3}"
        f" A{inner} {inner} 0 {large} 0 {x4} {y4} Z"
    )


def _point(radius: float, angle: float) -> tuple[float, float]:
    middle = SIZE / 2
    return (
        round(middle + radius * math.cos(angle), 1), round(middle + radius * math.sin(angle), 1)
    )  # fmt: skip


def _angle(number: int, of: int) -> float:
    return 2 * math.pi * number / max(1, of) - math.pi / 2


def _around(x: float, y: float, radius: float, number: int, of: int) -> tuple[float, float]:
    angle = _angle(number, of)
    return round(x + radius * math.cos(angle), 1), round(y + radius * math.sin(angle), 1)
