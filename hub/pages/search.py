"""The search over everything: names, ids, MAC addresses, what machines are."""

from typing import Final
from urllib.parse import quote

from quart import Blueprint, Response, request

from hub.api import read
from hub.pages.context import Console
from hub.pages.forms import go
from hub.pages.page import Page
from hub.ports import Json, Services
from mesh.proto.ids import parse_mac

QUERY_CHARS_MAX: Final = 200
FOUND_MAX: Final = 20
"""Most results of one kind."""
Hit = tuple[str, str, str]
"""Address, name, and what it is."""


def add(pages: Blueprint, console: Console) -> None:
    """Add the route."""
    services = console.services

    @pages.get("/search")
    async def search() -> Response:
        query = request.args.get("q", "").strip()[:QUERY_CHARS_MAX]
        groups = found(services, query) if query else {}
        hits = [hit for group in groups.values() for hit in group]
        if len(hits) == 1:
            return go(hits[0][0])
        page = Page(
            title="Search", template="search.html", at="", search=query, still=True,
            values={"groups": groups, "most": FOUND_MAX},
        )  # fmt: skip
        return console.render.page(page)


def found(services: Services, query: str) -> dict[str, list[Hit]]:
    """Return what a query finds, by kind; only kinds with results."""
    words = query.lower().split()
    mac = parse_mac(query)

    def match(*texts: str | None) -> bool:
        heap = " ".join(text for text in texts if text).lower()
        return all(word in heap for word in words) or (mac is not None and mac in heap)

    store = services.store
    results: dict[str, list[Hit]] = {
        "Sites": [
            (_at("sites", site["name"]), site["name"], f"region {site['region'] or 'unknown'}")
            for site in read.sites(services)
            if match(site["name"], site["region"])
        ],
        "Nodes": [
            (_at("nodes", node["id"]), node["name"], f"node of {node['site'] or 'no site'}")
            for node in read.nodes(services)
            if match(node["name"], node["id"])
        ],
        "Servers": [
            (_at("servers", server["id"]), server["name"], _about(server))
            for server in store.documents("server")
            if match(server["name"], server["id"], server["ip"], server["hostname"],
                     server["summary"], *server["macs"])
        ],
        "Pending machines": [
            (f"/pending?filter={quote(seen['mac'])}",
             seen["mac"], seen["summary"] or "not inspected")
            for seen in store.documents("pending")
            if match(seen["mac"], seen["ip"], seen["summary"], seen["serial"], seen["port"])
        ],
        "Assets": [
            (_at("assets", asset["name"]), asset["name"], "asset")
            for asset in store.documents("asset")
            if match(asset["name"], asset["asset"], asset["sha256"])
        ],
    }  # fmt: skip
    if len(query) >= 8:
        results["Jobs"] = [
            (
                _at("jobs", job["id"]),
                job["id"],
                f"{job['kind']} {job['server_name'] or ''}",
            )
            for job in store.find("job", query)
        ]
    return {kind: hits[: FOUND_MAX + 1] for kind, hits in results.items() if hits}


def _at(kind: str, name: str) -> str:
    return f"/{kind}/{quote(name)}"


def _about(server: Json) -> str:
    return f"{server['state_text']} at {server['site']}"
