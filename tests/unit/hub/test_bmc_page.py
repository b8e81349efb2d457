"""The BMCs in the inbox: shown as a scan saw them, scanned for, accepted from there."""

from pathlib import Path

import pytest

from mesh.proto import tables
from tests.support.hub_bench import NODE_A, Bench
from tests.unit.hub.test_pages import console

SCOPE = tables.site_scope("fra1")
URL = "https://10.9.0.8"


async def seen(bench: Bench) -> None:
    bench.rows.put(
        SCOPE, tables.BMC_SIGHTING, URL, NODE_A, ip="10.9.0.8", redfish=URL,
        ipmi="ipmi://10.9.0.8", ipmi_version="2.0", vendor="<b>Contoso", product="X1",
        version="1.15.0", tls_sha256="ab" * 32, first_ms=1, last_ms=2,
    )  # fmt: skip
    bench.rows.put(
        SCOPE, tables.BMC_SIGHTING, "ipmi://10.9.0.8", NODE_A, ip="10.9.0.8",
        ipmi="ipmi://10.9.0.8", first_ms=1, last_ms=1,
    )  # fmt: skip
    await bench.ingest.read_all()


async def test_what_a_scan_found_stands_in_the_inbox(tmp_path: Path) -> None:
    async with console(tmp_path) as (bench, browser):
        await seen(bench)
        page = await browser.text("/pending")
        for part in (URL, "&lt;b&gt;Contoso X1", "Redfish 1.15.0, IPMI 2.0", "ab" * 32):
            assert part in page
        assert page.count("10.9.0.8</th>") == 1, "the same BMC by IPMI is no second one"
        bench.rows.put(SCOPE, "server", "s9", name="web-9", state="active", macs=["aa"],
                       bmc={"url": f"{URL}/redfish/v1/Systems/1"})  # fmt: skip
        await bench.ingest.read_all()
        assert "Contoso" not in await browser.text("/pending")


@pytest.mark.parametrize("monitored", [False, True])
async def test_a_server_is_made_of_a_bmc_that_was_found(
    tmp_path: Path, monitored: bool
) -> None:
    async with console(tmp_path) as (bench, browser):
        await seen(bench)
        form = {"url": URL, "site": "fra1", "name": "srv8", "secret": "bmc-8", "key": "k1"}
        more = {"monitored": "yes"} if monitored else {}
        done = await browser.post("/pending/bmcs/accept", form | more)
        assert (done.status_code, done.headers["Location"]) == (303, "/pending")
        ((order, _),) = bench.fake.orders
        assert order["kind"] == ("server.adopt" if monitored else "server.accept")
        bmc = {"url": URL, "secret": "bmc-8"}
        assert order["params"] == {"name": "srv8", "bmc": bmc, "inspect": "oob"}


async def test_a_scan_is_asked_for(tmp_path: Path) -> None:
    async with console(tmp_path) as (bench, browser):
        form = {"site": "fra1", "networks": "10.9.0.0/24, 10.9.1.0/24", "key": "k2"}
        await browser.post("/pending/bmcs/scan", form)
        ((order, _),) = bench.fake.orders
        assert order["params"] == {"networks": ["10.9.0.0/24", "10.9.1.0/24"]}
