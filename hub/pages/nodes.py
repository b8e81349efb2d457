"""Nodes: all members with how they fare, and one of them with what it says of itself."""

from typing import Final

from quart import Blueprint, Response, request

from hub import show
from hub.api import read
from hub.errors import BadRequest, NotFound
from hub.pages.context import Console
from hub.pages.frame import sites_with_nodes
from hub.pages.page import Page, Section
from hub.ports import Json, Services
from mesh.rest.lists import plan
from mesh.rest.problems import RequestProblem
from mesh.rest.requests import ListQuery

ROWS: Final = 200
"""Nodes of one page."""
JOBS_SHOWN: Final = 8


def add(pages: Blueprint, console: Console) -> None:
    """Add the routes."""
    services = console.services

    @pages.get("/nodes")
    async def nodes() -> Response:
        section = Section("nodes", "nodes/list.html", "node site", lambda: _list(services))
        page = Page(title="Nodes", template="one.html", at="nodes", sections=(section,))
        return console.render.page(page)

    @pages.get("/nodes/<node>")
    async def one_node(node: str) -> Response:
        found = _node(services, node)
        sections = (
            Section("head", "nodes/head.html", "node", lambda: _node(services, node)),
            Section("facts", "nodes/facts.html", "node token", lambda: _node(services, node)),
            Section("work", "nodes/work.html", "job", lambda: _work(services, found["id"])),
        )
        page = Page(
            title=found["name"], template="nodes/page.html", at="nodes", node=found["id"],
            site=found["site"] or None, sections=sections,
        )  # fmt: skip
        return console.render.page(page)


def with_states(services: Services, nodes: list[Json]) -> list[Json]:
    """Return nodes with how each fares, and what is odd about its version."""
    reached = {s["name"] for s in sites_with_nodes(services) if s["nodes_reachable"]}
    now_ms = services.clock.now_ms()
    return [
        {
            **node,
            "state": show.node_state(node, node["site"] in reached),
            "skewed": node["build"] not in (None, services.build),
            "up_ms": now_ms - node["started_ms"] if node["started_ms"] else None,
        }
        for node in nodes
    ]


def _list(services: Services) -> Json:
    """Return a page of the list; members that left or were revoked only when asked for."""
    asked = request.args.get("filter", "").strip()
    sort = request.args.get("sort", "")
    cursor = request.args.get("cursor", "")
    kept = asked if "status:" in asked else f"{asked} status:!left status:!revoked"
    query = ListQuery(filter=kept, sort=sort or None, limit=ROWS, cursor=cursor or None)
    found, problem = None, ""
    try:
        found = read.listed(services, plan("nodes", query))
    except RequestProblem as exc:
        problem = show.sentence(str(exc))
    everyone = read.nodes(services)
    gone = sum(node["status"] in ("left", "revoked") for node in everyone)
    rows = with_states(services, found.items) if found else []
    return {
        "rows": rows if sort else sorted(rows, key=_worst_first),
        "next": found.next if found else None, "filter": asked, "sort": sort, "gone": gone,
        "problem": problem, "total": len(everyone) - gone, "cursor": cursor,
    }  # fmt: skip


def _worst_first(node: Json) -> tuple[int, str, str]:
    return show.STATES.index(node["state"]), node["site"], node["name"]


def _node(services: Services, name: str) -> Json:
    found = [node for node in read.nodes(services) if name in (node["id"], node["name"])]
    if not found:
        raise NotFound(f"there is no node {name[:60]!r}")
    if len(found) > 1:
        raise BadRequest(f"{len(found)} nodes are called {name[:60]!r}: take one by its id")
    (node,) = with_states(services, found)
    joined = [token for token in services.tokens.list() if token["used_by"] == node["id"]]
    return {**node, "joined": joined[0] if joined else None}


def _work(services: Services, node: str) -> Json:
    query = ListQuery(filter=f"runner:{node}", limit=JOBS_SHOWN)
    return {"rows": read.listed(services, plan("jobs", query)).items}
