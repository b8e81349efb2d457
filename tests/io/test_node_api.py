"""The node's own API over its socket: the same table, lists, keys and groups as the hub's."""

from pathlib import Path
from typing import Any

from mesh.proto import tables
from mesh.rest.operations import OPERATIONS
from tests.support.node_api import node_api

RELEASE = {"kind": "server.release"}


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


async def test_a_machine_is_put_aside_and_back_at_the_site_itself(tmp_path: Path) -> None:
    async with node_api(tmp_path) as at:
        mac, scope = "52:54:00:00:00:77", at.site.scope
        seen = {"mac": mac, "first_ms": 1, "last_ms": 2, "where": "dhcp"}
        await at.site.store.write(lambda tx: tx.put(scope, tables.SIGHTING, mac, seen))
        status, body = await at.ask("POST", f"/pending/{mac}/reject", {})
        assert (status, body["item"]["rejected"]) == (200, True)
        _, waiting = await at.ask("GET", "/pending?filter=rejected:no")
        assert waiting["items"] == []
        _, sites = await at.ask("GET", "/sites")
        assert [site["pending"] for site in sites["items"]] == [0]
        status, body = await at.ask("POST", f"/pending/{mac}/restore", {"site": "lab"})
        assert (status, body["item"]["rejected_by"]) == (200, None)
        status, body = await at.ask("POST", f"/pending/{mac}/reject", {"site": "elsewhere"})
        assert (status, body["code"]) == (404, "not-found")


async def test_a_bundle_that_is_none_is_one_sentence(tmp_path: Path) -> None:
    async with node_api(tmp_path) as at:
        (tmp_path / "x").write_bytes(b"no bundle")
        for body, status, words in (
            ({"file": str(tmp_path / "x")}, 409, "no file of rackmesh bundle create"),
            ({"file": str(tmp_path / "y"), "at": 5}, 409, "No such file"),
            ({"file": "/dev/zero"}, 409, "no plain file"),
            ({"file": "/a\0b"}, 409, "cannot be read"),
            ({"file": "x"}, 400, "whole path"),
            ({"file": "/x", "at": -1}, 400, "at is -1"),
            ({}, 400, "file"),
        ):
            found, document = await at.ask("POST", "/bundle", body)
            assert (found, words in document["detail"]) == (status, True), document
