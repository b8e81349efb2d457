"""A node's own API over its socket, beside a work service on a real store."""

import json
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import trio

from cache.api import Cache, Carrier
from mesh.answers import Answers
from mesh.proto import tables
from mesh.proto.order import Order, sign_order
from mesh.rest.types import Status
from node.bundles import import_handlers
from node.consoles import Consoles
from node.resources import Resources
from node.router import NodeApi, NodeFacts
from tests.support.alike import fake_alike
from tests.support.console_stream import FakeSerial, NoStreams
from tests.support.mesh_seen import SeenMesh
from tests.support.work_site import WorkSite


@dataclass
class NodeAt:
    site: WorkSite
    http: httpx2.Client
    api: NodeApi
    serial: FakeSerial
    path: Path
    """Of its socket."""

    async def ask(
        self, method: str, path: str, body: Any = None, key: str | None = None
    ) -> tuple[int, Any]:
        headers = {} if key is None else {"Idempotency-Key": key}
        content = None if body is None else json.dumps(body).encode()

        def request() -> httpx2.Response:
            return self.http.request(method, f"/api/v1{path}", content=content, headers=headers)

        response = await trio.to_thread.run_sync(request)
        return response.status_code, response.json()

    async def put_server(self, number: int, **body: Any) -> str:
        key = f"01890000-0000-7000-8000-00000000000{number}"
        row = {"id": key, "name": f"srv{number}", "site": "lab", "macs": [], "bmc": None,
               "state": "active", "cleaned": False, **body}  # fmt: skip
        await self.site.store.write(lambda tx: tx.put(self.site.scope, tables.SERVER, key, row))
        return key


def status_of(site: WorkSite) -> Status:
    return Status(
        role="node", name="n", node=site.node.node_id, site="lab", healthy=True, sentence="ok",
        problems=[], build="0.1.0", started_ms=0, root_fingerprint="", peers=[], services={},
    )  # fmt: skip


@asynccontextmanager
async def node_api(folder: Path, per_hour: int = 5) -> AsyncGenerator[NodeAt]:
    async with WorkSite(folder, per_hour=per_hour).running(machine=False) as site:
        root_fp, signer = site.org.root_fp, site.node.signer

        async def submit(orders: Any, also: Callable[[Any], None]) -> None:
            signed = [sign_order(order, signer, root_fp) for order in orders]
            assert all(isinstance(order, Order) for order in orders)
            await site.work.submit(*signed, also=also)

        cache = Cache.open(folder / "carried", 1 << 30, site.clock)

        async def take_state(_piece: bytes) -> None:
            await trio.lowlevel.checkpoint()

        carrier = Carrier(
            cache=cache, root_fp=root_fp, take_state=take_state, asset_of=lambda name: None,
            is_member=lambda node: True,
        )  # fmt: skip
        alike = fake_alike(site.node.node_id) | import_handlers(carrier)
        serial = FakeSerial()
        consoles = Consoles(
            site.work.rows, serial.open, site.work.credentials, NoStreams(),
            lambda: [site.node.node_id], site.work.holders,
        )  # fmt: skip
        facts = NodeFacts(
            resources=Resources(
                node=site.node.node_id, site="lab", store=site.store, clock=site.clock,
                register=site.org.register, peers=site.peers,
            ),
            build="0.1.0", answers=Answers(site.store.write, site.clock),
            status=lambda: status_of(site),
            mesh=SeenMesh(site.node.node_id, "node", list, "lab"),
            submit=submit, job_logs=site.work.logs, new_id=site.new_id,
            bmcs=site.work.bmcs,
            reader=lambda asset: None, alike=alike, console=consoles.watch,
        )  # fmt: skip
        path = folder / "api.sock"
        async with trio.open_nursery() as nursery:
            api = NodeApi(facts)
            await nursery.start(consoles.run)
            await nursery.start(api.run, path)
            transport = httpx2.HTTPTransport(uds=str(path))
            with httpx2.Client(transport=transport, base_url="http://node") as http:
                yield NodeAt(site, http, api, serial, path)
            nursery.cancel_scope.cancel()
        cache.close()
