"""The first page in a real browser, over TLS, against a hub of its own."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.support.hub_process import HubProcess, running_hub

CHROMIUM = shutil.which("chromium")
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
WAIT_MS = 15_000

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed"),
]


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubProcess]:
    data = tmp_path_factory.mktemp("first-page") / "hub"
    with running_hub(data, "--port", "0", "--site", "fra1", "--name", "demo") as found:
        yield found


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield started
        started.close()


@contextmanager
def page_of(browser: Any, **settings: Any) -> Iterator[tuple[Any, list[str]]]:
    """Open a page; yield it with everything that its console complains about."""
    context = browser.new_context(ignore_https_errors=True, **settings)
    page, complaints = context.new_page(), []
    page.set_default_timeout(WAIT_MS)
    page.on(
        "console",
        lambda said: (
            complaints.append(said.text) if said.type in ("error", "warning") else None
        ),
    )
    page.on("pageerror", lambda error: complaints.append(str(error)))
    try:
        yield page, complaints
    finally:
        context.close()


def sign_in(page: Any, hub: HubProcess, password: str | None = None) -> None:
    page.goto(hub.url + "/")
    page.fill("#account", "admin")
    page.fill("#password", password or hub.password)
    page.click("button[type=submit]")


def test_signing_in_shows_the_live_page_without_complaints(
    hub: HubProcess, browser: Any
) -> None:
    with page_of(browser) as (page, complaints):
        sign_in(page, hub)
        page.wait_for_selector("#feed.good")
        for section in ("summary", "cards", "tree", "badges", "strip"):
            assert page.is_visible(f"#{section}"), section
        assert "fra1" in page.inner_text("#cards")
        assert page.title() == "Overview · demo · Rackmesh"
        assert page.inner_text(".verdict strong") == "All well"
        cookie = page.context.cookies()[0]
        assert cookie["name"] == "__Host-rackmesh"
        assert (cookie["secure"], cookie["httpOnly"]) == (True, True)
        assert cookie["sameSite"] == "Strict"
        assert page.evaluate("document.cookie") == ""
        assert complaints == []


def test_what_changes_shows_by_itself(hub: HubProcess, browser: Any) -> None:
    with page_of(browser) as (page, complaints):
        sign_in(page, hub)
        page.wait_for_selector("#feed.good")
        page.goto(hub.url + "/assets")
        page.wait_for_selector("#feed.good")
        with hub.api() as api:
            name = "debian-12"
            api.post("/assets", {"name": name, "url": "https://x.invalid/i", "want": ["fra1"]})
        page.wait_for_selector("#assets tbody th:has-text('debian-12')", timeout=10_000)
        assert "wanted" in page.inner_text("#assets")
        assert complaints == []


def test_ages_go_on_by_themselves(hub: HubProcess, browser: Any) -> None:
    with page_of(browser) as (page, _):
        sign_in(page, hub)
        page.wait_for_selector("#feed.good")
        page.wait_for_selector(".verdict time:text-matches('^[2-9] s ago$')")


def test_a_wrong_password_says_so_and_signing_out_ends_it(
    hub: HubProcess, browser: Any
) -> None:
    with page_of(browser) as (page, _):
        sign_in(page, hub, "not the password")
        assert "wrong" in page.inner_text("[role=alert]")
        assert page.input_value("#account") == "admin"
        page.fill("#password", hub.password)
        page.click("button[type=submit]")
        page.wait_for_selector("#feed.good")
        page.click("#menu-who summary")
        page.click("text=Sign out")
        page.wait_for_selector("#password")
        page.goto(hub.url + "/")
        assert page.url.endswith("/sign-in")


def test_the_page_is_whole_without_javascript(hub: HubProcess, browser: Any) -> None:
    with page_of(browser, java_script_enabled=False) as (page, complaints):
        sign_in(page, hub)
        page.wait_for_selector("#cards")
        assert "fra1" in page.inner_text("#cards")
        page.goto(hub.url + "/sites")
        assert "Renewed every 10 s" in page.content()
        assert complaints == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_ground(hub: HubProcess, browser: Any, scheme: str) -> None:
    with page_of(browser, color_scheme=scheme) as (page, _):
        sign_in(page, hub)
        page.wait_for_selector("#feed.good")
        ratios = page.evaluate(_CONTRAST)
        assert ratios
        assert min(ratios) >= 4.5


def test_a_small_screen_needs_no_sideways_scrolling(hub: HubProcess, browser: Any) -> None:
    with page_of(browser, viewport={"width": 390, "height": 800}) as (page, _):
        sign_in(page, hub)
        page.wait_for_selector("#feed.good")
        assert page.evaluate("document.documentElement.scrollWidth") <= 390


_CONTRAST = """() => {
  const light = (c) => {
    const [r, g, b] = c.map((v) => v / 255).map((v) =>
      v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const rgb = (text) => text.match(/[0-9.]+/g).map(Number);
  const ground = (node) => {
    for (let n = node; n; n = n.parentElement) {
      const c = rgb(getComputedStyle(n).backgroundColor);
      if (c.length < 4 || c[3] > 0) return c.slice(0, 3);
    }
    return [255, 255, 255];
  };
  return [...document.querySelectorAll("h2, h3, dt, dd, p, td, th, .state, time, .feed, .dim")]
    .filter((n) => n.textContent.trim() && n.offsetParent)
    .map((n) => {
      const a = light(rgb(getComputedStyle(n).color).slice(0, 3)), b = light(ground(n));
      return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    });
}"""
