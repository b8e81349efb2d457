"""Servers, jobs and assets in a real browser, over TLS, against real processes that do work."""

import hashlib
import re
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from chromium import CHROMIUM, Visit, chromium, sign_in, visit

from tests.support.fleet import IMAGE, Fleet, fleet, run, small_image

SERVERS = 2
VIEWER = "a viewer's password"
DEPLOY_MS = 60_000

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed"),
]


@pytest.fixture(scope="module")
def rack(tmp_path_factory: pytest.TempPathFactory) -> Generator[Fleet]:
    """A hub, two sites, two accepted servers at one of them, an image that is known."""
    with fleet(tmp_path_factory.mktemp("console"), SERVERS) as made:
        made.start_sites()
        made.register_image()
        made.accept(SERVERS)
        words = ("account", "add", "vera", "--role", "viewer", "--password-file", "-")
        said = run(*words, "--data", made.hub, stdin=VIEWER)
        assert said.code == 0, said.err
        yield made


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as started:
        yield started


@contextmanager
def console(
    rack: Fleet, browser: Any, account: str = "admin", **settings: Any
) -> Iterator[Visit]:
    """Sign in; at the end nothing may have been complained about or fetched elsewhere."""
    url = f"https://127.0.0.1:{rack.hub_port}"
    password = (rack.hub / "admin-password").read_text().strip()
    with visit(browser, url, **settings) as made:
        sign_in(made, account, password if account == "admin" else VIEWER)
        yield made
        assert made.complaints == []
        assert made.foreign == []


def test_a_server_is_deployed_and_watched_from_its_page(rack: Fleet, browser: Any) -> None:
    with console(rack, browser) as at:
        at.open("/servers")
        at.page.click("text=srv1")
        at.page.wait_for_selector(".stepper .now:has-text('available')")
        assert "never cleaned" in at.page.inner_text(".stepper")
        assert "Rackmesh Simulated server" in at.page.inner_text("#hardware")
        at.page.click("button:has-text('Deploy')")
        choice = at.page.locator(f".choice:has-text('{IMAGE}')")
        assert re.search(r"two: (not there|already there|not all there)", choice.inner_text())
        choice.click()
        at.page.fill("#hostname", "web-1.example")
        at.page.fill("#ssh_keys", "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5 me@laptop")
        at.page.click("button:has-text('Review')")
        assert "Data is lost on 1 server" in at.page.inner_text("main")
        command = at.page.inner_text("pre.command code")
        assert command.startswith(f"rackmesh server deploy srv1 --image {IMAGE}")
        assert '"hostname": "web-1.example"' in at.page.inner_text("#same")
        at.page.check("input[name=sure]")
        at.page.click(".give button[type=submit]")
        at.page.wait_for_selector(".stepper .now:has-text('deploying')")
        at.page.click("#now a")
        at.page.wait_for_selector("#log .line")
        at.page.wait_for_selector("#job .state.good:text-is('succeeded')", timeout=DEPLOY_MS)
        assert at.page.locator(".steps rect.done").count() >= 8
        assert at.page.inner_text("#log-state") in (
            "the job is over",
            "live from the job's node",
        )
        numbers = at.page.locator("#log .line").count()
        assert numbers > 5
        assert at.page.locator("#evidence dd").count() > 3
        at.page.click("dd a:text-is('srv1')")
        at.page.wait_for_selector(".stepper .now:has-text('active')")
        facts = at.page.inner_text("#facts")
        assert "web-1.example" in facts and "phoned in" in facts
        assert "power on as of" in " ".join(at.page.inner_text(".server-head").split())


def test_many_servers_take_one_order_as_one_group(rack: Fleet, browser: Any) -> None:
    with console(rack, browser) as at:
        at.open("/servers?filter=site:two+state:!broken")
        at.page.click("text=Select all 2 in this filter")
        at.page.click("button:has-text('Power on')")
        words = " ".join(at.page.inner_text("main").split())
        assert "Power on hits 2 servers: 2 at two" in words and "No data is lost" in words
        assert "--filter 'site:two state:!broken'" in at.page.inner_text("pre.command code")
        at.page.click(".give button[type=submit]")
        at.page.wait_for_selector(".held tbody tr >> nth=1")
        held = at.page.locator(".held")
        assert held.locator("tbody tr").count() == 2
        at.page.wait_for_selector(".held:has-text('2 of 2 done')", timeout=DEPLOY_MS)
        held.locator("h2 a").click()
        at.page.wait_for_selector("#group .state.good:text-is('succeeded')")
        assert at.page.locator("#jobs tbody tr[data-job]").count() == 2
        at.open("/jobs")
        row = at.page.locator("tr.is-group:has-text('Power 2 servers')")
        assert "2 of 2 over" in row.inner_text()


def test_a_row_that_the_filter_keeps_no_more_stays_in_sight(rack: Fleet, browser: Any) -> None:
    with console(rack, browser) as at:
        at.open("/servers?filter=state:available")
        at.page.check("[aria-label='Choose srv2']")
        at.page.click("button:has-text('Release')")
        at.page.check("input[name=sure]")
        at.page.click(".give button[type=submit]")
        at.page.wait_for_selector(".held:has-text('1 of 1 done')", timeout=DEPLOY_MS)
        assert "srv2" in at.page.inner_text(".held")
        assert (
            "filter=state%3Aavailable" in at.page.url or "filter=state:available" in at.page.url
        )


def test_a_file_is_uploaded_with_its_checksum_and_wanted_elsewhere(
    rack: Fleet, browser: Any
) -> None:
    path = small_image(rack.folder / "mine.raw", 3, seed=77)
    with console(rack, browser) as at:
        at.open("/assets")
        assert IMAGE in at.page.inner_text("#assets")
        at.page.click("#register summary")
        at.page.fill("#name", "mine")
        at.page.check("input[name=want][value=two]")
        at.page.set_input_files("#file", path)
        at.page.click("#add-asset button[type=submit]")
        at.page.wait_for_selector("h1:text-is('mine')")
        assert hashlib.sha256(path.read_bytes()).hexdigest() in at.page.inner_text("main")
        assert "Upload" in at.page.inner_text("main")
        at.page.wait_for_selector("tr:has-text('two') .cell.verified", timeout=DEPLOY_MS)
        at.page.click("[aria-label='Want mine at one']")
        at.page.wait_for_selector("tr:has-text('one') .cell.verified", timeout=DEPLOY_MS)
        at.page.click("[aria-label='Stop wanting mine at one']")
        at.page.wait_for_selector("[aria-label='Want mine at one']")


def pages(rack: Fleet) -> list[str]:
    """Every page about servers, jobs and assets, with something on it."""
    server = rack.server("srv1", rack.hub)["id"]
    jobs = rack.get(rack.hub, "/jobs")
    group = next(job["group"] for job in jobs if job["group"])
    return [
        "/servers", "/servers?group=state&hide=-", "/servers?filter=nothing",
        f"/servers/{server}", "/servers/order", "/jobs",
        f"/jobs/{jobs[-1]['id']}", f"/groups/{group}", "/assets", f"/assets/{IMAGE}",
    ]  # fmt: skip


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_page_has_a_grave_barrier(rack: Fleet, browser: Any, scheme: str) -> None:
    with console(rack, browser, color_scheme=scheme) as at:
        for path in pages(rack):
            at.open(path)
            assert at.violations() == [], path
        at.open("/servers")
        at.page.check("[aria-label='Choose srv1']")
        at.page.click("button:has-text('Release')")
        assert at.violations() == [], "review"


def test_pages_fit_a_screen_of_1024_pixels_and_work_without_a_script(
    rack: Fleet, browser: Any
) -> None:
    with console(rack, browser, viewport={"width": 1024, "height": 700}) as at:
        for path in pages(rack):
            at.open(path)
            assert at.page.evaluate("document.documentElement.scrollWidth") <= 1024, path
    with console(rack, browser, java_script_enabled=False) as at:
        for path in pages(rack):
            at.page.goto(at.url + path)
            assert at.page.inner_text("h1")
        job = rack.get(rack.hub, "/jobs")[-1]["id"]
        at.page.goto(f"{at.url}/jobs/{job}")
        assert at.page.locator("#log .line").count() > 1


def test_a_viewer_sees_all_and_is_offered_nothing(rack: Fleet, browser: Any) -> None:
    with console(rack, browser, "vera") as at:
        at.open("/servers")
        assert "srv1" in at.page.inner_text("#servers")
        for path in pages(rack):
            at.page.goto(at.url + path)
            assert at.page.locator("main form[method=post] button:visible").count() == 0, path
            assert at.page.locator("main input[type=checkbox]").count() == 0, path
        answer = at.page.request.post(
            f"{at.url}/servers/order", form={"kind": "server.release"}
        )
        assert answer.status == 403


def test_the_serial_console_goes_from_a_browser_to_the_bmc_and_back(
    rack: Fleet, browser: Any
) -> None:
    said = run("server", "power", "srv1", "on", "--wait", "--data", rack.hub)
    assert said.code == 0, said.err
    with console(rack, browser) as at, console(rack, browser, account="vera") as eyes:
        for one in (at, eyes):
            one.open("/servers/srv1")
            one.page.click("a:text-is('Console')")
            one.page.wait_for_selector("#console-state:has-text('open')")
        at.page.bring_to_front()
        at.page.click("#console-write")
        at.page.wait_for_selector("#console-state:has-text('you write')")
        at.page.keyboard.type("typed in a browser")
        for one in (at, eyes):
            one.page.wait_for_selector(".xterm-rows:has-text('typed in a browser')")
        eyes.page.wait_for_selector("#console-state:has-text('admin writes')")
        assert eyes.page.locator("#console-take").count() == 0
        pin = next(
            line.split()[-1] for line in rack.log("hub").splitlines() if "TLS SHA-256" in line
        )
        words = ("server", "console", "srv1", "--take", "--linger", "2")
        ask = ("--hub", f"https://127.0.0.1:{rack.hub_port}", "--api-token-file",
               rack.hub / "api-token", "--tls-sha256", pin)  # fmt: skip
        said = run(*words, *ask, stdin="typed in a terminal\r")
        assert said.code == 0, said.err
        assert "typed in a browser" in said.out and "typed in a terminal" in said.out
        eyes.page.wait_for_selector(".xterm-rows:has-text('typed in a terminal')")
    said = run("server", "console", "srv1", "--read-only", "--data", rack.hub)
    assert said.code == 0, said.err
    assert "typed in a terminal" in said.out
    said = run("server", "console", "srv1", "--data", rack.two, stdin="at the node\r")
    assert said.code == 0, said.err
    assert "at the node" in said.out
