"""The node's own API over its socket: the same table, lists, keys and groups as the hub's."""

import json
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import trio

from mesh.answers import Answers
from mesh.proto import tables
from mesh.proto.order import Order, sign_order
from mesh.rest.operations import OPERATIONS
from mesh.rest.types import Status
from node.resources import Resources
from node.router import NodeApi, NodeFacts
from tests.support.work_site import WorkSite

RELEASE = {"kind": "server.release"}


@dataclass
class NodeAt:
    site: WorkSite
    http: httpx2.Client

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


@asynccontextmanager
async def node_api(folder: Path, per_hour: int = 5) -> AsyncGenerator[NodeAt]:
    async with WorkSite(folder, per_hour=per_hour).running(machine=False) as site:
        root_fp, signer = site.org.root_fp, site.node.signer

        async def submit(orders: Any, also: Callable[[Any], None]) -> None:
            signed = [sign_order(order, signer, root_fp) for order in orders]
            assert all(isinstance(order, Order) for order in orders)
            await site.work.submit(*signed, also=also)

        facts = NodeFacts(
            resources=Resources(
                node=site.node.node_id, site="lab", store=site.store, clock=site.clock,
                register=site.org.register, peers=site.peers,
            ),
            build="0.1.0", answers=Answers(site.store.write, site.clock),
            status=lambda: Status(role="node", name="n", node=site.node.node_id),  # type: ignore[typeddict-item]
            submit=submit, job_logs=site.work.logs, new_id=site.new_id,
        )  # fmt: skip
        path = folder / "api.sock"
        async with trio.open_nursery() as nursery:
            await nursery.start(NodeApi(facts).run, path)
            transport = httpx2.HTTPTransport(uds=str(path))
            with httpx2.Client(transport=transport, base_url="http://node") as http:
                yield NodeAt(site, http)
            nursery.cancel_scope.cancel()


async def test_every_list_of_the_table_is_there_in_its_form(tmp_path: Path) -> None:
    async with node_api(tmp_path) as at:
        await at.put_server(1)
        for operation in OPERATIONS.values():
            if operation.form != "list":
                continue
            status, body = await at.ask("GET", operation.path)
            if "node" in operation.at:
                assert (status, body["schema"]) == (200, f"rackmesh/{operation.noun}/1")
                assert body["next"] is None
                assert isinstance(body["items"], list)
            else:
                assert (status, body["code"]) == (404, "not-found")
                assert "only a hub can do this" in body["detail"]


async def test_lists_are_filtered_and_come_in_pages_as_at_a_hub(tmp_path: Path) -> None:
    async with node_api(tmp_path) as at:
        for number in range(1, 6):
            await at.put_server(number, state="active" if number % 2 else "available")
        _, first = await at.ask("GET", "/servers?filter=state:active&limit=2&sort=-name")
        assert [item["name"] for item in first["items"]] == ["srv5", "srv3"]
        _, second = await at.ask(
            "GET", f"/servers?filter=state:active&limit=2&sort=-name&cursor={first['next']}"
        )
        assert [item["name"] for item in second["items"]] == ["srv1"]
        assert second["next"] is None
        status, body = await at.ask("GET", "/servers?filter=color:red")
        assert (status, body["code"]) == (400, "bad-request")
        status, body = await at.ask("GET", "/servers/nobody")
        assert (status, body["detail"]) == (404, "there is no server 'nobody'")
        status, body = await at.ask("POST", "/servers", {})
        assert (status, body["detail"]) == (405, "this address takes GET")


async def test_a_repeated_key_at_a_node_gives_the_same_order(tmp_path: Path) -> None:
    async with node_api(tmp_path) as at:
        await at.put_server(1)
        order = {**RELEASE, "server": "srv1"}
        status, first = await at.ask("POST", "/orders", order, "k1")
        assert status == 202, first
        assert await at.ask("POST", "/orders", order, "k1") == (202, first)
        assert len(at.site.store.rows(at.site.scope, tables.ORDER)) == 1
        status, body = await at.ask("POST", "/orders", {**order, "server": "srv2"}, "k1")
        assert (status, body["code"]) == (422, "key-reused")
        status, body = await at.ask(
            "POST", "/orders", order, "not ascii: \u00fc".encode().hex()
        )
        assert status == 202


async def test_a_group_says_what_its_jobs_wait_for_when_the_budget_holds_them_back(
    tmp_path: Path,
) -> None:
    async with node_api(tmp_path, per_hour=1) as at:
        for number in range(1, 5):
            await at.put_server(number, state="active" if number < 4 else "inspecting")
        status, made = await at.ask("POST", "/groups", {**RELEASE, "filter": "name:srv*"})
        assert status == 202, made
        group = made["item"]["group"]
        assert made["item"]["destructive"] == 3
        assert [r["server_name"] for r in made["item"]["refused"]] == ["srv4"]

        def held() -> list[Any]:
            rows = at.site.store.rows(at.site.scope, tables.JOB)
            return [row for row in rows if row.body["state"] == "blocked"]

        await at.site.until(lambda: len(held()) == 2)
        _, shown = await at.ask("GET", f"/groups/{group}")
        item = shown["item"]
        assert (item["state"], item["total"], item["over"]) == ("running", 3, 0)
        assert item["states"] == {"blocked": 2, "running": 1}
        (why,) = [
            wait for wait in item["waits"] if "destructive works an hour" in wait["waits_for"]
        ]
        assert (why["jobs"], len(why["servers"])) == (2, 2)
        _, listed = await at.ask("GET", "/groups?filter=kind:server.release")
        assert [found["id"] for found in listed["items"]] == [group]
        _, jobs = await at.ask("GET", f"/jobs?filter=group:{group}&fields=id,group")
        assert len(jobs["items"]) == 3

        status, told = await at.ask("POST", f"/groups/{group}/cancel")
        assert (status, len(told["item"]["jobs"])) == (202, 3)

        def cancelled() -> bool:
            rows = at.site.store.rows(at.site.scope, tables.JOB)
            ours = [row.body for row in rows if row.body.get("group") == group]
            return all(row["state"] == "cancelled" for row in ours)

        await at.site.until(cancelled)
        _, shown = await at.ask("GET", f"/groups/{group}")
        assert (shown["item"]["state"], shown["item"]["over"]) == ("cancelled", 3)
        status, body = await at.ask("POST", f"/groups/{group}/cancel")
        assert (status, body["code"]) == (409, "conflict")
        assert "all have ended" in body["detail"]
