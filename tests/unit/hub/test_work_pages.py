"""The pages of servers, jobs and assets without a browser: lists, reviews, files, roles."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from hub.pages.servers import as_csv, with_token
from mesh.errors import Unreachable
from mesh.proto import tables
from tests.support.hub_bench import Bench
from tests.unit.hub.test_pages import console

SCOPE = tables.site_scope("fra1")


async def with_servers(bench: Bench, count: int, **more: Any) -> None:
    for number in range(count):
        body = {
            "name": f"n{number:03}", "state": "active", "cleaned": False, "macs": [],
            "bmc": {"url": "https://bmc.invalid/1"}, "image": "debian-12", **more,
        }  # fmt: skip
        key = f"01900000-0000-7000-8000-{number:012}"
        bench.rows.put(SCOPE, tables.SERVER, key, id=key, site="fra1", **body)
    await bench.ingest.read_all()


def names(page: str) -> list[str]:
    return re.findall(r'<th scope="row"><a href="/servers/[^"]+">([^<]+)</a>', page)


async def test_the_address_filters_sorts_and_groups_servers(tmp_path: Path) -> None:
    async with console(tmp_path) as (_, browser):
        assert names(await browser.text("/servers")) == ["db-1", "db-2", "web-1", "web-2"]
        assert names(await browser.text("/servers?filter=web&sort=-name")) == ["web-2", "web-1"]
        grouped = await browser.text("/servers?group=state")
        assert names(grouped) == ["web-1", "db-1", "web-2", "db-2"]
        assert grouped.count('class="group"') == 4
        assert names(await browser.text("/servers?filter=state:*failed")) == ["db-2"]


async def test_a_filter_that_cannot_be_meant_is_one_sentence_on_the_page(
    tmp_path: Path,
) -> None:
    async with console(tmp_path) as (_, browser):
        for path in ("/servers", "/jobs", "/assets"):
            page = await browser.text(f"{path}?filter=colour:red")
            assert "There is no filter key &#39;colour&#39; here" in page, path


async def test_hidden_columns_stay_away_and_the_others_stay(tmp_path: Path) -> None:
    async with console(tmp_path) as (_, browser):
        page = await browser.text("/servers?hide=image,mac")
        assert "debian-12" not in page
        assert "52:54:00:00:00:00" not in page
        assert "10.0.0.10" in page
        assert "52:54:00:00:00:00" in await browser.text("/servers?hide=-")


async def test_a_long_list_goes_on_behind_its_cursor(tmp_path: Path) -> None:
    async with console(tmp_path) as (bench, browser):
        await with_servers(bench, 250)
        first = await browser.text("/servers?filter=name:n*")
        assert len(names(first)) == 200
        found = re.search(r'rel="next" href="([^"]+)"', first)
        assert found is not None
        second = await browser.text(found[1].replace("&amp;", "&"))
        assert names(second) == [f"n{number:03}" for number in range(200, 250)]
        assert "250 servers" not in second  # it says 250 of all
        assert "250 of 254 servers" in second


async def test_a_filter_can_be_taken_away_as_csv_and_as_json(tmp_path: Path) -> None:
    async with console(tmp_path) as (bench, browser):
        await with_servers(bench, 210)
        text = await browser.text("/servers.csv?filter=name:n*")
        lines = text.splitlines()
        assert len(lines) == 211
        assert lines[0].startswith("name,site,state,cleaned")
        assert lines[1].startswith("n000,fra1,active,no,")
        found = json.loads(await browser.text("/servers.json?filter=name:n*&sort=-name"))
        assert found["schema"] == "rackmesh/servers/1"
        assert [item["name"] for item in found["items"]][:2] == ["n209", "n208"]
        assert len(found["items"]) == 210


def test_a_cell_is_never_a_formula() -> None:
    text = as_csv([{"name": "=1+1", "hostname": "@x", "macs": ["a", "b"], "changed_ms": 0}])
    assert text.splitlines()[1] == "'=1+1,,,,,,'@x,,a b,,,,,0,"


def test_a_token_is_added_once() -> None:
    assert with_token("web", "site", "fra1") == "web site:fra1"
    assert with_token("site:fra1", "site", "fra1") == "site:fra1"
    assert with_token("", "state", "deploying failed") == 'state:"deploying failed"'


async def test_one_server_shows_its_life_its_hardware_and_its_jobs(tmp_path: Path) -> None:
    async with console(tmp_path) as (bench, browser):
        disk = {"name": "nvme0n1", "bytes": 960_000_000_000, "model": "X", "bus": "nvme"}
        bench.rows.put(
            SCOPE, tables.INVENTORY, "52:54:00:00:00:01", at_ms=bench.clock.now_ms() - 5_000,
            inventory={"memory": {"bytes": 64 << 30}, "disks": [disk, "garbage"], "cpu": 7},
        )  # fmt: skip
        await bench.ingest.read_all()
        page = await browser.text("/servers/s2")
        assert '<li class="now" aria-current="step"><b>deploying</b>' in page
        assert "960 GB" in page and "64 GiB" in page
        assert "inventory of" in page
        assert "write image" in page and "1.3 GB of 2.1 GB" in page
        assert (await browser.get("/servers/web-2")).headers["Location"] == "/servers/s2"
        assert "power not known" in " ".join((await browser.text("/servers/s3")).split())


async def test_an_order_is_reviewed_before_it_is_given(tmp_path: Path) -> None:
    async with console(tmp_path) as (bench, browser):
        chosen = {"kind": "server.release", "server": "s1", "back": "/servers/s1"}
        response = await browser.post("/servers/order", chosen)
        page = (await response.get_data()).decode()
        assert response.status_code == 200
        assert "Data is lost on 1 server" in page and "web-1" in page
        assert "rackmesh server release web-1" in page
        assert "&#34;kind&#34;: &#34;server.release&#34;" in page
        assert bench.fake.orders == []
        seen = re.search(r'name="seen" value="([^"]+)"', page)
        key = re.search(r'name="key" value="([^"]+)"', page)
        assert seen is not None and key is not None
        unsure = await browser.post("/servers/order/give", {**chosen, "seen": seen[1]})
        assert unsure.status_code == 400
        assert bench.fake.orders == []
        form = {**chosen, "seen": seen[1], "key": key[1], "sure": "yes"}
        given = await browser.post("/servers/order/give", form)
        assert (given.status_code, given.headers["Location"]) == (303, "/servers/s1")
        assert bench.fake.orders == [
            (
                {"kind": "server.release", "server": "s1", "params": {}},
                "admin",
            )
        ]  # fmt: skip


async def test_one_order_for_many_servers_is_one_group(tmp_path: Path) -> None:
    async with console(tmp_path) as (bench, browser):
        await with_servers(bench, 30)
        chosen = {"kind": "power.off", "all": "1", "filter": "name:n*", "back": "/servers?x=1"}
        page = (await (await browser.post("/servers/order", chosen)).get_data()).decode()
        assert "Power off hits 30 servers: 30 at fra1" in " ".join(page.split())
        assert "No data is lost" in page and "/api/v1/groups" in page
        seen = re.search(r'name="seen" value="([^"]+)"', page)
        assert seen is not None
        given = await browser.post("/servers/order/give", {**chosen, "seen": seen[1]})
        assert given.headers["Location"] == "/servers?x=1&with=g1"
        ((order, author),) = bench.fake.orders
        assert (order["kind"], order["params"], author) == (
            "server.power",
            {"on": False},
            "admin",
        )
        assert len(order["servers"]) == 30


async def test_a_group_stands_as_one_job_with_how_many_are_over(tmp_path: Path) -> None:
    async with console(tmp_path) as (bench, browser):
        await with_servers(bench, 4)
        for number, state in enumerate(("succeeded", "failed", "running", "running")):
            bench.rows.put(
                SCOPE, tables.JOB, f"k{number}", kind="server.power", state=state, steps=[],
                server=f"01900000-0000-7000-8000-{number:012}", server_name=f"n{number:03}",
                group="g7", created_ms=1,
                error="the BMC is silent" if state == "failed" else None,
            )  # fmt: skip
        await bench.ingest.read_all()
        page = " ".join((await browser.text("/jobs")).split())
        assert re.findall(r'data-job="(\w+)"', page) == ["g7", "j3", "j2", "j1"]
        assert "2 of 4 over" in page and "n001: the BMC is silent" in page
        one = await browser.text("/groups/g7")
        assert re.findall(r'data-job="(\w+)"', one) == ["k3", "k2", "k1", "k0"]
        for verb in ("cancel", "retry"):
            assert (await browser.post(f"/groups/g7/{verb}", {})).status_code == 303
        assert [order["kind"] for order, _ in bench.fake.orders] == ["job.cancel", "job.retry"]
        kept = await browser.text("/servers?filter=state:available&with=g7")
        assert names(kept) == ["n000", "n001", "n002", "n003", "db-1"]
        assert "1 of 4 done, 1 failed" in kept


async def test_an_order_on_another_set_than_reviewed_is_not_given(tmp_path: Path) -> None:
    async with console(tmp_path) as (bench, browser):
        form = {"kind": "server.release", "server": "s1", "seen": "0" * 32, "sure": "yes"}
        response = await browser.post("/servers/order/give", form)
        assert response.status_code == 400
        assert "has changed meanwhile" in (await response.get_data()).decode()
        assert bench.fake.orders == []


async def test_a_deploy_says_whether_the_image_is_at_the_site_already(tmp_path: Path) -> None:
    async with console(tmp_path) as (_, browser):
        response = await browser.post(
            "/servers/order", {"kind": "server.deploy", "server": "s3"}
        )
        page = (await response.get_data()).decode()
        assert "fra1: already there" in page
        assert "a site must have fetched it once" in page  # rescue: content not known
        assert "Review" in page and 'name="seen"' not in page


async def test_a_deploy_with_a_wrong_host_name_or_too_long_a_key_is_one_sentence(
    tmp_path: Path,
) -> None:
    async with console(tmp_path) as (bench, browser):
        form = {"kind": "server.deploy", "server": "s3", "image": "debian-12"}
        for more, sentence in (
            ({"hostname": "no name"}, "&#39;no name&#39; is no host name"),
            ({"image": "nothing"}, "There is no image &#39;nothing&#39;"),
            ({"image": "rescue"}, "The content of rescue is not known yet"),
            ({"ssh_keys": "k" * 40_000}, "has more than 32768 characters"),
        ):
            response = await browser.post("/servers/order", {**form, **more})
            assert response.status_code == 400
            assert sentence in (await response.get_data()).decode()
        assert bench.fake.orders == []


async def test_servers_that_cannot_take_an_order_are_left_out_with_the_reason(
    tmp_path: Path,
) -> None:
    async with console(tmp_path) as (_, browser):
        form = {"kind": "power.on", "server": "s1"}
        page = (await (await browser.post("/servers/order", form)).get_data()).decode()
        assert "web-1 has no BMC: press its power button" in page
        assert "None of the chosen servers can take this order now" in page


async def test_jobs_in_hand_stand_first_then_those_that_failed(tmp_path: Path) -> None:
    async with console(tmp_path) as (bench, browser):
        bench.rows.put(
            SCOPE, tables.JOB, "j9", kind="server.power", server="s1", server_name="web-1",
            state="succeeded", steps=[], created_ms=1, started_ms=1, ended_ms=61_001,
        )  # fmt: skip
        await bench.ingest.read_all()
        page = await browser.text("/jobs")
        assert re.findall(r'data-job="(\w+)"', page) == ["j3", "j2", "j1", "j9"]
        assert re.findall(r'class="group"><th colspan="8" scope="rowgroup">([^<]+)', page) == [
            "In hand", "Failed", "Over",
        ]  # fmt: skip
        assert "1 min 1 s" in page
        assert re.findall(
            r'data-job="(\w+)"', await browser.text("/jobs?filter=state:failed")
        ) == ["j1"]


async def test_a_job_page_has_the_lines_of_its_log(tmp_path: Path) -> None:
    async with console(tmp_path) as (bench, browser):
        bench.peers.answers["job.logs"] = lambda body: {
            "lines": [[n, 1000 * n, f"line <{n}>"] for n in (1, 2) if n > body["after"]]
        }
        page = await browser.text("/jobs/j2")
        assert "line &lt;2&gt;" in page and 'data-after="2"' in page
        bench.peers.answers["job.logs"] = Unreachable("x")
        assert "is out of reach" in await browser.text("/jobs/j2")


async def test_a_job_is_cancelled_and_retried_from_its_page(tmp_path: Path) -> None:
    async with console(tmp_path) as (bench, browser):
        for job, verb in (("j2", "cancel"), ("j1", "retry")):
            response = await browser.post(f"/jobs/{job}/{verb}", {})
            assert response.status_code == 303
        kinds = [(order["kind"], order["job"]) for order, _ in bench.fake.orders]
        assert kinds == [("job.cancel", "j2"), ("job.retry", "j1")]
        assert (await browser.post("/jobs/j1/burn", {})).status_code == 400


def parked_at(kind: str, state: str, **step: Any) -> dict[str, Any]:
    entry = {"id": "flash", "name": "flash BIOS", "kind": kind, "state": state, **step}
    return {
        "kind": "server.power", "state": "parked" if state == "parked" else "failed",
        "runner": "n1", "server": "s1", "server_name": "web-1", "created_ms": 1,
        "started_ms": 1, "steps": [entry],
    }  # fmt: skip


async def test_a_job_page_offers_the_words_that_fit_and_says_what_each_does(
    tmp_path: Path,
) -> None:
    async with console(tmp_path) as (bench, browser):
        put = bench.rows.put
        put(SCOPE, tables.JOB, "k1", **parked_at("one-shot", "parked"))
        put(SCOPE, tables.JOB, "k2", **parked_at("set", "failed", may_skip=True))
        held = {**parked_at("set", "waiting"), "state": "held", "held": {"by": "ann@hub"}}
        put(SCOPE, tables.JOB, "k3", **held)
        put(SCOPE, tables.JOB, "k4", **{**parked_at("set", "running"), "state": "running"})
        put(SCOPE, tables.JOB, "k5", **{**held, "state": "succeeded", "archived_ms": 5})
        await bench.ingest.read_all()
        bench.peers.answers["job.logs"] = Unreachable("x")
        offered = {
            job: set(
                re.findall(rf'action="/jobs/{job}/(\w+)"', await browser.text(f"/jobs/{job}"))
            )
            for job in ("k1", "k2", "k3", "k4", "k5")
        }
        assert offered == {
            "k1": {"retry", "confirm", "cancel", "kill"}, "k2": {"retry", "skip", "archive"},
            "k3": {"unhold", "cancel", "kill"}, "k4": {"hold", "cancel", "kill"}, "k5": set(),
        }  # fmt: skip
        assert "the job goes on behind it" in await browser.text("/jobs/k2")
        listed = await browser.text("/jobs")
        assert "/jobs/k4" in listed and "/jobs/k5" not in listed
        assert "/jobs/k5" in await browser.text("/jobs?filter=archived:yes")


async def test_a_word_about_a_job_goes_out_with_its_reason(tmp_path: Path) -> None:
    async with console(tmp_path) as (bench, browser):
        for verb, fields in (
            ("skip", {"reason": " by hand "}), ("confirm", {"reason": "seen", "done": "no"}),
            ("hold", {"reason": ""}), ("unhold", {}), ("kill", {"reason": "stuck"}),
            ("archive", {}),
        ):  # fmt: skip
            assert (await browser.post(f"/jobs/j1/{verb}", fields)).status_code == 303
        said = [(order["kind"], order.get("params")) for order, _ in bench.fake.orders]
        assert said == [
            ("job.skip", {"reason": "by hand"}),
            ("job.confirm", {"reason": "seen", "done": False}), ("job.hold", None),
            ("job.unhold", None), ("job.kill", {"reason": "stuck"}), ("job.archive", None),
        ]  # fmt: skip


async def test_assets_say_in_words_how_they_stand_at_each_site(tmp_path: Path) -> None:
    async with console(tmp_path) as (bench, browser):
        bench.rows.put(
            tables.FLEET, tables.PRESENCE, "b3:" + "0" * 64, "b" * 32, name="debian-12",
            site="fra1", state="verified", have=2048, of=2048, origin_bytes=0,
            peer_bytes=2_147_483_648, near_bytes=2_147_483_648,
        )  # fmt: skip
        await bench.ingest.read_all()
        page = " ".join((await browser.text("/assets")).split())
        assert "held" in page and "wanted" in page and "absent" in page
        assert "50 % of all bytes" in page
        one = await browser.text("/assets/debian-12")
        assert "1" * 64 in one and "Stop wanting" in one


async def test_an_asset_is_registered_wanted_and_unwanted_from_the_page(
    tmp_path: Path,
) -> None:
    async with console(tmp_path) as (bench, browser):
        form = {"name": "new", "url": "https://example.net/x", "sha256": "", "want": "fra1"}
        response = await browser.post("/assets", form)
        assert (response.status_code, response.headers["Location"]) == (303, "/assets/new")
        assert bench.fake.declared[-1][:4] == ("new", "https://example.net/x", None, ["fra1"])
        wrong = await browser.post("/assets", {**form, "name": "no good name"})
        assert wrong.status_code == 400
        page = (await wrong.get_data()).decode()
        assert "letters, digits, dots, dashes" in page and "https://example.net/x" in page
        await browser.post("/assets/debian-12/unwant", {"site": "ams1"})
        assert bench.fake.declared[-1] == ("debian-12", "not ams1")
        await browser.post("/assets/debian-12/want", {"site": "ams1"})
        assert bench.fake.declared[-1] == ("debian-12", "ams1")
        gone = await browser.post("/assets/debian-12/remove", {})
        assert (gone.status_code, gone.headers["Location"]) == (303, "/assets")
        assert (await browser.post("/assets/debian-12/burn", {})).status_code == 400


@pytest.mark.parametrize("path", ["/servers/nobody", "/jobs/nothing", "/assets/none"])
async def test_what_is_not_there_is_a_page_that_says_so(tmp_path: Path, path: str) -> None:
    async with console(tmp_path) as (_, browser):
        response = await browser.get(path)
        assert response.status_code == 404
        assert "There is no" in (await response.get_data()).decode()
