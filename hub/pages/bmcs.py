"""The part of the inbox that shows BMCs: look for them, and accept a server by its BMC.

Rule: everything is written through the API's operations; nothing is known of a BMC here but
what a scan has seen without a login.
"""

import secrets
from typing import Final

from quart import Blueprint, Response

from hub import show
from hub.api import read
from hub.errors import HubError
from hub.pages import forms
from hub.pages.asking import need
from hub.pages.context import Console
from hub.ports import Json, Principal, Services
from mesh.errors import Refused
from mesh.rest.lists import plan
from mesh.rest.requests import ListQuery

ROWS: Final = 100


def add(pages: Blueprint, console: Console) -> None:
    """Add the routes."""

    @pages.post("/pending/bmcs/scan")
    async def scan_for_bmcs() -> Response:
        who, fields = need("operator"), await forms.fields()
        networks = fields.get("networks", "").replace(",", " ").split()
        params = {"networks": networks}
        asked = {"kind": "bmc.scan", "site": fields.get("site", ""), "params": params}
        return await _order(asked, fields.get("key", ""), "The scan", who, console)

    @pages.post("/pending/bmcs/accept")
    async def accept_by_bmc() -> Response:
        who, fields = need("operator"), await forms.fields()
        bmc = {"url": fields.get("url", ""), "secret": fields.get("secret", "")}
        name = fields.get("name", "")
        params = {"name": name, "bmc": bmc, "inspect": "oob"}
        kind = "server.adopt" if fields.get("monitored") else "server.accept"
        asked = {"kind": kind, "site": fields.get("site", ""), "params": params}
        return await _order(asked, fields.get("key", ""), name, who, console)


async def _order(
    asked: Json, key: str, what: str, who: Principal, console: Console
) -> Response:
    """Give the order; say what came of it above the inbox."""
    try:
        answer = await console.api.call("createOrder", who, asked, key[:64] or None)
    except (HubError, Refused) as exc:
        return forms.go("/pending", show.sentence(str(exc)))
    return forms.go("/pending", f"{what} is in hand: job {answer['job']}.")


def section(services: Services) -> Json:
    """Return what the section shows: BMCs without a server, sites and secrets to choose of."""
    query = ListQuery(filter="server:none", limit=ROWS)
    found = read.listed(services, plan("bmcs", query))
    sites = [site["name"] for site in read.sites(services)]
    known = [s for s in services.secrets.list() if s["kind"] == "bmc"]
    return {
        "rows": found.items, "more": found.next is not None, "sites": sites,
        "secrets": [{"id": s["id"], "site": s["site"]} for s in known],
        "key": secrets.token_hex(12),
    }  # fmt: skip
