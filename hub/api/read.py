"""Reading: every list and resource of the API, out of the reporting store.

It never touches the mesh store. Rule: what is unknown is null, and ages can be told from
``as_of_ms`` and the times in each resource.
"""

import json
from collections.abc import AsyncIterator
from typing import Any, cast

from quart import Blueprint, Response, request

from hub.api import shape
from hub.errors import BadRequest, Conflict, NotFound
from hub.ports import Json, Services
from hub.store import LIST_MAX, RUNNING, ReportStore
from mesh.rest import views
from mesh.rest.job_view import Here, as_seen
from mesh.rest.types import Job, Node, Site

AFTER_MAX = 1 << 53
EVENTS = "text/event-stream"


def sites(services: Services) -> list[Site]:
    """Return all sites with their counts."""
    store = services.store
    regions = {document["name"]: document["region"] for document in store.documents("site")}
    servers, running = store.counts("server"), store.counts("job", RUNNING)
    return views.sites(regions, cast(list[Node], nodes(services)), servers, running)


def nodes(services: Services) -> list[Json]:
    """Return all members with whether this hub reaches them now."""
    reachable, contacts = services.live.reachable(), services.store.contacts()
    documents = services.store.documents("node")
    now_ms = services.clock.now_ms()
    for node in documents:
        here = node["id"] == services.node_id or node["id"] in reachable
        node["reachable"] = here
        node["last_contact_ms"] = now_ms if here else contacts.get(node["id"])
    return documents


def seen_from(services: Services) -> Here:
    """Return what this hub knows beside the rows of jobs."""
    reachable = {services.node_id, *services.live.reachable()}
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


def routes(services: Services) -> Blueprint:
    """Return the routes that only read."""
    api = Blueprint("read", __name__, url_prefix="/api/v1")
    store = services.store

    def items(noun: str, values: Any) -> Response:
        return shape.items(noun, services.clock.now_ms(), values)

    def item(noun: str, value: Any) -> Response:
        return shape.item(noun, services.clock.now_ms(), value)

    def site() -> str | None:
        return request.args.get("site") or None

    @api.get("/version")
    async def version() -> Response:
        return item("version", {"build": services.build, "role": "hub", "api": 1})

    @api.get("/status")
    async def status() -> Response:
        return item("status", services.status.status())

    @api.get("/sites")
    async def list_sites() -> Response:
        return items("sites", sites(services))

    @api.get("/nodes")
    async def list_nodes() -> Response:
        wanted = site()
        found = [n for n in nodes(services) if wanted is None or n["site"] == wanted]
        return items("nodes", found)

    @api.get("/servers")
    async def list_servers() -> Response:
        return items("servers", store.documents("server", site()))

    @api.get("/servers/<name>")
    async def show_server(name: str) -> Response:
        return item("server", one(store, "server", name, "server"))

    @api.get("/pending")
    async def list_pending() -> Response:
        found = store.documents("pending", site())
        return items("pending", sorted(found, key=lambda seen: -seen["last_ms"]))

    @api.get("/jobs")
    async def list_jobs() -> Response:
        return items("jobs", jobs(services, site()))

    @api.get("/jobs/<job>")
    async def show_job(job: str) -> Response:
        return item("job", shown(services, [one(store, "job", job, "job")])[0])

    @api.get("/assets")
    async def list_assets() -> Response:
        return items("assets", store.documents("asset"))

    @api.get("/assets/<name>")
    async def show_asset(name: str) -> Response:
        return item("asset", one(store, "asset", name, "asset"))

    @api.get("/tokens")
    async def list_tokens() -> Response:
        return items("tokens", services.tokens.list())

    @api.get("/secrets")
    async def list_secrets() -> Response:
        return items("secrets", services.secrets.list())

    return api


def inventory_routes(services: Services) -> Blueprint:
    """Return the route of what servers are made of."""
    api = Blueprint("inventory", __name__, url_prefix="/api/v1")
    store = services.store

    @api.get("/servers/<name>/inventory")
    async def show_inventory(name: str) -> Response:
        found = inventory(store, one(store, "server", name, "server"))
        return shape.item("inventory", services.clock.now_ms(), found)

    return api


def log_routes(services: Services) -> Blueprint:
    """Return the route of job logs: live, from the node that runs the job.

    Lines of JSON, or server-sent events for a reader that asks for them: each line's number is
    its id, so a reader that comes back goes on behind the last one it had.
    """
    api = Blueprint("logs", __name__, url_prefix="/api/v1")

    @api.get("/jobs/<job>/logs")
    async def job_logs(job: str) -> Response:
        after, follow = _number("after"), request.args.get("follow") not in (None, "", "0")
        one(services.store, "job", job, "job")
        if request.accept_mimetypes.best == EVENTS:
            last = request.headers.get("Last-Event-ID", "")
            after = (
                int(last) if last.isascii() and last.isdigit() and len(last) <= 16 else after
            )
            response = Response(services.live.log_events(job, after), content_type=EVENTS)
            response.headers["Cache-Control"] = "no-store"
            response.timeout = None
            return response
        lines = services.live.job_log(job, after, follow)
        try:
            first = [await anext(lines)]
        except StopAsyncIteration:
            first = []
        response = Response(_json_lines(first, lines), content_type="application/x-ndjson")
        response.timeout = None
        return response

    return api


def _number(field: str) -> int:
    given = request.args.get(field, "0")
    if not (given.isascii() and given.isdigit()) or len(given) > 16 or int(given) > AFTER_MAX:
        raise BadRequest(f"{field} must be a whole number, not {given[:60]!r}")
    return int(given)


async def _json_lines(first: list[Json], lines: AsyncIterator[Json]) -> AsyncIterator[bytes]:
    for line in first:
        yield json.dumps(line).encode() + b"\n"
    async for line in lines:
        yield json.dumps(line).encode() + b"\n"
