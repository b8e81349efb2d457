"""The pages of sites, nodes, pending machines and joins without a browser."""

import re
from pathlib import Path
from typing import Any

import pytest

from hub.happenings import latest
from hub.proto.install_steps import install_steps
from hub.proto.server_names import propose
from mesh.errors import Refused
from mesh.proto import tables
from tests.support.hub_bench import NODE_A, NODE_B, Bench
from tests.unit.hub.test_pages import Browser, console

SCOPE = tables.site_scope("fra1")
ONE, TWO = "52:54:00:aa:00:00", "52:54:00:aa:00:01"
MADE = {
    "id": "t", "site": "fra1", "roles": ["node"], "state": "open", "created_ms": 10,
    "expires_ms": 99, "used_by": None, "used_ms": None, "contacted_ms": None, "refused": None,
    "refused_ms": None,
}  # fmt: skip


def fields_of(page: str) -> dict[str, str]:
    """Return what a browser would send of the text fields of the accept form."""
    found = re.findall(r'<input(?: class="wide")? name="([^"]+)" value="([^"]*)"', page)
    return {name: value for name, value in found if name.startswith(("name ", "bmc "))}


async def chosen(browser: Browser, *macs: str, verb: str = "accept", **more: Any) -> Any:
    form = {"machine": [f"fra1 {mac}" for mac in macs], "verb": verb, **more}
    return await browser.post("/pending/act", form)


async def test_machines_are_accepted_together_with_names_from_a_pattern(
    tmp_path: Path,
) -> None:
    async with console(tmp_path) as (bench, browser):
        review = await chosen(browser, ONE, TWO, pattern="rack7-{nn}")
        fields = fields_of((await review.get_data()).decode())
        assert fields[f"name fra1 {ONE}"] == "rack7-01"
        assert fields[f"name fra1 {TWO}"] == "rack7-02"
        fields[f"bmc fra1 {ONE}"] = "https://10.9.0.7/redfish/v1/Systems/1"
        form = {
            **fields, "machine": [f"fra1 {ONE}", f"fra1 {TWO}"], "key": "k1", "secret": "new",
            "secret_id": "bmc-7", "username": "ADMIN", "password": "s3cret",
        }  # fmt: skip
        done = await browser.post("/pending/accept", form)
        assert (done.status_code, done.headers["Location"]) == (303, "/pending")
        first, second = (order for order, _ in bench.fake.orders)
        assert first["machine"] == ONE
        assert first["params"] == {
            "name": "rack7-01",
            "bmc": {"url": "https://10.9.0.7/redfish/v1/Systems/1", "secret": "bmc-7"},
        }
        assert second["params"] == {"name": "rack7-02", "bmc": None}
        assert bench.services.secrets.list()[0]["id"] == "bmc-7"


async def test_a_machine_that_is_refused_stays_in_the_form_with_its_sentence(
    tmp_path: Path,
) -> None:
    async with console(tmp_path) as (bench, browser):
        bench.fake.refusal = Refused("there is a server web-1 already")
        form = {"machine": [f"fra1 {ONE}"], f"name fra1 {ONE}": "web-1", "key": "k"}
        answer = await browser.post("/pending/accept", form)
        page = (await answer.get_data()).decode()
        assert answer.status_code == 409
        assert "There is a server web-1 already." in page
        assert 'value="web-1"' in page


async def test_the_password_of_a_bmc_never_comes_back_in_a_page(tmp_path: Path) -> None:
    async with console(tmp_path) as (bench, browser):
        bench.fake.refusal = Refused("no")
        form = {
            "machine": [f"fra1 {ONE}"], f"name fra1 {ONE}": "a", "secret": "new",
            "secret_id": "b", "username": "ADMIN", "password": "s3cret-s3cret",
        }  # fmt: skip
        page = (await (await browser.post("/pending/accept", form)).get_data()).decode()
        assert "ADMIN" in page
        assert "s3cret-s3cret" not in page


async def test_machines_are_put_aside_and_taken_back(tmp_path: Path) -> None:
    async with console(tmp_path) as (_, browser):
        assert (await chosen(browser, ONE, verb="reject")).status_code == 303
        waiting, aside = [await browser.text(p) for p in ("/pending", "/pending?tab=aside")]
        assert ONE not in waiting
        assert TWO in waiting
        assert ONE in aside
        assert "by admin" in aside
        assert "1 pending" in re.sub("<[^>]+>", "", await browser.text("/?part=badges"))
        await chosen(browser, ONE, verb="restore")
        assert ONE in await browser.text("/pending")


async def test_a_token_is_shown_once_and_its_way_can_be_watched(tmp_path: Path) -> None:
    async with console(tmp_path) as (_, browser):
        form = {"site": "ber1", "operator": "1", "ttl_s": "3600"}
        made = (await (await browser.post("/install", form)).get_data()).decode()
        assert "rackmesh node join --token rm1.secret" in made
        assert 'data-here="/install/t0"' in made
        assert "node, site-operator" in made
        again = await browser.text("/install/t0")
        assert "rm1.secret" not in again
        assert "waits for a machine" in again.lower()
        assert (await browser.post("/install/t0/revoke", {})).status_code == 303
        assert "The token was revoked." in await browser.text("/install/t0?part=steps")


@pytest.mark.parametrize("site", ["No Site", "", "x" * 40, "<script>"])
async def test_a_wrong_site_is_one_sentence_above_the_form(tmp_path: Path, site: str) -> None:
    async with console(tmp_path) as (_, browser):
        answer = await browser.post("/install", {"site": site})
        page = (await answer.get_data()).decode()
        assert answer.status_code == 400
        assert 'role="alert"' in page
        assert "<script>" not in page


VIEWER_POSTS = (
    "/pending/act", "/pending/accept", "/install", "/install/t0/revoke",
)  # fmt: skip


async def test_a_viewer_reads_everything_and_is_offered_no_work(tmp_path: Path) -> None:
    async with console(tmp_path, role="viewer") as (_, browser):
        for path in ("/", "/pending", "/sites/fra1", f"/nodes/{NODE_A}"):
            page = await browser.text(path)
            assert "/install" not in page, path
            assert "<button name=" not in page, path
        for path in VIEWER_POSTS:
            assert (await browser.post(path, {"machine": f"fra1 {ONE}"})).status_code == 403
        assert (await browser.get("/install")).status_code == 403
        assert (await browser.get("/kiosk")).status_code == 200


async def test_a_hub_without_a_node_leads_to_its_first_one(tmp_path: Path) -> None:
    async with console(tmp_path, filled=False) as (_, browser):
        page = await browser.text("/")
        assert "admin-password" in page
        assert 'name="site"' in page
    async with console(tmp_path / "..", filled=False, role="viewer") as (_, browser):
        assert "admin-password" not in await browser.text("/")


async def test_failed_work_is_not_all_well(tmp_path: Path) -> None:
    async with console(tmp_path) as (bench, browser):
        assert "Work on 1 server failed" in await browser.text("/")
        bench.rows.put(SCOPE, tables.SERVER, "s9", id="s9", name="s9", state="cleaning failed")
        await bench.ingest.read_all()
        page = await browser.text("/")
        assert "Work on 2 servers failed" in page
        assert "Needs attention" in page
        assert "needs attention" in await browser.text("/kiosk")


async def test_the_wallboard_goes_round(tmp_path: Path) -> None:
    async with console(tmp_path) as (_, browser):
        at, seen = "/kiosk", []
        for _ in range(3):
            page = await browser.text(at)
            found = re.search(r'data-next="([^"]+)"', page)
            assert found is not None
            assert "<form" not in page
            seen.append(re.findall("<h1>([^<]+)</h1>", page)[0])
            at = found[1]
        assert seen == ["All sites", "fra1", "ams1"]
        assert at == "/kiosk?at=0"
        assert (await browser.get("/kiosk?at=%C2%B2")).status_code == 200


async def test_a_node_says_since_when_it_is_silent_and_that_it_is_of_another_version(
    tmp_path: Path,
) -> None:
    async with console(tmp_path) as (bench, browser):
        bench.rows.put(
            tables.FLEET, tables.NODE, NODE_B, NODE_B, name="fra1-b", build="0.0.9",
            started_ms=bench.clock.now_ms() - 7_200_000, services=[],
            addresses=[["10.0.0.2", 4770, 0], "odd", [1]],
        )  # fmt: skip
        await bench.ingest.read_all()
        page = await browser.text("/nodes/fra1-b")
        assert "3 min ago" in page
        assert "this hub runs 0.1.0" in page
        assert "10.0.0.2:4770" in page
        assert "other version" in await browser.text("/nodes")


def test_steps_follow_what_was_observed() -> None:
    def states(node: Any = None, **changes: Any) -> list[str]:
        return [step.state for step in install_steps({**MADE, **changes}, node)]

    node = {"reachable": True, "build": "1", "linked_ms": 9, "services": [], "name": "n"}
    used = {"state": "used", "used_by": "n", "used_ms": 5}
    assert states() == ["done", "now", "ahead", "ahead"]
    assert states(state="expired") == ["done", "failed", "ahead", "ahead"]
    refused = {"contacted_ms": 4, "refused": "the token has expired", "refused_ms": 4}
    assert states(**refused) == ["done", "done", "failed", "ahead"]
    assert states(**used) == ["done", "done", "done", "now"]
    assert states(node, **used) == ["done"] * 4
    assert states({**node, "reachable": False}, **used)[3] == "now"


def test_names_are_free_and_well_formed_or_left_to_a_person() -> None:
    machine = {"site": "fra1", "mac": ONE, "serial": "S/1 é", "port": None}
    assert propose("srv{n}", [machine] * 3, {"srv2"}) == ["srv1", "srv3", "srv4"]
    assert propose("{site}-{nnn}", [machine], ()) == ["fra1-001"]
    assert propose("{serial}", [machine], ()) == ["S1"]
    assert propose("{mac}", [machine] * 2, ()) == ["525400aa0000", ""]
    assert propose("", [machine], ()) == [""]
    assert propose("{n!r}{0}", [machine], ()) == [""]


async def test_what_happened_last_is_told_from_the_times_of_things(tmp_path: Path) -> None:
    async with console(tmp_path) as (bench, _):
        said = [happening.text for happening in latest_of(bench)]
        assert said[0] == "Power db-1 was ordered"
        assert "Deploy db-2 failed" in said
        assert "fra1-b fell silent" in said


def latest_of(bench: Bench) -> list[Any]:
    from hub.api import read

    services = bench.services
    return latest(
        read.jobs(services), services.store.documents("pending"), read.nodes(services)
    )


async def test_what_members_and_machines_say_is_shown_as_text(tmp_path: Path) -> None:
    async with console(tmp_path) as (bench, browser):
        evil = '"><script>alert(1)</script>'
        bench.rows.put(
            tables.FLEET, tables.NODE, NODE_B, NODE_B, name=evil, build=evil, services=[evil],
            boot_url=evil, addresses=[[evil, 1, 2]], started_ms="x",
        )  # fmt: skip
        bench.rows.put(
            SCOPE, tables.SIGHTING, ONE, mac=ONE, port=evil, summary=evil, where=evil,
            arch=evil, ip=evil, first_ms=None, last_ms="y",
        )  # fmt: skip
        bench.rows.put(SCOPE, tables.INVENTORY, ONE, inventory={"system": {"vendor": evil}})
        await bench.ingest.read_all()
        for path in (
            "/", "/nodes", f"/nodes/{NODE_B}", "/pending", "/sites/fra1?tab=nodes",
            "/sites/fra1?tab=pending", "/kiosk", "/kiosk?at=1", "/search?q=script",
        ):  # fmt: skip
            page = await browser.text(path)
            assert "<script>alert" not in page, path
        review = await (await chosen(browser, ONE)).get_data()
        assert b"<script>alert" not in review
