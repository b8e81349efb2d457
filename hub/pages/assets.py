"""Assets: what each site holds of them."""

from quart import Blueprint, Response

from hub.pages.context import Console
from hub.pages.lists import cut
from hub.pages.page import Page, Section
from hub.ports import Json


def add(pages: Blueprint, console: Console) -> None:
    """Add the routes."""
    services = console.services

    def found() -> Json:
        return cut(services.store.documents("asset"))

    @pages.get("/assets")
    async def assets() -> Response:
        section = Section("assets", "assets/list.html", "asset", found)
        page = Page(title="Assets", template="one.html", at="assets", sections=(section,))
        return console.render.page(page)
