"""Assets by site: what each site holds, what it cost, and what the uplinks were spared."""

from collections.abc import Mapping
from typing import Final

from quart import Blueprint, Response, request

from hub.api import read
from hub.errors import BadRequest, HubError
from hub.pages import forms
from hub.pages.asking import need
from hub.pages.context import Console
from hub.pages.page import Page, Section
from hub.ports import Json, Services
from hub.proto.asset_matrix import TRUST, matrix
from mesh.errors import Refused
from mesh.proto.content import FILE, IMAGE, ISO, QCOW2
from mesh.rest.lists import plan
from mesh.rest.problems import RequestProblem
from mesh.rest.requests import ListQuery

ROWS: Final = 200
SITES_SHOWN: Final = 12
"""Most sites that stand as columns; beyond these the matrix is by asset only."""
SERVERS_SHOWN: Final = 50
KIND_WORDS: Final = (
    (IMAGE, "a raw disk, written as it is"), (QCOW2, "a qcow2 disk, written as a raw one"),
    (ISO, "a CD, booted as it is"), (FILE, "anything else, only kept at the sites"),
)  # fmt: skip
"""Kinds that have one content; a live system of several parts is added by command line."""
FIELDS: Final = ("name", "url", "sha256", "kind")


def add(pages: Blueprint, console: Console) -> None:
    """Add the routes."""
    services, render = console.services, console.render

    def show_list(problem: str = "", given: Mapping[str, str] | None = None) -> Response:
        text = request.args.get("filter", "").strip()[:2000]
        page = Page(
            title="Assets", template="assets/page.html", at="assets",
            sections=(
                Section("saved", "assets/saved.html", "asset", lambda: _saved(services)),
                Section("assets", "assets/list.html", "asset site node",
                        lambda: _list(services, text)),
            ),
            values={"filter": text, "problem": problem,
                    "asset_kinds": KIND_WORDS, "given": dict(given or {}),
                    "sites": [site["name"] for site in read.sites(services)]},
            still=bool(problem),
        )  # fmt: skip
        return render.page(page, 400 if problem else 200)

    @pages.get("/assets")
    async def assets() -> Response:
        return show_list()

    @pages.post("/assets")
    async def register_asset() -> Response:
        who = need("operator")
        fields, want = await forms.fields(), await forms.many("want", 1000)
        name = fields.get("name", "")
        try:
            given = {name: fields[name] for name in FIELDS if fields.get(name)}
            await console.api.call("declareAsset", who, {**given, "want": want})
        except (HubError, Refused) as exc:
            return show_list(str(exc), fields)
        return forms.go(f"/assets/{name}", f"{name} is registered.")

    @pages.get("/assets/<name>")
    async def asset(name: str) -> Response:
        read.one(services.store, "asset", name, "asset")
        page = Page(
            title=name, template="assets/asset.html", at="assets",
            sections=(
                Section("asset", "assets/head.html", "asset site server",
                        lambda: _asset(services, name)),
            ),
        )  # fmt: skip
        return render.page(page)

    @pages.post("/assets/<name>/<verb>")
    async def change_asset(name: str, verb: str) -> Response:
        who = need("operator")
        site = (await forms.fields()).get("site", "")
        if verb not in ("want", "unwant", "remove"):
            raise BadRequest(f"an asset is wanted, unwanted or removed, not {verb[:20]!r}")
        if verb == "remove":
            await console.api.call("removeAsset", who, name=name)
            return forms.go("/assets", f"{name} is no name any more.")
        if verb == "want":
            await console.api.call("wantAsset", who, {"site": site}, name=name)
            words = f"{site} is to hold {name}."
        else:
            await console.api.call("unwantAsset", who, name=name, site=site)
            words = f"{site} may drop {name} when it needs the room."
        return forms.go(f"/assets/{name}", words)


def _documents(services: Services) -> list[Json]:
    return services.store.documents("asset")


def _sites(services: Services) -> list[str]:
    return [site["name"] for site in read.sites(services) if site["nodes"]]


def _saved(services: Services) -> Json:
    found = matrix(_documents(services), _sites(services))
    cells = [cell for line in found.lines for cell in line.cells]
    return {
        "traffic": found.traffic,
        "held": sum(cell.state == "verified" for cell in cells),
        "fetching": sum(cell.state == "fetching" for cell in cells),
        "waiting": sum(cell.state == "wanted" for cell in cells),
        "bad": sum(cell.state in ("corrupt", "failed") for cell in cells),
    }  # fmt: skip


def _list(services: Services, text: str) -> Json:
    total = sum(services.store.counts("asset").values())
    try:
        asked = plan("assets", ListQuery(filter=text or None, limit=ROWS))
        found = read.listed(services, asked)
    except RequestProblem as exc:
        return {"wrong": str(exc), "matrix": None, "total": 0, "all": total, "more": 0,
                "columns": [], "by_asset": False}  # fmt: skip
    shown = matrix(found.items, _sites(services))
    wide = len(shown.sites) > SITES_SHOWN
    return {
        "wrong": "", "matrix": shown, "total": len(found.items) if not found.next else total,
        "all": total, "more": total - len(found.items) if found.next else 0,
        "columns": [] if wide else shown.sites, "by_asset": wide,
    }  # fmt: skip


def _asset(services: Services, name: str) -> Json:
    asset = read.one(services.store, "asset", name, "asset")
    (line,) = matrix([asset], _sites(services)).lines
    query = ListQuery(filter=f"image:{name}", limit=SERVERS_SHOWN)
    servers = read.listed(services, plan("servers", query))
    return {
        "asset": asset, "line": line, "servers": servers.items,
        "more": servers.next is not None,
        "trust": TRUST.get(asset["trust"] or "", asset["trust"] or ""),
    }  # fmt: skip
