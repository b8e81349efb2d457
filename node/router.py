"""``/api/v1`` on the node's own ``api.sock``: the site goes on without its hub.

The same table of operations, checks, lists and answers as the hub's API. It knows neither jobs
nor boot services, only resources and a few calls. Rules: the socket is 0600 and the peer's uid
is checked; orders are taken only from a node with the role site-operator.
"""

import base64
import json
import os
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import trio

from mesh.answers import Answers
from mesh.errors import Refused, RemoteRefused, StoreFull, Unreachable
from mesh.host.local_socket import listen_local, may_ask, peer_uid
from mesh.host.log import get_log
from mesh.host.memory import resident_bytes
from mesh.host.web_socket import MessageSocket
from mesh.observer import Observer
from mesh.proto.order import CANCEL, DESTRUCTIVE, JOB_VERBS, RETRY, Order
from mesh.proto.tables import VERDICT
from mesh.proto.trust import ROLE_SITE_OPERATOR
from mesh.rest import groups, metrics, verdicts
from mesh.rest.calls import KEY_HEADER, Call, given, read_call
from mesh.rest.health_view import OPERATION_OF, Asked
from mesh.rest.import_types import Imported
from mesh.rest.imports import plan_import
from mesh.rest.lists import page, plan
from mesh.rest.openapi import document
from mesh.rest.operations import OPERATIONS, PREFIX, SOCKET, Operation, find, methods
from mesh.rest.orders import Draft, KnownLists, draft, not_after_ms
from mesh.rest.problems import CONTENT_TYPE, STATUS, RequestProblem, problem
from mesh.rest.requests import GROUP_MAX, ListQuery
from mesh.rest.types import GroupAccepted, GroupVerb, OrderAccepted, Status
from node.boot.http import ANY, FileBody, HttpServer, Request, Response, Route
from node.consoles import Asked as AskedConsole
from node.resources import Resources
from node.work.bmc_desk import BmcDesk

NO_OPERATOR: Final = "this node has no role site-operator; give the order at a hub"
Handler = Callable[[Call], Awaitable[Any]]
log = get_log("api")


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFacts:
    """What the API needs beside the rows; filled in by ``node.main``."""

    resources: Resources
    build: str
    answers: Answers
    status: Callable[[], Status]
    mesh: Observer
    submit: Callable[[Sequence[Order], Callable[[Any], None]], Awaitable[None]]
    """Sign, store and start orders of ours, all or none, with what else is to be written in
    the same transaction; raises Refused."""
    job_logs: Callable[[str, int], Awaitable[list[tuple[int, int, str]]]]
    """Lines (number, Unix ms, text) of a job's log above a number."""
    bmcs: BmcDesk
    """What BMCs of the site say now."""
    console: Callable[[Any, AskedConsole], Awaitable[None]]
    """Serves one who watches a server's console, to the end (node/consoles.py)."""
    reader: Callable[[str], Any]
    """A reader of an asset that is here or arriving, or None (node/boot/ports.py)."""
    new_id: Callable[[], str]
    alike: Mapping[str, Handler]
    """Handlers of what hub and node do alike (mesh/rest/alike.py)."""


class NodeApi:
    """The router; ``run`` listens on the socket."""

    def __init__(self, facts: NodeFacts) -> None:
        self._f = facts
        self._r = facts.resources
        self._handlers: dict[str, Handler] = {
            "getVersion": self._version,
            "getOpenapi": self._describe,
            "getStatus": _shown(facts.status),
            "getMesh": _shown(facts.mesh.mesh),
            "getTopology": self._topology,
            "getBmcCertificate": self._certificate,
            "getServer": _shown(self._r.server, "server"),
            "getInventory": _shown(self._r.inventory, "server"),
            "getJob": _shown(self._r.job, "job"),
            "getJobLog": self._job_log,
            "openConsole": self._console,
            "getGroup": self._group,
            "getAsset": _shown(self._r.asset, "name"),
            "exportAsset": self._export,
            "rejectMachine": self._verdict(True),
            "restoreMachine": self._verdict(False),
            "createOrder": self._order,
            "createGroup": self._order_group,
            "importServers": self._import,
            "cancelGroup": self._tell_group(CANCEL),
            "retryGroup": self._tell_group(RETRY),
        }
        self._handlers |= facts.alike
        self._handlers |= {name: self._bmc(what) for name, what in OPERATION_OF.items()}
        here = {name: o for name, o in OPERATIONS.items() if "node" in o.at}
        lists = {n for n, o in here.items() if o.form == "list"} - facts.alike.keys()
        self._handlers |= dict.fromkeys(lists, self._list)
        assert here.keys() == self._handlers.keys(), sorted(here.keys() ^ self._handlers.keys())
        routes = [
            Route(ANY, f"{PREFIX}/", self._serve_call, quiet=True),
            Route("GET", "/metrics", self._scrape, quiet=True),
            Route("GET", "/readyz", self._readyz, quiet=True),
        ]
        self.http = HttpServer(routes, log)

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
        await self.http.serve(stream)

    async def _serve_call(self, request: Request) -> Response:
        """Answer one request; what is refused becomes a problem document."""
        try:
            return await self._answer(request)
        except RequestProblem as exc:
            return _problem(exc.code, str(exc), exc.hint)
        except StoreFull:
            return _problem("full", "the node's disk is full: nothing was changed")
        except (Unreachable, RemoteRefused) as exc:
            return _problem("unreachable", f"the job's node cannot be asked: {exc}")
        except Refused as exc:
            return _problem("conflict", str(exc))

    async def _answer(self, request: Request) -> Response:
        path, method = request.path.removeprefix(PREFIX), request.method
        found = find("GET" if method == "HEAD" else method, path)
        handler = self._handlers.get(found[0].id) if found is not None else None
        if found is None or handler is None:
            return _nothing(path, found[0] if found is not None else None)
        operation, parts = found
        upgrade = request.headers.get("upgrade", "").lower()
        if operation.form == "socket" and upgrade != "websocket":
            raise RequestProblem("bad-request", SOCKET)
        call = read_call(
            operation, f"{os.geteuid()}", parts, request.query, request.body,
            request.headers.get(KEY_HEADER.lower()),
        )  # fmt: skip
        answer = await self._f.answers.answer(call, handler)
        if isinstance(answer, Response):
            return answer
        return Response.json(answer, operation.status)

    # -- reading -----------------------------------------------------------------------------

    async def _list(self, call: Call) -> Any:
        assert call.plan is not None
        return self._r.page(call.plan)

    async def _version(self, _call: Call) -> Any:
        return {"build": self._f.build, "role": "node", "api": 1}

    async def _describe(self, _call: Call) -> Any:
        return document("node", self._f.build)

    async def _topology(self, _call: Call) -> Any:
        return await self._f.mesh.gather()

    async def _group(self, call: Call) -> Any:
        group = call.parts["group"]
        return groups.group(group, self._r.group_jobs(group))

    async def _export(self, call: Call) -> Response:
        item = self._r.asset(call.parts["name"])
        reader = self._f.reader(str(item["asset"]))
        if reader is None:
            sentence = f"this node does not hold the content of {item['name']}"
            raise RequestProblem("unreachable", sentence, "ask a hub, or a node that holds it")
        digest = base64.b64encode(bytes.fromhex(str(item["sha256"]))).decode()
        tag = str(item["asset"]).removeprefix("b3:")
        body = FileBody(reader.fd, reader.size, tag, wait=reader.wait)
        return Response(headers={"Repr-Digest": f"sha-256=:{digest}:"}, body=body)

    async def _certificate(self, call: Call) -> Any:
        return await self._f.bmcs.shown_certificate(call.parts["site"], call.query.url)

    def _bmc(self, what: Asked) -> Handler:
        async def ask(call: Call) -> Any:
            return await self._f.bmcs.read(self._r.server(call.parts["server"])["id"], what)

        return ask

    async def _job_log(self, call: Call) -> Response:
        job = self._r.job(call.parts["job"])
        if job["runner"] is None:
            raise RequestProblem(
                "unreachable", f"no node has taken up job {job['id']} yet, so there is no log"
            )
        try:
            lines = await self._f.job_logs(job["id"], call.query.after)
        except Refused as exc:
            raise RequestProblem("unreachable", f"the log cannot be read: {exc}") from exc
        rows = [{"seq": seq, "at_ms": at_ms, "text": text} for seq, at_ms, text in lines]
        body = "".join(json.dumps(row) + "\n" for row in rows)
        return Response(200, {"Content-Type": "application/x-ndjson"}, body.encode())

    async def _console(self, call: Call) -> Response:
        server, query = self._r.server(call.parts["server"]), call.query
        asked = AskedConsole(
            server=str(server["id"]), who=f"uid {call.who} here", may_write=True,
            write=query.write or query.take, take=query.take, steal=query.steal,
        )  # fmt: skip

        async def serve(socket: MessageSocket) -> None:
            await self._f.console(socket, asked)

        return Response(101, upgrade=serve)

    def _verdict(self, rejected: bool) -> Handler:
        async def give(call: Call) -> Any:
            self._check_operator()
            seen = verdicts.meant(self._r.pending(), call.parts["machine"], call.body.site)

            def write(tx: Any) -> Any:
                after, body = verdicts.judged(seen, rejected, call.who, tx.now_ms)
                tx.put(self._r.scope, VERDICT, seen["mac"], body)
                return after

            return await self._r.store.write(write)

        return give

    # -- monitoring --------------------------------------------------------------------------

    async def _readyz(self, _request: Request) -> Response:
        trouble = self._r.store.not_ready
        return Response.text(f"{trouble or 'ready'}\n", 503 if trouble else 200)

    async def _scrape(self, _request: Request) -> Response:
        now_ms = self._r.clock.now_ms()
        servers = Counter(server["state"] for server in self._r.servers())
        jobs = Counter(job["state"] for job in self._r.jobs())
        found = [
            *metrics.daemon(self._f.status(), now_ms, resident_bytes()),
            metrics.gauge("rackmesh_pending", "Machines not accepted.", len(self._r.pending())),
            metrics.by_state("rackmesh_servers", "Servers by state.", servers),
            metrics.by_state("rackmesh_jobs", "Jobs by state.", jobs),
            *metrics.mesh(self._f.mesh.mesh(), now_ms),
        ]
        return Response(
            200, {"Content-Type": metrics.CONTENT_TYPE}, metrics.text(found).encode()
        )

    # -- orders ------------------------------------------------------------------------------

    async def _order(self, call: Call) -> OrderAccepted:
        self._check_operator()
        asked = {**given(call.body)}
        asked["site"] = asked.get("site") or self._r.site
        made = draft(asked, self._known(), self._f.new_id())
        order = self._signable(made, asked)
        job = str(made.params["job"]) if made.kind in JOB_VERBS else order.id
        answer = OrderAccepted(order=order.id, job=job, site=made.site, server=made.server)
        await self._submit([order], answer, call)
        return answer

    async def _order_group(self, call: Call) -> GroupAccepted:
        self._check_operator()
        asked, known = given(call.body), self._known()
        servers = groups.chosen(asked, known, self._filtered)
        params = asked.get("params") or {}
        made, refused = groups.drafts(asked["kind"], params, servers, known)
        names = {server["id"]: str(server["name"]) for server in servers}
        group = self._f.new_id()
        orders = [self._signable(one, asked, group) for one in made]
        answer = GroupAccepted(
            group=group,
            kind=asked["kind"],
            destructive=sum(one.order_class == DESTRUCTIVE for one in made),
            orders=[
                groups.ordered(order.id, one, names)
                for order, one in zip(orders, made, strict=True)
            ],
            refused=refused,
        )
        await self._submit(orders, answer, call)
        return answer

    async def _import(self, call: Call) -> Imported:
        self._check_operator()
        asked, new_id = call.body, self._f.new_id
        site = asked.site or self._r.site
        found = plan_import(asked, self._known(), new_id, site=site, secrets=None)
        elsewhere = [one for one in found.servers if one.draft.site != self._r.site]
        if elsewhere:
            first = elsewhere[0]
            raise RequestProblem(
                "bad-request",
                f"line {first.entry.line} is of site {first.draft.site}, this node of"
                f" {self._r.site}: import that at a hub",
            )
        dry = asked.dry_run is True
        if found.faults or dry:
            return found.answer(dry, (), ())
        groups = {kind: new_id() for kind in sorted({o.draft.kind for o in found.servers})}
        orders = [
            self._signable(one.draft, {}, groups[one.draft.kind]) for one in found.servers
        ]
        answer = found.answer(False, [order.id for order in orders], list(groups.values()))
        await self._submit(orders, answer, call)
        return answer

    def _tell_group(self, kind: str) -> Handler:
        async def tell(call: Call) -> GroupVerb:
            self._check_operator()
            group = call.parts["group"]
            made = groups.to_do(group, kind, self._r.group_jobs(group))
            jobs = [str(one.params["job"]) for one in made]
            answer = GroupVerb(group=group, kind=kind, jobs=jobs)
            await self._submit([self._signable(one, {}) for one in made], answer, call)
            return answer

        return tell

    def _filtered(self, text: str) -> list[Any]:
        asked = plan("servers", ListQuery(filter=text, limit=GROUP_MAX + 1))
        return list(page(asked, self._r.servers()).items)

    def _check_operator(self) -> None:
        me = self._r.register.member(self._r.node)
        if me is None or ROLE_SITE_OPERATOR not in me.roles:
            raise RequestProblem("denied", NO_OPERATOR)

    def _known(self) -> KnownLists:
        return KnownLists(
            servers=self._r.servers(),
            pending=self._r.pending(),
            jobs=self._r.jobs(),
            images={item["name"]: item for item in self._r.assets()},
            nodes=self._r.nodes(),
            templates=self._r.templates(),
            hooks=self._r.hooks(),
        )

    def _signable(
        self, made: Draft, asked: Mapping[str, Any], group: str | None = None
    ) -> Order:
        return Order(
            id=self._f.new_id(),
            region="",
            region_epoch=0,
            site=made.site,
            kind=made.kind,
            params=made.params,
            author=f"{os.geteuid()}@{self._r.node}",
            not_after_ms=not_after_ms(asked, self._r.clock.now_ms()),
            order_class=made.order_class,
            group=group,
        )

    async def _submit(self, orders: Sequence[Order], answer: Any, call: Call) -> None:
        def also(tx: Any) -> None:
            if call.keep is not None:
                call.keep(tx, answer)

        await self._f.submit(orders, also)


def _shown(read: Callable[..., Any], part: str | None = None) -> Handler:
    """Return a handler that shows one resource, named by a part of the path."""

    async def show(call: Call) -> Any:
        return read(call.parts[part]) if part is not None else read()

    return show


def _nothing(path: str, elsewhere: Operation | None) -> Response:
    """Say what there is instead of an operation that a node does not have."""
    known = ", ".join(methods(path, "node"))
    hint = None
    if elsewhere is not None:
        sentence = f"only a hub can do this: {elsewhere.summary}"
        hint = "give --hub, or --data of a hub"
    elif known:
        sentence = f"this address takes {known}"
    else:
        sentence = "there is nothing at this address"
    refusal = _problem("not-allowed" if known else "not-found", sentence, hint)
    more = {"Allow": known} if known else {}
    return Response(refusal.status, {**refusal.headers, **more}, refusal.body)


def _problem(code: str, detail: str, hint: str | None = None) -> Response:
    document = problem(STATUS[code], code, detail, hint)
    body = json.dumps(document).encode()
    return Response(STATUS[code], {"Content-Type": CONTENT_TYPE}, body)
