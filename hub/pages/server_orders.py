"""Orders on chosen servers: what to install, what is hit, and only then the order itself.

One page for one server and for five thousand: several become one group. Rule: nothing is
ordered before a review of exactly that order was shown; the review's key makes the order
idempotent, so a form that is sent twice gives it once.
"""

import json
import secrets
from collections.abc import Mapping
from typing import Final

from quart import Blueprint, Response

from hub.api import read
from hub.errors import BadRequest, HubError
from hub.pages import forms
from hub.pages.asking import need
from hub.pages.context import Console
from hub.pages.lists import silent_sites
from hub.pages.page import Page
from hub.pages.servers import in_hand
from hub.ports import Json, Principal, Services
from hub.proto.asset_matrix import here
from hub.proto.order_review import Review, as_body, as_command, review
from hub.store import LIST_MAX
from mesh.errors import Refused
from mesh.proto.content import FILE, ISO, LIVE
from mesh.proto.ids import NAME_PATTERN
from mesh.proto.order import DEPLOY, POWER, PROMOTE, RELEASE, USER_DATA_CHARS_MAX
from mesh.rest.lists import plan
from mesh.rest.requests import GROUP_MAX, ListQuery

TITLES: Final = {
    DEPLOY: "Deploy", RELEASE: "Release", "power.on": "Power on", "power.off": "Power off",
    PROMOTE: "Manage",
}  # fmt: skip
LOSES: Final = {
    DEPLOY: "they were never cleaned, and the image overwrites what may be on",
    RELEASE: "every byte on the disks is overwritten and read back on",
}
LONG_FIELDS: Final = {"ssh_keys": 32 * 1024, "user_data": 2 * USER_DATA_CHARS_MAX}


def add(pages: Blueprint, console: Console) -> None:
    """Add the routes."""
    services, render = console.services, console.render

    @pages.get("/servers/order")
    async def nothing_chosen() -> Response:
        page = Page(
            title="Order", template="servers/order.html", at="servers", still=True,
            values={"ids": [], "back": "/servers", "title": "Order"},
        )  # fmt: skip
        return render.page(page)

    @pages.post("/servers/order")
    async def order() -> Response:
        need("operator")
        return await _show(services, console)

    @pages.post("/servers/order/give")
    async def give() -> Response:
        who = need("operator")
        fields = await forms.fields(LONG_FIELDS)
        kind, params = _kind(fields), _params(fields)
        servers = await _chosen(services, fields)
        found = _reviewed(services, kind, params, servers)
        if found.digest != fields.get("seen") or (found.losing and not fields.get("sure")):
            return await _show(
                services, console, "what is hit has changed meanwhile: review it once more"
            )
        hit = [one.server for one in found.hits]
        key = fields.get("key", "")[:64] or secrets.token_hex(16)
        try:
            order_id = await _give(console, who, as_body(kind, params, hit), key)
        except (HubError, Refused) as exc:
            return await _show(services, console, str(exc))
        back = _back(fields)
        title = f"{TITLES[_word(kind, params)]} ordered"
        if back.startswith("/servers/"):
            return forms.go(back, f"{title}: it runs as job {order_id}.")
        joint = "&" if "?" in back else "?"
        number = f"{len(hit)} servers" if len(hit) > 1 else hit[0]["name"]
        return forms.go(f"{back}{joint}with={order_id}", f"{title} for {number}.")


async def _give(console: Console, who: Principal, asked: Json, key: str) -> str:
    """Give the order; return the id of its job, or of its group when it is for several."""
    if "server" in asked:
        return str((await console.api.call("createOrder", who, asked, key))["job"])
    if not asked["servers"]:
        raise BadRequest("none of the chosen servers can take this order now")
    return str((await console.api.call("createGroup", who, asked, key))["group"])


async def _show(services: Services, console: Console, problem: str = "") -> Response:
    """Show the form, and the review once it is known what is to be done."""
    fields = await forms.fields(LONG_FIELDS)
    kind, params = _kind(fields), _params(fields)
    servers = await _chosen(services, fields)
    ready = kind != DEPLOY or bool(params.get("image"))
    if kind == DEPLOY and ready and not problem:
        problem = _wrong_deploy(services, params)
        ready = not problem
    found = _reviewed(services, kind, params, servers) if ready else None
    word = _word(kind, params)
    title = f"{TITLES[word]} " + (
        servers[0]["name"] if len(servers) == 1 else f"{len(servers)} servers"
    )
    values = {
        "ids": [server["id"] for server in servers], "all": fields.get("all", ""),
        "filter": fields.get("filter", ""), "servers": servers, "title": title,
        "kind": word, "params": params, "problem": problem, "review": found,
        "images": _images(services, servers) if kind == DEPLOY else [],
        "stale": silent_sites(services), "back": _back(fields),
        **(_same(kind, params, found, fields) if found and found.hits else {}),
    }  # fmt: skip
    return console.render.page(
        Page(
            title=title, template="servers/order.html", at="servers", values=values, still=True
        ),
        400 if problem else 200,
    )


def _same(kind: str, params: Json, found: Review, fields: Mapping[str, str]) -> Json:
    """Return what the review says beside the list: in words, as command, as JSON."""
    hit = [one.server for one in found.hits]
    kept = (fields.get("filter") or None) if fields.get("all") and len(hit) > 1 else None
    word = TITLES[_word(kind, params)]
    number = f"{len(hit)} servers" if len(hit) > 1 else hit[0]["name"]
    hidden = [("image", params.get("image")), ("hostname", params.get("hostname")),
              ("ssh_keys", "\n".join(params.get("ssh_keys") or [])),
              ("user_data", params.get("user_data"))]  # fmt: skip
    return {
        "title_hits": f"{word} hits {number}" if len(hit) > 1 else f"{word} of {number}",
        "loses": LOSES.get(kind, ""), "give": f"{word} {number}",
        "command": as_command(kind, params, hit, kept),
        "json": json.dumps(as_body(kind, params, hit), indent=2),
        "endpoint": "/api/v1/orders" if len(hit) == 1 else "/api/v1/groups",
        "key": secrets.token_hex(16), "seen": found.digest,
        "hidden": [(name, value) for name, value in hidden if value],
    }  # fmt: skip


async def _chosen(services: Services, fields: Mapping[str, str]) -> list[Json]:
    """Return the servers that the form names, or all that its filter keeps."""
    if fields.get("all"):
        query = ListQuery(filter=fields.get("filter") or None, limit=GROUP_MAX)
        found = read.listed(services, plan("servers", query))
        if found.next is not None:
            raise BadRequest(
                f"one order is for at most {GROUP_MAX} servers: narrow the filter down"
            )
        return found.items
    ids = await forms.many("server", GROUP_MAX)
    if len(ids) == 1:
        return [read.one(services.store, "server", ids[0], "server")]
    wanted = set(ids)
    known = services.store.documents("server", limit=LIST_MAX)
    return [server for server in known if server["id"] in wanted]


def _busy(services: Services) -> set[str]:
    return {job["server"] for job in in_hand(services) if job["server"]}


def _kind(fields: Mapping[str, str]) -> str:
    word = fields.get("kind", "")
    if word not in TITLES:
        raise BadRequest(f"there is no such order as {word[:40]!r}")
    return POWER if word.startswith("power.") else word


def _word(kind: str, params: Json) -> str:
    """Return the word of the form for a kind of order."""
    return (f"power.{'on' if params['on'] else 'off'}") if kind == POWER else kind


def _params(fields: Mapping[str, str]) -> Json:
    """Return the parameters that the form gives; empty ones are left out."""
    word = fields.get("kind", "")
    if word.startswith("power."):
        return {"on": word == "power.on"}
    if word != DEPLOY:
        return {}
    keys = [line.strip() for line in fields.get("ssh_keys", "").splitlines() if line.strip()]
    found: Json = {name: fields[name] for name in ("image", "hostname") if fields.get(name)}
    if keys:
        found["ssh_keys"] = keys
    if fields.get("user_data"):
        found["user_data"] = fields["user_data"].replace("\r\n", "\n")
    return found


def _wrong_deploy(services: Services, params: Json) -> str:
    """Return what is wrong with the parameters of a deploy, in one sentence."""
    found = services.store.find("asset", params["image"])
    if not found:
        return f"there is no image {params['image'][:60]!r}"
    if not _known(found[0]):
        return f"the content of {params['image']} is not known yet: a site must fetch it once"
    if not NAME_PATTERN.match(params.get("hostname", "x")):
        return f"{params['hostname'][:60]!r} is no host name: letters, digits, dots, dashes"
    if len(params.get("user_data", "")) > USER_DATA_CHARS_MAX:
        return f"user-data has at most {USER_DATA_CHARS_MAX} characters"
    return ""


def _images(services: Services, servers: list[Json]) -> list[Json]:
    """Return the images with whether they are already at the sites of the servers."""
    sites = sorted({server["site"] for server in servers})[:12]
    return [
        {
            "name": asset["name"], "kind": asset["kind"], "size": asset["size"],
            "known": _known(asset), "at": [_at(asset, site) for site in sites],
        }
        for asset in services.store.documents("asset")
        if asset["kind"] != FILE
    ]  # fmt: skip


def _known(asset: Json) -> bool:
    """Tell whether all content of an asset is known, so that a server can be given it."""
    parts = asset["members"] if asset["kind"] == LIVE else [asset]
    return bool(parts) and all(part["asset"] is not None for part in parts)


def _reviewed(services: Services, kind: str, params: Json, servers: list[Json]) -> Review:
    """Return what the order hits; what boots off the network touches no disk."""
    found = services.store.find("asset", params["image"]) if params.get("image") else []
    from_network = bool(found) and found[0]["kind"] in (LIVE, ISO)
    meant = {**params, "boot": {}} if from_network else params
    return review(kind, meant, servers, _busy(services))


def _at(asset: Json, site: str) -> Json:
    cell = here(asset, site)
    words = "already there" if cell.state == "verified" else f"not there, {cell.words}"
    if cell.state in ("absent", "wanted"):
        words = "not there, it is fetched first"
    elif cell.percent is not None:
        words = f"not all there yet, {cell.percent} %"
    return {"site": site, "words": words}


def _back(fields: Mapping[str, str]) -> str:
    """Return the page that the order came from: one of ours, or the list."""
    back = fields.get("back", "")
    return back if back.startswith("/servers") and len(back) <= 2048 else "/servers"
