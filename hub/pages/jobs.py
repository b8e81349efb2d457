"""Jobs: what runs, then what ran."""

from quart import Blueprint, Response

from hub.api import read
from hub.pages.context import Console
from hub.pages.lists import ROWS_SHOWN_MAX, cut, silent_sites
from hub.pages.page import Page, Section
from hub.ports import Json


def add(pages: Blueprint, console: Console) -> None:
    """Add the routes."""
    services = console.services

    def found() -> Json:
        rows = read.jobs(services, limit=ROWS_SHOWN_MAX)
        total = sum(services.store.counts("job").values())
        return {**cut(rows, total), "stale": silent_sites(services)}

    @pages.get("/jobs")
    async def jobs() -> Response:
        section = Section("jobs", "jobs/list.html", "job node", found)
        page = Page(title="Jobs", template="one.html", at="jobs", sections=(section,))
        return console.render.page(page)
