"""Reading: every list and resource of the API, out of the reporting store.

It never touches the mesh store. Rule: what is unknown is null, and ages can be told from
``as_of_ms`` and the times in each resource.
"""

import json
from collections.abc import AsyncIterator
from typing import cast

from quart import Response, request

from hub.api.bind import Bindings, Handler
from hub.bmc import certificate, read_bmc
from hub.errors import Conflict, NotFound
from hub.ports import Json, Services
from hub.store import LIST_MAX, RUNNING, WAITING, ReportStore
from mesh.rest import groups, views
from mesh.rest.calls import Call
from mesh.rest.health_types import BmcCertificate
from mesh.rest.health_view import OPERATION_OF, Asked
from mesh.rest.job_view import Here, as_seen
from mesh.rest.lists import Page, Plan, page
from mesh.rest.openapi import document
from mesh.rest.operations import OPERATIONS
from mesh.rest.types import Group, Job, Node, Site, Status

EVENTS = "text/event-stream"


def sites(services: Services) -> list[Site]:
    """Return all sites with their counts."""
    store = services.store
    regions = {document["name"]: document["region"] for document in store.documents("site")}
    servers, running = store.states("server"), store.counts("job", RUNNING)
    waiting = store.counts("pending", WAITING)
    found = cast(list[Node], nodes(services))
    return views.sites(regions, found, servers, running, waiting)


def nodes(services: Services) -> list[Json]:
    """Return all members with whether this hub, or another one, reaches them now."""
    reached = services.live.reached()
    links, contacts = services.live.links(), services.store.contacts()
    documents = services.store.documents("node")
    now_ms = services.clock.now_ms()
    for node in documents:
        here = node["id"] == services.node_id or node["id"] in reached
        node["reachable"] = here
        node["linked_ms"], node["link_address"] = links.get(node["id"], (None, None))
        node["last_contact_ms"] = now_ms if here else contacts.get(node["id"])
    return documents


def seen_from(services: Services) -> Here:
    """Return what this hub knows beside the rows of jobs."""
    reachable = {services.node_id, *services.live.links()}
    members = {
        node["id"]: node["name"]
        for node in services.store.documents("node")
        if node["status"] == "member"
    }
    now_ms = services.clock.now_ms()
    return Here(now_ms=now_ms, name="this hub", reachable=reachable, members=members)


def jobs(services: Services, site: str | None = None, limit: int = LIST_MAX) -> list[Json]:
    """Return jobs as they look from here and now."""
    return shown(services, services.store.jobs(site, limit))


def shown(services: Services, found: list[Json]) -> list[Json]:
    """Return job documents with what is plain from this hub now."""
    here = seen_from(services)
    return [cast(Json, as_seen(cast(Job, job), here)) for job in found]


def one(store: ReportStore, kind: str, name: str, noun: str) -> Json:
    """Return the only document with this id or name; NotFound or Conflict otherwise."""
    found = store.find(kind, name)
    if not found:
        raise NotFound(f"there is no {noun} {name[:100]!r}")
    if len(found) > 1:
        where = ", ".join(sorted(document["site"] for document in found))
        raise Conflict(f"{noun} {name!r} exists in several sites ({where}); give its id")
    return found[0]


def inventory(store: ReportStore, server: Json) -> Json:
    """Return what was found in a server; NotFound until its ramdisk has reported once."""
    for mac in server["macs"]:
        for found in store.find("inventory", mac):
            if found["server"] == server["id"]:
                return found
    raise NotFound(f"{server['name']} has not been inspected: it never ran the ramdisk")


def listed(services: Services, asked: Plan) -> Page:
    """Return a page of any list of the API; what the console's pages read too."""
    store, noun = services.store, asked.of.noun
    match noun:
        case "jobs":
            return store.page("job", asked, lambda found: shown(services, found))
        case "servers" | "assets" | "pending" | "bmcs":
            kind = noun.removesuffix("s")  # pending has none
            return store.page(kind, asked)
        case "groups":
            return page(asked, groups.groups(shown(services, store.grouped())))
        case "sites":
            return page(asked, cast(list[Json], sites(services)))
        case "nodes":
            return page(asked, nodes(services))
        case "tokens":
            return page(asked, cast(list[Json], services.tokens.list()))
        case "secrets":
            return page(asked, cast(list[Json], services.secrets.list()))
        case "templates":
            return page(asked, cast(list[Json], services.templates.list()))
        case "hooks":
            return page(asked, cast(list[Json], services.hooks.list()))
        case "accounts":
            accounts = services.accounts.list()
            return page(asked, [cast(Json, account.shown()) for account in accounts])
        case "hubs":
            return page(asked, cast(list[Json], services.trust.hubs()))
        case "api-tokens":
            return page(asked, cast(list[Json], services.api_tokens.list()))
        case _:
            raise AssertionError(noun)


def bind(on: Bindings, services: Services) -> None:
    """Bind the operations that only read."""
    store = services.store

    async def show_list(call: Call) -> Page:
        assert call.plan is not None
        return listed(services, call.plan)

    for operation in OPERATIONS.values():
        if operation.form == "list" and operation.id not in services.alike:
            on.on(operation.id)(show_list)

    @on.on("getVersion")
    async def version(_call: Call) -> Json:
        return {"build": services.build, "role": "hub", "api": 1}

    @on.on("getOpenapi")
    async def describe(_call: Call) -> Json:
        return document("hub", services.build)

    @on.on("getStatus")
    async def status(_call: Call) -> Status:
        return services.status.status()

    @on.on("getServer")
    async def show_server(call: Call) -> Json:
        return one(store, "server", call.parts["server"], "server")

    @on.on("getInventory")
    async def show_inventory(call: Call) -> Json:
        return inventory(store, one(store, "server", call.parts["server"], "server"))

    @on.on("getBmcCertificate")
    async def look(call: Call) -> BmcCertificate:
        return await certificate(services.live.peers, store, call.parts["site"], call.query.url)

    for operation_id, what in OPERATION_OF.items():
        on.on(operation_id)(_ask_bmc(services, what))

    @on.on("getJob")
    async def show_job(call: Call) -> Json:
        return shown(services, [one(store, "job", call.parts["job"], "job")])[0]

    @on.on("getGroup")
    async def show_group(call: Call) -> Group:
        jobs = shown(services, store.grouped(call.parts["group"]))
        if not jobs:
            raise NotFound(f"there is no group {call.parts['group']!r}")
        return groups.group(call.parts["group"], jobs)

    @on.on("getAsset")
    async def show_asset(call: Call) -> Json:
        return one(store, "asset", call.parts["name"], "asset")

    @on.on("getJobLog")
    async def job_log(call: Call) -> Response:
        job = call.parts["job"]
        one(store, "job", job, "job")
        if request.accept_mimetypes.best == EVENTS:
            return _log_events(services, job, call.query.after)
        lines = services.live.job_log(job, call.query.after, call.query.follow)
        try:
            first = [await anext(lines)]
        except StopAsyncIteration:
            first = []
        response = Response(_json_lines(first, lines), content_type="application/x-ndjson")
        response.timeout = None
        return response


def _ask_bmc(services: Services, what: Asked) -> Handler:
    async def ask(call: Call) -> Json:
        server = one(services.store, "server", call.parts["server"], "server")
        return await read_bmc(services.live.peers, services.store, server, what)

    return ask


def _log_events(services: Services, job: str, after: int) -> Response:
    """Follow a log as server-sent events: each line's number is its id, so a reader that comes
    back goes on behind the last one it had."""
    last = request.headers.get("Last-Event-ID", "")
    after = int(last) if last.isascii() and last.isdigit() and len(last) <= 16 else after
    response = Response(services.live.log_events(job, after), content_type=EVENTS)
    response.headers["Cache-Control"] = "no-store"
    response.timeout = None
    return response


async def _json_lines(first: list[Json], lines: AsyncIterator[Json]) -> AsyncIterator[bytes]:
    for line in first:
        yield json.dumps(line).encode() + b"\n"
    async for line in lines:
        yield json.dumps(line).encode() + b"\n"
