"""The first page: how everything fares in a row of numbers, the sites worst first."""

from quart import Blueprint, Response

from hub import show
from hub.api import read
from hub.pages.context import Console
from hub.pages.frame import sites_with_nodes
from hub.pages.page import Page, Section
from hub.ports import Json, Services
from hub.store import FAILED, RUNNING, WAITING


def add(pages: Blueprint, console: Console) -> None:
    """Add the routes."""
    services = console.services

    @pages.get("/")
    async def overview() -> Response:
        page = Page(
            title="Overview", template="overview/page.html", at="overview",
            sections=(
                Section("summary", "overview/summary.html", "site node server job pending",
                        lambda: _summary(services)),
                Section("cards", "overview/cards.html", "site node server job",
                        lambda: {"rows": sorted(sites_with_nodes(services), key=_worst_first)}),
            ),
        )  # fmt: skip
        return console.render.page(page)


def _worst_first(site: Json) -> tuple[int, str]:
    return (show.STATES.index(site["state"]) if site["nodes"] else 9), site["name"]


def _summary(services: Services) -> Json:
    store, sites = services.store, read.sites(services)
    return {
        "status": services.status.status(),
        "sites": len(sites),
        "nodes": sum(site["nodes"] for site in sites),
        "reachable": sum(site["nodes_reachable"] for site in sites),
        "servers": sum(store.counts("server").values()),
        "failed": sum(store.counts("server", FAILED).values()),
        "pending": sum(store.counts("pending", WAITING).values()),
        "jobs": sum(store.counts("job", RUNNING).values()),
        "oldest_ms": min(
            (s["last_contact_ms"] or 0 for s in sites if s["nodes"]), default=None
        ),
    }
