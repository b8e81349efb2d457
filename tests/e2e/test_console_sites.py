"""Frame, sites, nodes, pending machines and joins in a real browser, over simulated rows."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from chromium import CHROMIUM, Visit, chromium, sign_in, visit

from mesh.proto import tables
from tests.support.console_bench import ConsoleBench, console_bench
from tests.support.hub_bench import HUB, NODE_A, NODE_B

SITE = tables.site_scope("fra1")
PAGES = (
    "/", "/sites", "/sites/fra1", "/sites/fra1?tab=nodes", "/sites/fra1?tab=pending",
    "/sites/fra1?tab=jobs", "/sites/fra1?tab=assets", "/sites/ams1", "/nodes",
    f"/nodes/{NODE_B}", "/mesh", "/pending", "/pending?tab=aside", "/install",
    "/search?q=web", "/about", "/password",
)  # fmt: skip
FIRST_VISIT_BYTES_MAX = 80_000
FIRST_VISIT_REQUESTS_MAX = 10

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed"),
]


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ConsoleBench]:
    with console_bench(tmp_path_factory.mktemp("console")) as found:
        yield found


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as started:
        yield started


@contextmanager
def console(bench: ConsoleBench, browser: Any, **settings: Any) -> Iterator[Visit]:
    """Sign in; at the end nothing may have been complained about or fetched elsewhere."""
    with visit(browser, bench.url, **settings) as made:
        sign_in(made, "admin", bench.password)
        yield made
        assert made.complaints == []
        assert made.foreign == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_page_has_a_grave_barrier_or_scrolls_sideways(
    bench: ConsoleBench, browser: Any, scheme: str
) -> None:
    screen = {"width": 1024, "height": 768}
    with console(bench, browser, color_scheme=scheme, viewport=screen) as at:
        for path in PAGES:
            at.open(path)
            assert at.violations() == [], path
            assert at.page.evaluate("document.documentElement.scrollWidth") <= 1024, path
        at.open("/pending")
        at.page.click("[data-tick-all]")
        at.page.click("button[value=accept]")
        assert at.violations() == []
        for path in ("/kiosk", "/kiosk?at=1"):
            at.page.goto(bench.url + path)
            assert at.violations() == [], path


def test_a_first_visit_is_light(bench: ConsoleBench, browser: Any) -> None:
    with visit(browser, bench.url) as made:
        sizes: list[int] = []
        sign_in(made, "admin", bench.password)
        cookies = made.page.context.cookies()
    with visit(browser, bench.url) as made:
        made.page.context.add_cookies(cookies)
        answers: list[Any] = []
        made.page.on("response", lambda answer: answers.append(answer))  # noqa: PLW0108
        made.open("/")
        for answer in answers:
            if "/events" not in answer.url:
                answer.finished()
                sizes.append(answer.request.sizes()["responseBodySize"])
        assert sum(sizes) <= FIRST_VISIT_BYTES_MAX
        assert len(answers) <= FIRST_VISIT_REQUESTS_MAX


def test_the_keyboard_leads_everywhere(bench: ConsoleBench, browser: Any) -> None:
    with console(bench, browser) as at:
        for key, path in (
            ("s", "/sites"), ("n", "/nodes"), ("e", "/mesh"), ("m", "/servers"),
            ("p", "/pending"),
            ("j", "/jobs"), ("a", "/assets"), ("i", "/install"), ("o", "/"),
        ):  # fmt: skip
            at.page.wait_for_selector("#feed.good")
            at.page.keyboard.press("g")
            at.page.keyboard.press(key)
            at.page.wait_for_url(bench.url + path)
        at.page.wait_for_selector("#feed.good")
        at.page.keyboard.press("?")
        at.page.wait_for_selector("#keys[open]")
        at.page.keyboard.press("Escape")
        at.page.wait_for_selector("#keys:not([open])", state="attached")
        at.page.keyboard.press("/")
        at.page.keyboard.type("52-54-00-00-00-01")
        at.page.keyboard.press("Enter")
        at.page.wait_for_url(re.compile(r"/servers/s2$"))
        at.page.wait_for_selector("#feed.good")
        at.page.keyboard.press("b")
        at.page.wait_for_selector("#strip:not([open])")
        at.open("/sites")
        assert not at.page.evaluate("document.getElementById('strip').open")


def test_everything_can_be_read_without_a_script(bench: ConsoleBench, browser: Any) -> None:
    with console(bench, browser, java_script_enabled=False) as at:
        for path in PAGES:
            at.page.goto(bench.url + path)
            assert at.page.inner_text("#tree").count("fra1") >= 1, path
            assert len(at.page.inner_text("main")) > 40, path
        at.page.goto(bench.url + "/pending")
        at.page.check("input[name=machine] >> nth=0")
        at.page.click("button[value=accept]")
        assert "Name pattern" in at.page.inner_text("main")
        at.page.goto(bench.url + "/kiosk?at=1")
        assert at.page.inner_text("h1") == "fra1"


def test_what_changes_shows_by_itself_and_leaves_open_what_is_open(
    bench: ConsoleBench, browser: Any
) -> None:
    with console(bench, browser) as at:
        at.open("/")
        card = at.page.locator(".site", has_text="fra1").first
        assert "degraded" in card.inner_text()
        at.page.click("#site-fra1 > summary")
        bench.link(NODE_B, True)
        at.page.wait_for_selector(".site .fares:has-text('ok')")
        assert not at.page.evaluate("document.getElementById('site-fra1').open")
        bench.link(NODE_A, False)
        bench.link(NODE_B, False)
        at.page.wait_for_selector(".site .fares:has-text('unknown')")
        at.open("/sites/fra1")
        assert "Nobody at fra1 is reached" in at.page.inner_text("main")
        bench.link(NODE_A, True)
        at.page.wait_for_selector(".head .fares:has-text('degraded')")


def test_ticks_stay_while_the_inbox_grows(bench: ConsoleBench, browser: Any) -> None:
    with console(bench, browser) as at:
        at.open("/pending")
        ticked = "input[value='fra1 52:54:00:aa:00:01']"
        at.page.check(ticked)
        mac = "52:54:00:aa:00:07"
        now = at.page.evaluate("Date.now()")
        bench.put(SITE, tables.SIGHTING, mac, mac=mac, first_ms=now, last_ms=now, where="dhcp",
                  ip="10.0.0.97", port="sw1 Gi0/7")  # fmt: skip
        at.page.wait_for_selector(f"td:text-is('{mac}')")
        assert at.page.is_checked(ticked)
        assert "sw1 Gi0/7" in at.page.inner_text("#pending")
        at.page.check(f"input[value='fra1 {mac}']")
        at.page.click("button[value=reject]")
        at.page.wait_for_selector(".notice:has-text('2 machines put aside')")
        at.open("/pending?tab=aside")
        at.page.click("[data-tick-all]")
        at.page.click("button[value=restore]")
        at.page.wait_for_selector(".notice:has-text('2 machines taken back')")


def test_a_token_is_carried_by_file_and_its_way_is_watched(
    bench: ConsoleBench, browser: Any
) -> None:
    with console(bench, browser, accept_downloads=True) as at:
        at.open("/install?site=ams1")
        at.page.click("button:has-text('Make the token')")
        at.page.wait_for_url(re.compile(r"/install/t\d+$"))
        with at.page.expect_download() as waiting:
            at.page.click("a[download]")
        assert waiting.value.suggested_filename == "rackmesh-ams1.token"
        assert waiting.value.path().read_text() == "rm1.secret\n"
        at.page.wait_for_selector("time[data-until]:text-matches('^23 h 59 min$')")
        assert at.page.locator(".way .now").inner_text().startswith("Contacted this hub")
        at.page.reload()
        assert "rm1.secret" not in at.page.content()


def test_the_wallboard_goes_round_by_itself_and_says_when_it_is_old(
    bench: ConsoleBench, browser: Any
) -> None:
    with visit(browser, bench.url) as at:
        sign_in(at, "admin", bench.password)
        at.page.clock.install()
        at.page.goto(bench.url + "/kiosk")
        at.page.clock.run_for(13_000)
        at.page.wait_for_selector("h1:text-is('fra1')")
        at.page.route("**/kiosk*", lambda route: route.abort())
        at.page.clock.run_for(13_000)
        at.page.wait_for_selector(".lost:has-text('not reached')")
        at.page.unroute("**/kiosk*")
        at.page.clock.run_for(13_000)
        at.page.wait_for_selector("h1:text-is('ams1')")
        assert at.foreign == []


def test_a_hub_that_comes_back_is_noticed(bench: ConsoleBench, browser: Any) -> None:
    bench.put(tables.FLEET, tables.SITE, "zrh1", HUB, title="Zurich", region="main")
    with console(bench, browser) as at:
        at.open("/sites")
        assert "zrh1" in at.page.inner_text("#sites")
