"""The wallboard: large type, no controls, one view after the other; and what this hub is.

The views are all sites together, then each site, worst first. Rule: the address ``?at=N`` says
which one is shown and the page says which comes next, so a script only has to follow it.
"""

from typing import Final

from quart import Blueprint, Response, request

from hub.api import read
from hub.pages.context import Console
from hub.pages.overview import cards, latest, summary
from hub.pages.page import Page, Section
from hub.ports import Json, Services
from hub.store import RUNNING

SHOWN_S: Final = 12
"""How long each view stays."""
JOBS_SHOWN: Final = 6


def add(pages: Blueprint, console: Console) -> None:
    """Add the routes."""
    services, render = console.services, console.render

    @pages.get("/kiosk")
    async def kiosk() -> Response:
        sites = cards(services)["rows"]
        asked = request.args.get("at", "0")
        at = int(asked) if asked.isascii() and asked.isdigit() and len(asked) < 6 else 0
        at %= len(sites) + 1
        site = sites[at - 1] if at else None
        name = site["name"] if site else None
        return render.bare(
            "kiosk/page.html", at=at, of=len(sites) + 1, next=(at + 1) % (len(sites) + 1),
            sites=sites, site=site, shown_s=SHOWN_S,
            summary=summary(services), jobs=_jobs(services, name),
            latest=latest(services, name),
        )  # fmt: skip

    @pages.get("/about")
    async def about() -> Response:
        section = Section("about", "about.html", "node", lambda: _about(services))
        page = Page(title="About this hub", template="one.html", at="", sections=(section,))
        return render.page(page)


def _jobs(services: Services, site: str | None) -> list[Json]:
    found = read.jobs(services, site, JOBS_SHOWN)
    return [job for job in found if job["state"] in RUNNING]


def _about(services: Services) -> Json:
    status = services.status.status()
    return {"status": status, "region": services.region, "node": services.node_id}
