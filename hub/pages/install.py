"""Install a node: a join token, the lines to paste, and then how the node comes up, live.

Rule: a token's text stands in one answer only; watching goes on at the token's own address,
without the text.
"""

from typing import Any, Final

from quart import Blueprint, Response, request

from hub import show
from hub.api import read
from hub.errors import HubError, NotFound
from hub.pages import forms
from hub.pages.asking import need
from hub.pages.context import Console
from hub.pages.page import Page, Section
from hub.ports import Json, Services
from hub.proto.install_steps import install_steps
from mesh.errors import Refused
from mesh.rest.requests import TTL_S

TOKENS_SHOWN: Final = 30
TTLS: Final = ((3600, "1 hour"), (24 * 3600, "24 hours"), (7 * 24 * 3600, "7 days"))


def add(pages: Blueprint, console: Console) -> None:
    """Add the routes."""

    @pages.get("/install")
    async def install() -> Response:
        need("operator")
        return _form(console, {"site": request.args.get("site", "")[:31]}, "")

    @pages.post("/install")
    async def make_token() -> Response:
        who, fields = need("operator"), await forms.fields()
        roles = ["node", *(["site-operator"] if "operator" in fields else [])]
        ttl = fields.get("ttl_s", "")
        asked = {
            "site": fields.get("site", ""), "roles": roles,
            "ttl_s": int(ttl) if ttl.isdecimal() and len(ttl) < 9 else TTL_S,
        }  # fmt: skip
        try:
            made = await console.api.call("createToken", who, asked)
        except (HubError, Refused) as exc:
            return _form(console, fields, show.sentence(str(exc)))
        return _watch(console, made["id"], made["token"])

    @pages.get("/install/<token>")
    async def watch(token: str) -> Response:
        need("operator")
        return _watch(console, token, None)

    @pages.post("/install/<token>/revoke")
    async def revoke(token: str) -> Response:
        who = need("operator")
        await console.api.call("revokeToken", who, token=token)
        return forms.go("/install", f"The token {token} is worthless now.")


def _form(console: Console, fields: Any, problem: str) -> Response:
    services = console.services
    section = Section("tokens", "install/tokens.html", "token node", lambda: _tokens(services))
    values = {
        "fields": fields, "problem": problem, "ttls": TTLS, "ttl_s": TTL_S,
        "sites": [site["name"] for site in read.sites(services)],
    }  # fmt: skip
    page = Page(
        title="Install a node", template="install/form.html", at="install",
        sections=(section,), values=values, still=True,
    )  # fmt: skip
    return console.render.page(page, 400 if problem else 200)


def _watch(console: Console, token_id: str, text: str | None) -> Response:
    services = console.services
    token = _token(services, token_id)
    section = Section(
        "steps", "install/steps.html", "token node site", lambda: _steps(services, token_id)
    )
    values = {"token": token, "text": text}
    page = Page(
        title="Install a node", template="install/watch.html", at="install",
        sections=(section,), values=values, still=text is not None,
    )  # fmt: skip
    return console.render.page(page)


def _token(services: Services, token_id: str) -> Json:
    for token in services.tokens.list():
        if token["id"] == token_id:
            return dict(token)
    raise NotFound(f"there is no join token {token_id[:60]!r}; it may have been deleted")


def _steps(services: Services, token_id: str) -> Json:
    token = _token(services, token_id)
    nodes = {node["id"]: node for node in read.nodes(services)}
    node = nodes.get(token["used_by"]) if token["used_by"] else None
    return {"token": token, "node": node, "steps": install_steps(token, node)}


def _tokens(services: Services) -> Json:
    names = {node["id"]: node["name"] for node in services.store.documents("node")}
    rows = services.tokens.list()
    return {
        "rows": rows[:TOKENS_SHOWN], "more": max(0, len(rows) - TOKENS_SHOWN), "names": names
    }  # fmt: skip
