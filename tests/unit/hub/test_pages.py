"""The console's pages without a browser: frame and parts, forms and their token, errors."""

import gzip
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from hub.api.auth import COOKIE
from hub.app import make_app
from hub.pages.forms import mask, unmask
from tests.support.hub_bench import API_TOKEN, HUB, NODE_A, Bench, Member, fill, hub_bench

PASSWORD = "correct horse"
PAGES = (
    "/", "/sites", "/sites/fra1", "/nodes", f"/nodes/{NODE_A}", "/mesh", "/servers",
    "/pending", "/jobs", "/assets", "/search?q=web", "/install", "/install?site=fra1",
    "/about", "/password",
    "/pending?tab=aside", "/pending?filter=mac:52*", "/nodes?filter=reachable:no&sort=-name",
    "/sites/fra1?tab=nodes", "/sites/fra1?tab=pending", "/sites/fra1?tab=jobs",
    "/sites/fra1?tab=assets", "/sites/ams1",
)  # fmt: skip


@asynccontextmanager
async def console(
    folder: Path, filled: bool = True, role: str = "admin"
) -> AsyncGenerator[tuple[Bench, Any]]:
    """Yield a bench and a client that is signed in."""
    members = () if filled else (Member(HUB, site="", roles=frozenset({"hub"})),)
    async with hub_bench(folder, *members) as bench:
        if filled:
            fill(bench)
        await bench.ingest.read_all()
        desk, now_ms = bench.services.desk, bench.clock.now_ms()
        await bench.services.accounts.create("admin", role, PASSWORD)
        secret, session = desk.sign_in("admin", now_ms)
        yield bench, Browser(make_app(bench.services).test_client(), secret, session.csrf)


class Browser:
    def __init__(self, client: Any, secret: str, csrf: str) -> None:
        self.client = client
        self.csrf = csrf
        self.headers = {"Cookie": f"{COOKIE}={secret}", "Accept": "text/html"}

    async def get(self, path: str, **headers: str) -> Any:
        return await self.client.get(path, headers={**self.headers, **headers})

    async def text(self, path: str) -> str:
        response = await self.get(path)
        assert response.status_code == 200, path
        found: str = (await response.get_data()).decode()
        return found

    async def post(self, path: str, form: dict[str, Any], token: str | None = None) -> Any:
        sent = {"csrf": mask(self.csrf) if token is None else token, **form}
        kind = {"Content-Type": "application/x-www-form-urlencoded"}
        data = urlencode(sent, doseq=True)
        return await self.client.post(path, headers={**self.headers, **kind}, data=data)


@pytest.mark.parametrize("path", PAGES)
async def test_every_page_stands_within_the_frame(tmp_path: Path, path: str) -> None:
    async with console(tmp_path) as (_, browser):
        page = await browser.text(path)
        for part in ("tree", "badges", "strip"):
            assert f'id="{part}"' in page
        assert "<h1" in page


@pytest.mark.parametrize("path", ["/", "/sites", "/servers", "/pending", "/jobs", "/install"])
async def test_an_empty_hub_says_on_each_page_what_to_do_next(
    tmp_path: Path, path: str
) -> None:
    async with console(tmp_path, filled=False) as (_, browser):
        assert 'class="empty"' in await browser.text(path)


async def test_a_part_is_read_again_without_the_frame(tmp_path: Path) -> None:
    async with console(tmp_path) as (_, browser):
        parts = await browser.text("/servers?part=servers,strip")
        assert '<div id="servers" hx-swap-oob="innerHTML">' in parts
        assert '<div id="strip" hx-swap-oob="innerHTML">' in parts
        assert "<html" not in parts
        assert (await browser.get("/servers?part=nothing")).status_code == 400


async def test_pages_are_compressed_for_who_takes_it(tmp_path: Path) -> None:
    async with console(tmp_path) as (_, browser):
        packed = await browser.get("/servers", **{"Accept-Encoding": "gzip, br"})
        assert packed.headers["Content-Encoding"] == "gzip"
        assert b"web-1" in gzip.decompress(await packed.get_data())
        plain = await browser.get("/servers")
        assert "Content-Encoding" not in plain.headers
        assert b"web-1" in await plain.get_data()


async def test_the_token_of_forms_looks_different_on_each_page(tmp_path: Path) -> None:
    async with console(tmp_path) as (_, browser):
        pages = [await browser.text("/") for _ in range(2)]
        found = [page.split('name="csrf" value="')[1].split('"')[0] for page in pages]
        assert found[0] != found[1]
        assert {unmask(token) for token in found} == {browser.csrf}
        assert browser.csrf not in "".join(pages)


@pytest.mark.parametrize("token", ["", "zz", "00", "00" * 32, "masked"])
async def test_a_form_of_another_session_is_refused(tmp_path: Path, token: str) -> None:
    if token == "masked":  # a well-formed one, made here: names of tests must not change
        token = mask("00" * 16)
    async with console(tmp_path) as (_, browser):
        response = await browser.post("/sign-out", {}, token)
        assert response.status_code == 403
        assert "another session" in (await response.get_data()).decode()


async def test_what_went_wrong_is_a_page_for_people_and_a_document_for_programs(
    tmp_path: Path,
) -> None:
    async with console(tmp_path) as (_, browser):
        page = await browser.get("/nowhere")
        assert page.status_code == 404
        assert "There is nothing at this address." in (await page.get_data()).decode()
        bearer = {"Authorization": f"Bearer {API_TOKEN}"}
        document = await browser.client.get("/nowhere", headers=bearer)
        assert (document.status_code, (await document.get_json(force=True))["code"]) == (
            404, "not-found",
        )  # fmt: skip


async def test_a_session_that_ended_sends_the_page_to_the_sign_in(tmp_path: Path) -> None:
    async with console(tmp_path) as (bench, browser):
        bench.clock.advance(13 * 3600 * 1000)
        part = await browser.get("/?part=tree", **{"HX-Request": "true"})
        assert (part.status_code, part.headers["HX-Redirect"]) == (401, "/sign-in")


async def test_the_own_password_is_changed_and_ends_other_sessions(tmp_path: Path) -> None:
    async with console(tmp_path, role="viewer") as (bench, browser):
        new = " with blanks at its ends "
        form = {"current": "wrong", "password": new, "again": new}
        assert "is wrong" in (await (await browser.post("/password", form)).get_data()).decode()
        form["current"] = PASSWORD
        twice = await browser.post("/password", {**form, "again": "x"})
        assert twice.status_code == 400
        done = await browser.post("/password", form)
        assert (done.status_code, done.headers["Location"]) == (303, "/")
        assert any(COOKIE in cookie for cookie in done.headers.getlist("Set-Cookie"))
        assert (await browser.get("/sites")).headers["Location"] == "/sign-in"
        assert await bench.services.accounts.check_password("admin", new)


async def test_the_search_leads_to_the_only_thing_that_it_finds(tmp_path: Path) -> None:
    async with console(tmp_path) as (_, browser):
        response = await browser.get("/search?q=52-54-00-00-00-01")
        assert (response.status_code, response.headers["Location"]) == (303, "/servers/s2")
        assert "web-1" in await browser.text("/search?q=web")
        assert "Nothing is called so" in await browser.text("/search?q=zzz")


async def test_a_silent_node_is_down_beside_a_reached_one_and_else_unknown(
    tmp_path: Path,
) -> None:
    async with console(tmp_path) as (bench, browser):
        cards = await browser.text("/?part=cards")
        assert "degraded" in cards
        assert "down" in cards
        bench.peers.links.clear()
        cards = await browser.text("/?part=cards")
        assert "unknown" in cards
        assert "down" not in cards
