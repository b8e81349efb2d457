"""``/api/v1`` on the node's own ``api.sock``: the site goes on without its hub.

The same resources as the hub's API, made from this node's rows (mesh/rest/views.py). It knows
neither jobs nor boot services, only the rows and a few calls. Rules: the socket is 0600 and the
peer's uid is checked; orders are taken only from a node with the role site-operator.
"""

import json
import os
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import trio

from mesh.errors import MeshError, Refused, RemoteRefused, StoreFull, Unreachable
from mesh.host.clock import Clock
from mesh.host.local_socket import listen_local, may_ask, peer_uid
from mesh.host.log import get_log
from mesh.proto.order import CANCEL, RETRY, Order, OrderRefused, open_order
from mesh.proto.tables import (
    FLEET,
    JOB,
    NAME,
    NODE,
    ORDER,
    PRESENCE,
    REFERENCE,
    SERVER,
    SIGHTING,
    SITE,
    site_scope,
)
from mesh.proto.trust import ROLE_SITE_OPERATOR
from mesh.rest import views
from mesh.rest.job_view import Here, as_seen
from mesh.rest.orders import NOT_AFTER_MS, Known, OrderProblem, draft
from mesh.rest.types import Node, Status
from node.boot.http import HttpServer, Request, Response, Route

BACKLOG: Final = 16
ITEMS_MAX: Final = 10_000
ENDED: Final = ("succeeded", "failed", "cancelled", "refused")
NO_OPERATOR: Final = "this node has no role site-operator; give the order at a hub"
NO_ROOM: Final = "waits for room on the node's disk"
STATUS_OF: Final = {"bad-request": 400, "denied": 403, "not-found": 404, "conflict": 409}
log = get_log("api")


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFacts:
    """What the API needs beside the rows; filled in by ``node.main``."""

    node: str
    site: str
    build: str
    store: Any
    register: Any
    peers: Any
    clock: Clock
    status: Callable[[], Status]
    submit: Callable[[Order], Awaitable[str]]
    """Sign, store and start an order of ours; raises Refused."""
    job_logs: Callable[[str, int], Awaitable[list[tuple[int, int, str]]]]
    """Lines (number, Unix ms, text) of a job's log above a number."""
    new_id: Callable[[], str]


class NodeApi:
    """The router; ``run`` listens on the socket."""

    def __init__(self, facts: NodeFacts) -> None:
        self._f = facts
        self._scope = site_scope(facts.site)
        get = [
            ("/api/v1/version", self._version),
            ("/api/v1/status", self._status),
            ("/api/v1/sites", self._sites),
            ("/api/v1/nodes", self._nodes),
            ("/api/v1/servers", self._servers),
            ("/api/v1/servers/", self._one("servers", self._server_items)),
            ("/api/v1/pending", self._pending),
            ("/api/v1/jobs", self._jobs),
            ("/api/v1/jobs/", self._job),
            ("/api/v1/assets", self._assets),
            ("/api/v1/assets/", self._one("assets", self._asset_items)),
        ]
        routes = [Route("GET", path, handler, quiet=True) for path, handler in get]
        routes.append(Route("POST", "/api/v1/orders", self._order))
        self._http = HttpServer(routes, log)

    async def run(
        self, path: Path, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Listen on a unix socket that only root and our own user may use."""
        listener = await listen_local(path)
        try:
            task_status.started()
            await trio.serve_listeners(self._serve, [listener])
        finally:
            path.unlink(missing_ok=True)

    async def _serve(self, stream: trio.SocketStream) -> None:
        if not may_ask(stream.socket):
            log.warning("stranger on the api socket", user=peer_uid(stream.socket))
            await trio.aclose_forcefully(stream)
            return
        await self._http.serve(stream)

    # -- reading -----------------------------------------------------------------------------

    def _answer(self, noun: str, key: str, value: Any) -> Response:
        schema = f"rackmesh/{noun}/1"
        return Response.json({"schema": schema, "as_of_ms": self._f.clock.now_ms(), key: value})

    def _items(self, noun: str, value: list[Any]) -> Response:
        return self._answer(noun, "items", value[:ITEMS_MAX])

    async def _version(self, _request: Request) -> Response:
        return self._answer("version", "item", {"build": self._f.build, "role": "node"})

    async def _status(self, _request: Request) -> Response:
        return self._answer("status", "item", self._f.status())

    async def _sites(self, _request: Request) -> Response:
        here = self._f.site
        running = [job for job in self._job_items() if job["state"] not in ENDED]
        regions = {row.key: row.body.get("region") for row in self._f.store.rows(FLEET, SITE)}
        servers, jobs = {here: len(self._server_items())}, {here: len(running)}
        return self._items("sites", views.sites(regions, self._node_items(), servers, jobs))

    async def _nodes(self, _request: Request) -> Response:
        return self._items("nodes", self._node_items())

    def _node_items(self) -> list[Node]:
        rows = self._f.store.authored(FLEET, NODE)
        said = {row.author: row.body for row in rows if row.author == row.key}
        near = {*self._f.peers.connected(), self._f.node}
        now = self._f.clock.now_ms()
        items = [
            views.node(m, said.get(m.node_id, {}), True, now)
            if m.node_id in near
            else views.node(m, said.get(m.node_id, {}), None, None)
            for m in self._f.register.members()
        ]
        return sorted(items, key=lambda item: (item["site"], item["name"]))

    async def _servers(self, _request: Request) -> Response:
        return self._items("servers", self._server_items())

    def _server_items(self) -> list[Any]:
        rows = self._f.store.rows(self._scope, SERVER)
        return sorted((views.server(row.body) for row in rows), key=lambda item: item["name"])

    async def _pending(self, _request: Request) -> Response:
        return self._items("pending", self._pending_items())

    def _pending_items(self) -> list[Any]:
        seen = [(row.author, row.body) for row in self._f.store.authored(self._scope, SIGHTING)]
        servers = [row.body for row in self._f.store.rows(self._scope, SERVER)]
        return list(views.pending(self._f.site, seen, servers))

    async def _jobs(self, _request: Request) -> Response:
        return self._items("jobs", self._job_items())

    def _job_items(self) -> list[Any]:
        rows, orders, servers = (
            self._f.store.rows(self._scope, table) for table in (JOB, ORDER, SERVER)
        )
        jobs = [views.job(row.body) for row in rows]
        jobs += views.waiting_orders(self._f.site, orders, rows, servers, self._read_order)
        here = self._here()
        jobs = [as_seen(job, here) for job in jobs]
        if self._f.store.full:  # what it waits for cannot be written into its row
            ours = (None, self._f.node)
            for job in (job for job in jobs if job["runner"] in ours):
                if job["state"] not in (*ENDED, "parked"):
                    job["waits_for"] = NO_ROOM
        return sorted(jobs, key=lambda j: (j["state"] in ENDED, -(j["created_ms"] or 0)))

    def _here(self) -> Here:
        """Return what this node knows beside the rows of jobs."""
        named = {
            row.author: row.body.get("name") for row in self._f.store.authored(FLEET, NODE)
        }
        members = {
            member.node_id: str(named.get(member.node_id) or member.node_id[:8])
            for member in self._f.register.site_members(self._f.site)
        }
        return Here(
            now_ms=self._f.clock.now_ms(),
            name="this node",
            reachable={self._f.node, *self._f.peers.connected()},
            members=members,
        )

    def _read_order(self, row: views.RowLike) -> Order | None:
        signed = row.body.get("signed")
        try:
            if isinstance(signed, bytes):
                return open_order(signed, self._f.register, None, site=self._f.site)
        except OrderRefused as exc:
            return exc.order  # of somebody who may give orders; it ends with the sentence
        return None

    async def _job(self, request: Request) -> Response:
        name, _, tail = request.path.removeprefix("/api/v1/jobs/").partition("/")
        found = [job for job in self._job_items() if job["id"] == name]
        if not found:
            return _problem(404, "not-found", f"there is no job {name!r}")
        if not tail:
            return self._answer("job", "item", found[0])
        if tail != "logs":
            return _problem(404, "not-found", "there is nothing under this path")
        if found[0]["runner"] is None:
            sentence = f"no node has taken up job {name} yet, so there is no log"
            return _problem(503, "unreachable", sentence)
        after = request.query.get("after", "0")
        if not re.fullmatch(r"\d{1,12}", after):
            return _problem(400, "bad-request", f"after={after[:20]!r} is no line number")
        try:
            lines = await self._f.job_logs(name, int(after))
        except (Unreachable, RemoteRefused, Refused) as exc:
            return _problem(503, "unreachable", f"the job's node cannot be asked: {exc}")
        rows = [{"seq": seq, "at_ms": at_ms, "text": text} for seq, at_ms, text in lines]
        body = "".join(json.dumps(row) + "\n" for row in rows)
        return Response(200, {"Content-Type": "application/x-ndjson"}, body.encode())

    async def _assets(self, _request: Request) -> Response:
        return self._items("assets", self._asset_items())

    def _asset_items(self) -> list[Any]:
        store = self._f.store
        return views.assets(
            store.rows(FLEET, REFERENCE),
            store.rows(FLEET, NAME),
            store.authored(FLEET, PRESENCE),
            self._f.register.members(),
        )

    def _one(
        self, noun: str, items: Callable[[], list[Any]]
    ) -> Callable[[Request], Awaitable[Response]]:
        async def show(request: Request) -> Response:
            wanted = request.path.removeprefix(f"/api/v1/{noun}/")
            for item in items():
                if wanted in (item.get("id"), item["name"]):
                    return self._answer(noun.removesuffix("s"), "item", item)
            return _problem(
                404, "not-found", f"there is no {noun.removesuffix('s')} {wanted!r}"
            )

        return show

    # -- orders ------------------------------------------------------------------------------

    async def _order(self, request: Request) -> Response:
        try:
            body = json.loads(request.body or b"{}")
        except ValueError:
            return _problem(400, "bad-request", "the body is not JSON")
        if not isinstance(body, dict):
            return _problem(400, "bad-request", "the body must be an object")
        me = self._f.register.member(self._f.node)
        if me is None or ROLE_SITE_OPERATOR not in me.roles:
            return _problem(403, "denied", NO_OPERATOR)
        known = Known(
            servers=self._server_items(),
            pending=self._pending_items(),
            jobs=self._job_items(),
            images={item["name"]: item["asset"] for item in self._asset_items()},
        )
        order_id = self._f.new_id()
        try:
            made = draft(body, known, self._f.new_id())
            order = Order(
                id=order_id,
                region="",
                region_epoch=0,
                site=made.site,
                kind=made.kind,
                params=made.params,
                author=f"{os.geteuid()}@{self._f.node}",
                not_after_ms=self._f.clock.now_ms() + NOT_AFTER_MS,
                order_class=made.order_class,
            )
            job = await self._f.submit(order)
            if made.kind in (CANCEL, RETRY):
                job = str(made.params["job"])
        except OrderProblem as exc:
            return _problem(STATUS_OF.get(exc.code, 409), exc.code, str(exc))
        except StoreFull:
            return _problem(507, "full", "the node's disk is full: the order was not taken")
        except MeshError as exc:
            return _problem(403, "denied", str(exc))
        item = {"order": order_id, "job": job, "site": made.site, "server": made.server}
        return Response(202, *_json(self._answer("order", "item", item)))


def _json(response: Response) -> tuple[Mapping[str, str], Any]:
    return response.headers, response.body


def _problem(status: int, code: str, detail: str) -> Response:
    value = {"type": "about:blank", "status": status, "code": code, "detail": detail}
    body = json.dumps(value).encode()
    return Response(status, {"Content-Type": "application/problem+json"}, body)
