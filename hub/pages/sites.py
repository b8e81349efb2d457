"""Sites: all of them, and one with everything that stands there, a tab for each kind."""

from typing import Any, Final

from quart import Blueprint, Response, request

from hub import show
from hub.api import read
from hub.errors import NotFound
from hub.pages.context import Console
from hub.pages.frame import sites_with_nodes
from hub.pages.lists import cut, silent_sites
from hub.pages.nodes import with_states
from hub.pages.page import Page, Section
from hub.ports import Json, Services
from hub.store import RUNNING
from mesh.rest.lists import plan
from mesh.rest.requests import ListQuery

ROWS: Final = 50
"""Most rows of a tab; the page of the kind has them all."""
TABS: Final = ("servers", "nodes", "pending", "jobs", "assets")
KINDS: Final = {
    "servers": "server node", "nodes": "node", "pending": "pending", "jobs": "job node",
    "assets": "asset",
}  # fmt: skip


def add(pages: Blueprint, console: Console) -> None:
    """Add the routes."""
    services = console.services

    @pages.get("/sites")
    async def sites() -> Response:
        section = Section(
            "sites", "sites/list.html", "site node server job pending", lambda: _all(services)
        )
        page = Page(title="Sites", template="one.html", at="sites", sections=(section,))
        return console.render.page(page)

    @pages.get("/sites/<name>")
    async def site(name: str) -> Response:
        if all(site["name"] != name for site in read.sites(services)):
            raise NotFound(f"there is no site {name[:60]!r}")
        tab = request.args.get("tab", TABS[0])
        tab = tab if tab in TABS else TABS[0]
        sections = (
            Section("head", "sites/head.html", "site node job server pending asset",
                    lambda: _head(services, name)),
            Section("tab", f"sites/{tab}.html", KINDS[tab],
                    lambda: _tab(services, name, tab)),
        )  # fmt: skip
        page = Page(
            title=name, template="sites/page.html", at="sites", site=name, sections=sections,
            values={"tab": tab},
        )  # fmt: skip
        return console.render.page(page)


def _all(services: Services) -> Json:
    rows = [
        {**site, "groups": show.server_groups(site["server_states"])}
        for site in sites_with_nodes(services)
    ]
    return {"rows": rows}


def _head(services: Services, name: str) -> Json:
    site = next(site for site in sites_with_nodes(services) if site["name"] == name)
    store = services.store
    counts = {
        "servers": site["servers"],
        "nodes": site["nodes"],
        "pending": site["pending"],
        "jobs": store.counts("job", RUNNING).get(name, 0),
        "assets": len(_assets(services, name)),
    }
    return {
        **site,
        "groups": show.server_groups(site["server_states"]),
        "tabs": [
            (tab, f"/sites/{name}" + (f"?tab={tab}" if tab != TABS[0] else ""),
             tab.capitalize(), counts[tab])
            for tab in TABS
        ],
    }  # fmt: skip


def _tab(services: Services, name: str, tab: str) -> Json:
    stale = {"stale": silent_sites(services)}
    match tab:
        case "assets":
            return {**cut(_assets(services, name), most=ROWS), **stale}
        case "nodes":
            found = read.listed(services, _plan("nodes", name)).items
            return {**cut(with_states(services, found), most=ROWS), **stale}
        case "pending":
            found = read.listed(services, _plan("pending", name, " rejected:no")).items
        case _:
            found = read.listed(services, _plan(tab, name)).items
    return {**cut(found, most=ROWS), **stale}


def _plan(noun: str, site: str, more: str = "") -> Any:
    return plan(noun, ListQuery(filter=f"site:{site}{more}", limit=ROWS + 1))


def _assets(services: Services, site: str) -> list[Json]:
    """Return the assets that a site wants or holds, each with how it stands there."""
    return [
        {**asset, "here": where}
        for asset in services.store.documents("asset")
        for where in asset["sites"]
        if where["site"] == site and (where["wanted"] or where["state"] != "absent")
    ]
