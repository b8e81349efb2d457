"""Pending machines: seen, and not accepted yet."""

from quart import Blueprint, Response

from hub.pages.context import Console
from hub.pages.lists import cut
from hub.pages.page import Page, Section
from hub.ports import Json


def add(pages: Blueprint, console: Console) -> None:
    """Add the routes."""
    services = console.services

    def found() -> Json:
        seen = services.store.documents("pending")
        return cut(sorted(seen, key=lambda machine: -machine["last_ms"]))

    @pages.get("/pending")
    async def pending() -> Response:
        section = Section("pending", "pending/list.html", "pending", found)
        page = Page(title="Pending", template="one.html", at="pending", sections=(section,))
        return console.render.page(page)
