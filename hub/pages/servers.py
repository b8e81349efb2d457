"""Servers: all of them, with their states."""

from quart import Blueprint, Response

from hub.pages.context import Console
from hub.pages.lists import ROWS_SHOWN_MAX, cut, silent_sites
from hub.pages.page import Page, Section
from hub.ports import Json


def add(pages: Blueprint, console: Console) -> None:
    """Add the routes."""
    services = console.services

    def found() -> Json:
        store = services.store
        rows = store.documents("server", limit=ROWS_SHOWN_MAX)
        total = sum(store.counts("server").values())
        return {**cut(rows, total), "stale": silent_sites(services)}

    @pages.get("/servers")
    async def servers() -> Response:
        section = Section("servers", "servers/list.html", "server node", found)
        page = Page(title="Servers", template="one.html", at="servers", sections=(section,))
        return console.render.page(page)
