"""The first page: how everything fares in a row of numbers, the sites worst first."""

from collections import Counter
from typing import Final

from quart import Blueprint, Response

from hub import happenings, show
from hub.api import read
from hub.pages.asking import may
from hub.pages.context import Console
from hub.pages.frame import problems, sites_with_nodes
from hub.pages.page import Page, Section
from hub.ports import Json, Services
from hub.store import FAILED
from mesh.rest.requests import TTL_S

JOBS_READ: Final = 30
CARDS_MAX: Final = 60


def add(pages: Blueprint, console: Console) -> None:
    """Add the routes."""
    services = console.services

    @pages.get("/")
    async def overview() -> Response:
        sites = sites_with_nodes(services)
        first = may("operator") and not any(site["nodes"] for site in sites)
        page = Page(
            title="Overview", template="overview/page.html", at="overview", still=first,
            values={
                "first": first, "site": sites[0]["name"] if sites else "",
                "region": services.region, "ttl_s": TTL_S,
            },
            sections=(
                Section("summary", "overview/summary.html", "site node server job pending",
                        lambda: summary(services)),
                Section("cards", "overview/cards.html", "site node server job pending asset",
                        lambda: cards(services)),
                Section("latest", "overview/latest.html", "job pending node",
                        lambda: {"rows": latest(services)}),
            ),
        )  # fmt: skip
        return console.render.page(page)


def summary(services: Services) -> Json:
    """Return the numbers over all sites."""
    sites = sites_with_nodes(services)
    states: Counter[str] = Counter()
    for site in sites:
        states.update(site["server_states"])
    return {
        "status": services.status.status(),
        "problems": problems(services),
        "sites": len(sites),
        "well": sum(site["state"] == "ok" for site in sites),
        "nodes": sum(site["nodes"] for site in sites),
        "reachable": sum(site["nodes_reachable"] for site in sites),
        "servers": sum(states.values()),
        "groups": show.server_groups(states),
        "pending": sum(site["pending"] for site in sites),
        "jobs": sum(site["jobs_running"] for site in sites),
        "oldest_ms": min(
            (site["last_contact_ms"] or 0 for site in sites if site["nodes"]), default=None
        ),
    }


def cards(services: Services) -> Json:
    """Return the sites, those that want a person first."""
    held = _held(services)
    found = [
        {
            **site,
            "groups": show.server_groups(site["server_states"]),
            "held": held.get(site["name"], [0, 0]),
        }
        for site in sorted(sites_with_nodes(services), key=_worst_first)
    ]
    return {"rows": found[:CARDS_MAX], "more": max(0, len(found) - CARDS_MAX)}


def latest(services: Services, site: str | None = None) -> list[happenings.Happening]:
    """Return what happened last at a site, or anywhere."""
    nodes = read.nodes(services)
    return happenings.latest(
        read.jobs(services, site, JOBS_READ),
        services.store.documents("pending", site),
        [node for node in nodes if site in (None, node["site"])],
    )


def _worst_first(site: Json) -> tuple[int, int, str]:
    failed = sum(site["server_states"].get(state, 0) for state in FAILED)
    fares = show.STATES.index(site["state"]) if site["nodes"] else len(show.STATES)
    return fares, -failed, site["name"]


def _held(services: Services) -> dict[str, list[int]]:
    """Return how many wanted assets each site holds, and of how many."""
    found: dict[str, list[int]] = {}
    for asset in services.store.documents("asset"):
        for where in asset["sites"]:
            if where["wanted"] or where["state"] == "verified":
                count = found.setdefault(where["site"], [0, 0])
                count[0] += where["state"] == "verified"
                count[1] += 1
    return found
