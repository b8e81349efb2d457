"""Sites: all of them, and one with everything that stands there."""

from quart import Blueprint, Response

from hub.api import read
from hub.errors import NotFound
from hub.pages.context import Console
from hub.pages.frame import sites_with_nodes
from hub.pages.lists import ROWS_SHOWN_MAX, cut, silent_sites
from hub.pages.page import Page, Section
from hub.ports import Json, Services


def add(pages: Blueprint, console: Console) -> None:
    """Add the routes."""
    services = console.services

    @pages.get("/sites")
    async def sites() -> Response:
        section = Section(
            "sites", "sites/list.html", "site node server job",
            lambda: {"rows": sites_with_nodes(services)},
        )  # fmt: skip
        page = Page(title="Sites", template="one.html", at="sites", sections=(section,))
        return console.render.page(page)

    @pages.get("/sites/<name>")
    async def site(name: str) -> Response:
        if all(site["name"] != name for site in read.sites(services)):
            raise NotFound(f"there is no site {name[:60]!r}")
        sections = (
            Section("head", "sites/head.html", "site node job", lambda: _site(services, name)),
            Section("servers", "sites/servers.html", "server node",
                    lambda: _servers(services, name)),
        )  # fmt: skip
        page = Page(
            title=name, template="sites/page.html", at="sites", site=name, sections=sections
        )
        return console.render.page(page)


def _site(services: Services, name: str) -> Json:
    return next(site for site in sites_with_nodes(services) if site["name"] == name)


def _servers(services: Services, name: str) -> Json:
    rows = services.store.documents("server", name, ROWS_SHOWN_MAX)
    total = services.store.counts("server").get(name, 0)
    return {**cut(rows, total), "stale": silent_sites(services)}
