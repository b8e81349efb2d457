"""Nodes: all members with how they fare, and one of them with what it says of itself."""

from quart import Blueprint, Response

from hub import show
from hub.api import read
from hub.errors import NotFound
from hub.pages.context import Console
from hub.pages.page import Page, Section
from hub.ports import Json, Services


def add(pages: Blueprint, console: Console) -> None:
    """Add the routes."""
    services = console.services

    @pages.get("/nodes")
    async def nodes() -> Response:
        section = Section(
            "nodes", "nodes/list.html", "node", lambda: {"rows": _nodes(services)}
        )
        page = Page(title="Nodes", template="one.html", at="nodes", sections=(section,))
        return console.render.page(page)

    @pages.get("/nodes/<node>")
    async def one_node(node: str) -> Response:
        found = _node(services, node)
        section = Section("node", "nodes/node.html", "node", lambda: _node(services, node))
        page = Page(
            title=found["name"], template="one.html", at="nodes", site=found["site"] or None,
            node=found["id"], sections=(section,),
        )  # fmt: skip
        return console.render.page(page)


def _nodes(services: Services) -> list[Json]:
    reached = {s["name"] for s in read.sites(services) if s["nodes_reachable"]}
    return [
        {**node, "state": show.node_state(node, node["site"] in reached)}
        for node in read.nodes(services)
    ]


def _node(services: Services, name: str) -> Json:
    for node in _nodes(services):
        if name in (node["id"], node["name"]):
            return node
    raise NotFound(f"there is no node {name[:60]!r}")
