"""The mesh: who has links with whom, who is out of reach, how fresh what is known is."""

from typing import Final, cast

from quart import Blueprint, Response, g

from hub.pages.context import Console
from hub.pages.page import Page, Section
from hub.ports import Json, Services
from hub.proto.mesh_map import SIZE, draw
from mesh.rest.mesh_types import Mesh, TopologyPart

LINKS_SHOWN: Final = 200
AWAY_SHOWN: Final = 100
EVENTS: Final = "node site"


def add(pages: Blueprint, console: Console) -> None:
    """Add the routes."""
    services = console.services

    @pages.get("/mesh")
    async def mesh() -> Response:
        sections = (
            Section("head", "mesh/head.html", EVENTS, lambda: _head(services)),
            Section("map", "mesh/map.html", EVENTS, lambda: _map(services)),
            Section("away", "mesh/away.html", EVENTS, lambda: _away(services)),
            Section("links", "mesh/links.html", EVENTS, lambda: _links(services)),
            Section("fresh", "mesh/fresh.html", EVENTS, lambda: _fresh(services)),
        )
        if services.mesh.looked() is None:
            await services.mesh.gather()
        page = Page(title="Mesh", template="mesh/page.html", at="mesh", sections=sections)
        return console.render.page(page)


def _seen(services: Services) -> Mesh:
    """Return the mesh as this hub sees it, looked at once a request."""
    known = cast("Mesh | None", g.get("mesh_seen"))
    if known is None:
        known = g.mesh_seen = services.mesh.mesh()
    return known


def _head(services: Services) -> Json:
    seen = _seen(services)
    ages = [link["synced_ms"] for link in seen["links"] if link["synced_ms"] is not None]
    rates = [link["in_per_s"] for link in seen["links"] if link["in_per_s"] is not None]
    sent = [link["out_per_s"] for link in seen["links"] if link["out_per_s"] is not None]
    paths: dict[str, int] = {}
    for link in seen["links"]:
        paths[link["path"]] = paths.get(link["path"], 0) + 1
    return {
        **seen, "paths": sorted(paths.items()), "oldest_ms": min(ages, default=None),
        "in_per_s": sum(rates) if rates else None, "out_per_s": sum(sent) if sent else None,
    }  # fmt: skip


def _map(services: Services) -> Json:
    """Return the picture of what was gathered last, and the same in words."""
    looked = services.mesh.looked()
    if looked is None:
        return {"picture": None}
    at_ms, seen = looked
    parts: list[TopologyPart] = seen["parts"]
    return {
        "picture": draw(seen), "size": SIZE, "at_ms": at_ms, "parts": parts,
        "asked": seen["asked"], "answered": seen["answered"],
        "unknown": [n for n in seen["nodes"] if n["part"] is None],
    }  # fmt: skip


def _away(services: Services) -> Json:
    rows = _seen(services)["away"]
    return {"rows": rows[:AWAY_SHOWN], "more": max(0, len(rows) - AWAY_SHOWN)}


def _links(services: Services) -> Json:
    rows = _seen(services)["links"]
    return {"rows": rows[:LINKS_SHOWN], "more": max(0, len(rows) - LINKS_SHOWN)}


def _fresh(services: Services) -> Json:
    return {"rows": _seen(services)["sites"]}
