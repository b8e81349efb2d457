"""The inbox of machines that were seen: evidence, accept one or many, put aside and back.

Accepting goes through a form of its own, where names, BMC addresses and the BMC's password are
given. Rule: everything is written through the API's operations, one machine at a time, so one
that is refused stops none of the others.
"""

import json
import secrets
from collections.abc import Mapping
from typing import Final

from quart import Blueprint, Response, request

from hub import show
from hub.api import read
from hub.errors import BadRequest, HubError
from hub.pages import bmcs, forms
from hub.pages.asking import need
from hub.pages.context import Console
from hub.pages.page import Page, Section
from hub.ports import Json, Principal, Services
from hub.proto.server_names import PATTERN, propose
from mesh.errors import Refused
from mesh.rest.lists import plan
from mesh.rest.problems import RequestProblem
from mesh.rest.requests import ListQuery

ROWS: Final = 200
CHOSEN_MAX: Final = 200
"""Machines that are accepted or put aside at once."""
NEW: Final = "new"


def add(pages: Blueprint, console: Console) -> None:
    """Add the routes."""
    services = console.services

    @pages.get("/pending")
    async def pending() -> Response:
        aside = request.args.get("tab") == "aside"
        sections = tuple(
            Section(name, f"pending/{template}.html", "pending server node",
                    lambda: _list(services, aside))
            for name, template in (("bar", "bar"), ("pending", "list"))
        )  # fmt: skip
        if not aside:
            name, path = "bmcs", "pending/bmcs.html"
            sections += (Section(name, path, "bmc server", lambda: bmcs.section(services)),)
        page = Page(
            title="Pending", template="pending/page.html", at="pending", sections=sections,
            values={"aside": aside}, still=True,
        )  # fmt: skip
        return console.render.page(page)

    @pages.post("/pending/act")
    async def act() -> Response:
        who = need("operator")
        fields, chosen = await forms.fields(), _chosen(services, await _named())
        if not chosen:
            return forms.go("/pending", "Tick the machines that are meant first.")
        if fields.get("verb") in ("reject", "restore"):
            return await _judge(console, who, fields["verb"], chosen)
        return _form(console, chosen, fields, {})

    @pages.post("/pending/accept")
    async def accept() -> Response:
        who = need("operator")
        fields, chosen = await forms.fields(), _chosen(services, await _named())
        if "fill" in fields or not chosen:
            return _form(console, chosen, fields, {})
        return await _accept(console, who, chosen, fields)


def _list(services: Services, aside: bool) -> Json:
    asked = request.args.get("filter", "").strip()
    sort, cursor = request.args.get("sort", ""), request.args.get("cursor", "")
    kept = f"{asked} rejected:{'yes' if aside else 'no'}"
    query = ListQuery(filter=kept, sort=sort or None, limit=ROWS, cursor=cursor or None)
    try:
        found, problem = read.listed(services, plan("pending", query)), ""
    except RequestProblem as exc:
        found, problem = None, show.sentence(str(exc))
    counts = services.store.states("pending").values()
    totals = {
        state: sum(count.get(state, 0) for count in counts) for state in ("waiting", "rejected")
    }
    return {
        "rows": found.items if found else [], "next": found.next if found else None,
        "filter": asked, "sort": sort, "cursor": cursor, "problem": problem,
        "total": totals["rejected" if aside else "waiting"], "totals": totals,
        "names": {node["id"]: node["name"] for node in services.store.documents("node")},
    }  # fmt: skip


async def _named() -> list[str]:
    return await forms.many("machine", CHOSEN_MAX)


def _chosen(services: Services, named: list[str]) -> list[Json]:
    """Return the pending machines that a form names as "site mac"."""
    pending = {f"{s['site']} {s['mac']}": s for s in services.store.documents("pending")}
    return [pending[name] for name in named if name in pending]


async def _judge(console: Console, who: Principal, verb: str, chosen: list[Json]) -> Response:
    operation = "rejectMachine" if verb == "reject" else "restoreMachine"
    for seen in chosen:
        await console.api.call(operation, who, {"site": seen["site"]}, machine=seen["mac"])
    number = show.count(len(chosen), "machine")
    if verb == "reject":
        return forms.go("/pending", f"{number} put aside; take it back under Put aside.")
    return forms.go("/pending", f"{number} taken back.")


def _form(
    console: Console, chosen: list[Json], fields: Mapping[str, str], errors: dict[str, str]
) -> Response:
    """Show the form for these machines; ``errors`` by "site mac"."""
    store = console.services.store
    pattern = fields.get("pattern") or PATTERN
    taken = {server["name"] for server in store.documents("server")}
    filled = propose(pattern, chosen, taken)
    rows: list[Json] = []
    for number, seen in enumerate(chosen):
        key = f"{seen['site']} {seen['mac']}"
        given = "" if "fill" in fields else fields.get(f"name {key}", "")
        rows.append(
            {
                **seen, "key": key, "name": given or filled[number],
                "bmc": fields.get(f"bmc {key}", ""), "problem": errors.get(key, ""),
            }
        )  # fmt: skip
    sites = {seen["site"] for seen in chosen}
    known = [s for s in console.services.secrets.list() if s["kind"] == "bmc"]
    values = {
        "rows": rows, "pattern": pattern, "fields": fields, "problem": errors.get("", ""),
        "secrets": [s["id"] for s in known if {s["site"]} == sites],
        "key": fields.get("key") or secrets.token_hex(12),
    }  # fmt: skip
    page = Page(
        title="Accept machines", template="pending/accept.html", at="pending", values=values,
        still=True,
    )  # fmt: skip
    return console.render.page(page, 409 if errors else 200)


async def _accept(
    console: Console, who: Principal, chosen: list[Json], fields: Mapping[str, str]
) -> Response:
    """Seal the BMC's password if one is given, then order each machine's acceptance."""
    try:
        secret = await _secret(console, who, chosen, fields)
    except (HubError, Refused) as exc:
        return _form(console, chosen, fields, {"": show.sentence(str(exc))})
    errors: dict[str, str] = {}
    left: list[Json] = []
    for seen in chosen:
        key = f"{seen['site']} {seen['mac']}"
        url = fields.get(f"bmc {key}", "")
        bmc = {"url": url, "secret": secret} if url else None
        asked = {
            "kind": "server.accept", "site": seen["site"], "machine": seen["mac"],
            "params": {"name": fields.get(f"name {key}", ""), "bmc": bmc},
        }  # fmt: skip
        try:
            await console.api.call(
                "createOrder", who, asked, f"{fields.get('key', '')[:24]}-{seen['mac']}"
            )
        except (HubError, Refused) as exc:
            errors[key] = show.sentence(str(exc))
            left.append(seen)
    if errors:
        return _form(console, left, {**fields, "secret": secret or ""}, errors)
    number = show.count(len(chosen), "machine")
    return forms.go("/pending", f"{number} being accepted: nothing is written to the disks.")


async def _secret(
    console: Console, who: Principal, chosen: list[Json], fields: Mapping[str, str]
) -> str | None:
    """Return the id of the BMC's secret, made now when a new one is given."""
    choice = fields.get("secret", "")
    if choice != NEW:
        return choice or None
    sites = sorted({seen["site"] for seen in chosen})
    if len(sites) > 1:
        raise BadRequest("a secret belongs to one site: accept the machines of each by itself")
    name, username = fields.get("secret_id", ""), fields.get("username", "")
    password = fields.get("password", "")
    if not (name and username and password):
        raise BadRequest("a new secret needs an id, a user name and a password")
    value = json.dumps({"username": username, "password": password})
    body = {"site": sites[0], "kind": "bmc", "value": value}
    await console.api.call("setSecret", who, body, secret=name)
    return name
