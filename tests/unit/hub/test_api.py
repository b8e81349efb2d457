"""The API over real stores and fakes behind the ports: shapes, problems, limits, the guard."""

import json
import tempfile
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from quart_trio import QuartTrio

from hub.api.auth import COOKIE, LOCAL_UID
from hub.api.bind import may, operation_of
from hub.api.upload import PATH as UPLOAD
from hub.app import CSP, make_app
from hub.errors import Denied
from hub.live import LOG_READERS_MAX
from hub.pages.forms import mask
from hub.ports import Principal
from mesh.errors import RemoteRefused, Unreachable
from mesh.proto import tables
from mesh.rest.operations import OPERATIONS
from mesh.rest.roles import ROLES, Role
from tests.support.hub_bench import API_TOKEN, NODE_A, Bench, fill, hub_bench

BEARER = {"Authorization": f"Bearer {API_TOKEN}"}
PASSWORD = "correct horse"


@asynccontextmanager
async def api(folder: Path) -> AsyncGenerator[tuple[Bench, Any, QuartTrio]]:
    async with hub_bench(folder) as bench:
        fill(bench)
        await bench.ingest.read_all()
        app = make_app(bench.services)
        yield bench, app.test_client(), app


async def get(client: Any, path: str, **kwargs: Any) -> Any:
    response = await client.get(f"/api/v1{path}", headers=BEARER, **kwargs)
    return response.status_code, await response.get_json(force=True)


async def post(client: Any, path: str, body: Any, method: str = "post") -> Any:
    call = getattr(client, method)
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    response = await call(f"/api/v1{path}", headers=BEARER, data=data)
    return response.status_code, await response.get_json(force=True)


async def test_lists_have_a_schema_and_the_time_they_are_of(tmp_path: Path) -> None:
    async with api(tmp_path) as (bench, client, _):
        for noun in ("sites", "nodes", "servers", "pending", "jobs", "assets", "tokens"):
            status, body = await get(client, f"/{noun}")
            assert status == 200
            assert body["schema"] == f"rackmesh/{noun}/1"
            assert body["as_of_ms"] == bench.clock.now_ms()
            assert isinstance(body["items"], list)


async def test_sites_count_what_they_hold_and_whom_the_hub_reaches(tmp_path: Path) -> None:
    async with api(tmp_path) as (bench, client, _):
        _, body = await get(client, "/sites")
        fra1 = next(site for site in body["items"] if site["name"] == "fra1")
        assert (fra1["nodes"], fra1["nodes_reachable"], fra1["servers"]) == (2, 1, 4)
        assert fra1["jobs_running"] == 2
        assert fra1["last_contact_ms"] == bench.clock.now_ms()


async def test_a_node_that_is_away_keeps_its_last_contact(tmp_path: Path) -> None:
    async with api(tmp_path) as (bench, client, _):
        _, body = await get(client, "/nodes")
        away = next(node for node in body["items"] if node["name"] == "fra1-b")
        assert away["reachable"] is False
        assert away["last_contact_ms"] == bench.clock.now_ms() - 190_000


async def test_a_server_is_found_by_name_and_by_id(tmp_path: Path) -> None:
    async with api(tmp_path) as (_, client, _app):
        by_name, by_id = await get(client, "/servers/web-1"), await get(client, "/servers/s1")
        assert by_name[1]["item"] == by_id[1]["item"]
        status, body = await get(client, "/servers/nobody")
        assert (status, body["code"]) == (404, "not-found")
        assert "nobody" in body["detail"]


async def test_jobs_in_hand_come_first(tmp_path: Path) -> None:
    async with api(tmp_path) as (_, client, _app):
        _, body = await get(client, "/jobs")
        assert [job["id"] for job in body["items"]] == ["j3", "j2", "j1"]


async def test_a_job_whose_runner_is_away_says_so(tmp_path: Path) -> None:
    async with api(tmp_path) as (bench, client, _):
        _, before = await get(client, "/jobs/j2")
        bench.peers.links = {}
        _, body = await get(client, "/jobs/j2")
        assert body["item"]["state"] == before["item"]["state"]
        assert (
            body["item"]["waits_for"]
            == ("its runner fra1-a is out of reach of this hub")
            != before["item"]["waits_for"]
        )
        _, listed = await get(client, "/jobs")
        assert body["item"] in listed["items"]


async def test_job_logs_come_from_the_runner_as_json_lines(tmp_path: Path) -> None:
    async with api(tmp_path) as (bench, client, _):
        lines = [[n, 1000 + n, f"line {n}"] for n in range(1, 4)]
        bench.peers.answers["job.logs"] = lambda body: {
            "lines": ["garbage", *(line for line in lines if line[0] > body["after"])][:3]
        }
        response = await client.get("/api/v1/jobs/j1/logs?follow=1", headers=BEARER)
        text = (await response.get_data()).decode()
        found = [json.loads(line) for line in text.splitlines()]
        assert [line["seq"] for line in found] == [1, 2, 3]
        assert found[0] == {"seq": 1, "at_ms": 1001, "text": "line 1"}
        assert bench.peers.asked[0][0] == NODE_A


async def test_a_reader_of_events_gets_the_log_behind_the_last_line_it_had(
    tmp_path: Path,
) -> None:
    async with api(tmp_path) as (bench, client, _):
        lines = [[n, 1000 + n, f"line {n}"] for n in range(1, 5)]
        bench.peers.answers["job.logs"] = lambda body: {
            "lines": [line for line in lines if line[0] > body["after"]]
        }
        headers = {**BEARER, "Accept": "text/event-stream", "Last-Event-ID": "2"}
        response = await client.get("/api/v1/jobs/j1/logs", headers=headers)
        assert response.content_type == "text/event-stream"
        text = await response.get_data(as_text=True)
        assert [part for part in text.split("\n") if part.startswith("id: ")] == [
            "id: 3", "id: 4",
        ]  # fmt: skip
        assert text.endswith("event: end\ndata: {}\n\n")
        assert bench.services.live.log_readers == 0


async def test_events_of_a_log_say_when_nobody_can_be_asked(tmp_path: Path) -> None:
    async with api(tmp_path) as (bench, client, _):
        bench.peers.answers["job.logs"] = Unreachable("no link")
        headers = {**BEARER, "Accept": "text/event-stream"}
        response = await client.get("/api/v1/jobs/j1/logs", headers=headers)
        text = await response.get_data(as_text=True)
        assert "event: trouble" in text and "out of reach" in text
        assert text.endswith("event: end\ndata: {}\n\n")


async def test_one_reader_of_logs_too_many_is_told_so(tmp_path: Path) -> None:
    async with api(tmp_path) as (bench, client, _):
        bench.services.live.log_readers = LOG_READERS_MAX
        headers = {**BEARER, "Accept": "text/event-stream"}
        response = await client.get("/api/v1/jobs/j1/logs", headers=headers)
        text = await response.get_data(as_text=True)
        assert text.startswith("event: trouble") and text.count("event: ") == 1
        assert bench.services.live.log_readers == LOG_READERS_MAX
        assert bench.peers.asked == []


async def test_what_a_server_is_made_of_is_found_by_the_servers_name(tmp_path: Path) -> None:
    async with api(tmp_path) as (bench, client, _):
        scope, mac = tables.site_scope("fra1"), "52:54:00:00:00:00"
        cpu = {"model": "EPYC", "cores": 8}
        bench.rows.put(
            scope, tables.INVENTORY, mac, inventory={"cpu": cpu}, summary="one line", at_ms=5
        )
        await bench.ingest.read_all()
        status, body = await get(client, "/servers/web-1/inventory")
        assert status == 200
        assert body["item"]["hardware"] == {"cpu": cpu}
        assert (body["item"]["seen_ms"], body["item"]["server"]) == (5, "s1")
        status, body = await get(client, "/servers/db-1/inventory")
        assert (status, body["code"]) == (404, "not-found")
        assert "db-1 has not been inspected" in body["detail"]


async def test_a_site_may_stop_wanting_an_asset(tmp_path: Path) -> None:
    async with api(tmp_path) as (bench, client, _):
        status, _ = await post(client, "/assets/debian-12/want/ams1", b"", "delete")
        assert status == 200
        assert bench.fake.declared[-1] == ("debian-12", "not ams1")


@pytest.mark.parametrize("error", [Unreachable("x"), RemoteRefused("no such job")])
async def test_job_logs_of_a_node_out_of_reach_are_one_sentence(
    tmp_path: Path, error: Exception
) -> None:
    async with api(tmp_path) as (bench, client, _):
        bench.peers.answers["job.logs"] = error
        status, body = await get(client, "/jobs/j1/logs")
        assert (status, body["code"]) == (503, "unreachable")


async def test_nobody_gets_anything_without_signing_in(tmp_path: Path) -> None:
    async with api(tmp_path) as (_, client, app):
        for rule in app.url_map.iter_rules():
            path = str(rule).replace("<path:name>", "x").replace("<", "").replace(">", "")
            if not path.startswith("/api/v1/") or path == "/api/v1/session":
                continue
            for method in sorted(rule.methods - {"OPTIONS", "HEAD"}):
                response = await client.open(path, method=method)
                assert response.status_code == 401, (method, path)
                assert response.content_type == "application/problem+json"
        assert (await client.get("/")).headers["Location"] == "/sign-in"
        assert (await client.get("/healthz")).status_code == 200


async def test_the_routes_are_the_operations_of_the_table(tmp_path: Path) -> None:
    async with api(tmp_path) as (_, _client, app):
        every = [rule for rule in app.url_map.iter_rules() if rule.rule.startswith("/api/")]
        rules = [rule for rule in every if not rule.websocket]
        sockets = [operation_of("GET", rule.rule) for rule in every if rule.websocket]
        assert [found and found.id for found in sockets] == ["openConsole"]
        routes = {
            found.id
            for rule in rules
            for method in rule.methods - {"OPTIONS", "HEAD"}
            if (found := operation_of(method, rule.rule)) is not None
        }
        assert len(routes) == sum(len(rule.methods - {"OPTIONS", "HEAD"}) for rule in rules)
        assert UPLOAD.match("/api/v1/assets/x/content")
        assert routes | {"uploadAsset"} == {n for n, o in OPERATIONS.items() if "hub" in o.at}


@pytest.mark.parametrize("role", ROLES)
async def test_the_guard_asks_the_table_who_may(tmp_path: Path, role: Role) -> None:
    for operation in OPERATIONS.values():
        who = Principal("somebody", "session", role)
        least = operation.role or "viewer"
        if ROLES.index(role) >= ROLES.index(least):
            may(who, operation)
        else:
            with pytest.raises(Denied, match=f"needs the role {least}; somebody is {role}"):
                may(who, operation)


async def test_a_list_comes_in_pages_that_a_cursor_joins(tmp_path: Path) -> None:
    async with api(tmp_path) as (_, client, _app):
        names: list[str] = []
        cursor = ""
        while True:
            _, body = await get(client, f"/servers?limit=3&filter=site:fra1&cursor={cursor}")
            names += [item["name"] for item in body["items"]]
            cursor = body["next"]
            if cursor is None:
                break
        assert names == ["db-1", "db-2", "web-1", "web-2"]
        _, body = await get(client, "/servers?filter=state:*failed&fields=name,state")
        assert body["items"] == [{"name": "db-2", "state": "deploying failed"}]


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("/servers?filter=color:red", "there is no filter key 'color' here"),
        ("/servers?limit=0", "limit is '0': expected int >= 1"),
        ("/servers?limit=many", "limit is 'many': expected int"),
        ("/servers?site=fra1", "the query has no field 'site'; known: filter, sort, limit,"),
        ("/jobs/j1/logs?after=-1", "after is '-1'"),
    ],
)
async def test_a_wrong_query_is_named_with_what_would_be_right(
    tmp_path: Path, path: str, says: str
) -> None:
    async with api(tmp_path) as (_, client, _app):
        status, body = await get(client, path)
        assert (status, body["code"]) == (400, "bad-request")
        assert says in body["detail"]


async def test_a_wrong_token_is_refused_and_a_local_user_needs_none(tmp_path: Path) -> None:
    async with api(tmp_path) as (_, client, _app):
        wrong = {"Authorization": "Bearer " + API_TOKEN[:-1]}
        assert (await client.get("/api/v1/sites", headers=wrong)).status_code == 401
        local = await client.get("/api/v1/session", scope_base={LOCAL_UID: 0})
        assert (await local.get_json())["item"]["via"] == "socket"


async def sign_in(client: Any, password: str = PASSWORD, account: str = "admin") -> Any:
    body = json.dumps({"account": account, "password": password})
    return await client.post("/api/v1/session", data=body)


async def test_a_session_reads_and_writes_only_with_its_csrf_token(tmp_path: Path) -> None:
    async with api(tmp_path) as (bench, client, _):
        await bench.services.accounts.create("admin", "admin", PASSWORD)
        answer = await sign_in(client)
        assert answer.status_code == 201
        cookie = answer.headers["Set-Cookie"]
        for word in (f"{COOKIE}=", "Secure", "HttpOnly", "SameSite=Strict", "Path=/"):
            assert word in cookie
        secret = cookie.split("=", 1)[1].split(";")[0]
        signed_in = {"Cookie": f"{COOKIE}={secret}"}
        assert (await client.get("/api/v1/sites", headers=signed_in)).status_code == 200
        order = json.dumps({"kind": "server.power", "server": "web-1", "params": {"on": True}})
        bare = await client.post("/api/v1/orders", headers=signed_in, data=order)
        assert bare.status_code == 403
        csrf = (await answer.get_json())["item"]["csrf"]
        foreign = {**signed_in, "X-CSRF-Token": csrf, "Origin": "https://evil.example"}
        assert (
            await client.post("/api/v1/orders", headers=foreign, data=order)
        ).status_code == 403
        good = {**signed_in, "X-CSRF-Token": csrf}
        assert (
            await client.post("/api/v1/orders", headers=good, data=order)
        ).status_code == 202
        bench.clock.advance(13 * 3600 * 1000)
        assert (await client.get("/api/v1/sites", headers=signed_in)).status_code == 401


async def test_signing_out_ends_the_session(tmp_path: Path) -> None:
    async with api(tmp_path) as (bench, client, _):
        await bench.services.accounts.create("admin", "admin", PASSWORD)
        secret, session = bench.services.desk.sign_in("admin", bench.clock.now_ms())
        headers = {"Cookie": f"{COOKIE}={secret}"}
        form = {"csrf": "wrong"}
        denied = await client.post("/sign-out", headers=headers, form=form)
        assert denied.status_code == 403
        bare = await client.post("/sign-out", headers=headers, form={"csrf": session.csrf})
        assert bare.status_code == 403  # a page never shows it unmasked
        form = {"csrf": mask(session.csrf)}
        gone = await client.post("/sign-out", headers=headers, form=form)
        assert gone.status_code == 303
        assert (await client.get("/api/v1/sites", headers=headers)).status_code == 401


async def test_wrong_passwords_are_refused_and_soon_limited(tmp_path: Path) -> None:
    async with api(tmp_path) as (bench, client, _):
        await bench.services.accounts.create("admin", "admin", PASSWORD)
        answers = [(await sign_in(client, "wrong horse")).status_code for _ in range(6)]
        assert answers == [401] * 5 + [429]
        assert (await sign_in(client)).status_code == 429
        assert (await sign_in(client, account="nobody")).status_code == 401


async def test_every_answer_carries_the_strict_headers(tmp_path: Path) -> None:
    async with api(tmp_path) as (_, client, _app):
        for path in ("/sign-in", "/api/v1/sites", "/static/base.css", "/nowhere"):
            response = await client.get(path, headers=BEARER)
            assert response.headers["Content-Security-Policy"] == CSP
            assert response.headers["X-Content-Type-Options"] == "nosniff"
            assert "server" not in {name.lower() for name, _ in response.headers.items()}


async def test_orders_go_to_the_desk_with_their_author(tmp_path: Path) -> None:
    async with api(tmp_path) as (bench, client, _):
        order = {"kind": "server.deploy", "server": "web-1", "params": {"image": "debian-12"}}
        status, body = await post(client, "/orders", order)
        assert (status, body["item"]["job"]) == (202, "o1")
        assert bench.fake.orders == [(order, "api-token")]
        status, body = await post(client, "/orders", {**order, "priority": 1})
        assert (status, body["code"]) == (400, "bad-request")
        assert "priority" in body["detail"]


async def test_tokens_show_their_text_once_and_can_be_revoked(tmp_path: Path) -> None:
    async with api(tmp_path) as (_, client, _app):
        status, body = await post(client, "/tokens", {"site": "fra1"})
        assert (status, body["item"]["token"]) == (201, "rm1.secret")
        _, listed = await get(client, "/tokens")
        assert "token" not in listed["items"][0]
        assert (await post(client, "/tokens/t0", {}, "delete"))[1]["item"]["state"] == "revoked"
        assert (await post(client, "/tokens/t9", {}, "delete"))[0] == 404


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/tokens", {"site": "No Site"}),
        ("/tokens", {"site": "fra1", "ttl_s": -1}),
        ("/tokens", {"site": "fra1", "ttl_s": True}),
        ("/tokens", {"site": "fra1", "roles": "node"}),
        ("/assets", {"name": "../etc/passwd"}),
        ("/assets", {"name": "x", "want": ["Not A Site"]}),
        ("/assets/x/want", {}),
        ("/orders", []),
        ("/orders", b"\xff\xfe"),
        ("/orders", b"[" * 100_000),
    ],
)
async def test_bad_input_is_one_sentence(tmp_path: Path, path: str, body: Any) -> None:
    async with api(tmp_path) as (_, client, _app):
        status, answer = await post(client, path, body)
        assert (status, answer["code"]) == (400, "bad-request")
        assert answer["detail"]


async def test_a_body_over_the_limit_is_refused(tmp_path: Path) -> None:
    async with api(tmp_path) as (_, client, _app):
        status, answer = await post(client, "/orders", b"x" * ((1 << 20) + 1))
        assert (status, answer["code"]) == (413, "too-large")


async def test_what_is_known_of_a_silent_site_is_shown_as_old(tmp_path: Path) -> None:
    async with api(tmp_path) as (bench, client, _):
        page = (await (await client.get("/servers", headers=BEARER)).get_data()).decode()
        assert "site out of reach" not in page
        bench.peers.links.clear()
        page = (await (await client.get("/servers", headers=BEARER)).get_data()).decode()
        assert "site out of reach, as of" in page
        assert "3 min ago" in page


async def test_hostile_names_are_shown_as_text(tmp_path: Path) -> None:
    async with api(tmp_path) as (bench, client, _):
        bench.rows.put(
            tables.site_scope("fra1"), tables.SERVER, "s9", name="<script>alert(1)</script>",
            state='"><img src=x onerror=alert(2)>', macs=["<b>"], error="<i>",
        )  # fmt: skip
        await bench.ingest.read_all()
        page = (await (await client.get("/servers", headers=BEARER)).get_data()).decode()
        assert "&lt;script&gt;alert(1)" in page
        assert "<script>alert" not in page
        assert "<img src=x" not in page


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
async def test_garbage_never_makes_a_500(data: st.DataObject) -> None:
    words = st.text(max_size=12) | st.integers() | st.none() | st.booleans() | st.floats()
    body = data.draw(
        st.dictionaries(
            st.sampled_from(["site", "name", "url", "want", "kind", "ttl_s", "roles", "value"]),
            words | st.lists(words, max_size=3),
            max_size=5,
        )
    )
    path = data.draw(st.sampled_from(["/tokens", "/assets", "/assets/a/want", "/orders"]))
    with tempfile.TemporaryDirectory() as folder:
        async with api(Path(folder)) as (_, client, _app):
            status, _ = await post(client, path, json.dumps(body).encode())
            assert status < 500


async def test_what_watches_the_hub_can_ask_it(tmp_path: Path) -> None:
    async with api(tmp_path) as (bench, client, _):
        assert (await client.get("/readyz")).status_code == 200
        bench.fake.trouble = "the disk is full"
        ready = await client.get("/readyz")
        assert (ready.status_code, await ready.get_data(as_text=True)) == (
            503, "the disk is full\n",
        )  # fmt: skip
        assert (await client.get("/metrics")).status_code == 401
        said = await client.get("/metrics", headers=BEARER)
        assert said.content_type.startswith("text/plain; version=0.0.4")
        lines = (await said.get_data(as_text=True)).splitlines()
        assert 'rackmesh_servers{state="deploying failed"} 1' in lines
        assert "rackmesh_sites 2" in lines


async def test_an_address_says_all_methods_that_it_takes(tmp_path: Path) -> None:
    async with api(tmp_path) as (_, client, _app):
        asked = await client.options("/api/v1/assets/x/content", headers=BEARER)
        assert asked.headers["Allow"] == "GET, HEAD, OPTIONS, PUT"
        refused = await client.post("/api/v1/servers", headers=BEARER)
        assert (refused.status_code, refused.headers["Allow"]) == (405, "GET, HEAD, OPTIONS")
