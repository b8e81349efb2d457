"""An operator's first hour in a browser: an empty hub, its first node, its first machines."""

import re
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from chromium import CHROMIUM, Visit, chromium, sign_in, visit

from tests.support.fleet import Fleet, run

SERVERS = 2
JOINED_MS = 30_000
SEEN_MS = 60_000

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed"),
]


class Bare(Fleet):
    """Processes whose hub starts with nothing in it, as without any flags."""

    def hub_words(self) -> list[str | Path]:
        return [word for word in super().hub_words() if word not in ("--site", "one")]


@pytest.fixture
def bare(tmp_path: Path) -> Generator[Bare]:
    made = Bare(tmp_path / "bare", SERVERS, image_mib=1)
    try:
        made.start_hub()
        yield made
    finally:
        made.processes.stop_all()


def join(bare: Bare, at: Visit, data: Path) -> tuple[int, str]:
    """Paste the page's line into a terminal."""
    line = at.page.inner_text("pre.command code >> nth=0")
    words = line.split()
    assert words[:4] == ["rackmesh", "node", "join", "--token"]
    said = run(*words[1:], "--name", data.name, "--data", data)
    return said.code, said.out + said.err


def test_an_empty_hub_becomes_a_site_with_servers_from_its_pages_alone(
    bare: Bare, tmp_path: Path
) -> None:
    url = f"https://127.0.0.1:{bare.hub_port}"
    with chromium() as browser, visit(browser, url) as at:
        sign_in(at, "admin", (bare.hub / "admin-password").read_text().strip())
        _first_site(at)
        _first_node(bare, at, tmp_path)
        _first_machines(bare, at)
        assert at.complaints == []
        assert at.foreign == []


def _first_site(at: Visit) -> None:
    assert "admin-password" in at.page.inner_text("main")
    assert at.page.input_value("main input[name=site]") == "main"
    at.page.fill("main input[name=site]", "fra1")
    at.page.click("text=Make its first token")
    at.page.wait_for_url(re.compile(r"/install/[a-z2-7]+$"))
    assert _steps(at) == ["done", "now", "ahead", "ahead"]


def _first_node(bare: Bare, at: Visit, tmp_path: Path) -> None:
    """Join with the page's own line, run the node, be watched; a second comer is refused."""
    at.page.wait_for_selector("#feed.good")
    code, said = join(bare, at, bare.two)
    assert code == 0, said
    at.page.wait_for_selector(".way .done:has-text('Joined')", timeout=JOINED_MS)
    assert _steps(at) == ["done", "done", "done", "now"]
    bare.run_node(bare.two, "--subnet", "127.92.0.0/24")
    at.page.wait_for_selector(".way .done:has-text('Healthy')", timeout=JOINED_MS)
    code, said = join(bare, at, tmp_path / "thief")
    assert code != 0
    at.page.wait_for_selector(".way:has-text('was used by another node')")


def _first_machines(bare: Bare, at: Visit) -> None:
    bare.start_rack(bare.two)
    at.open("/pending")
    at.page.wait_for_selector(f"tbody tr >> nth={SERVERS - 1}", timeout=SEEN_MS)
    at.page.wait_for_selector("tbody th:text-matches('^SIM') >> nth=1", timeout=SEEN_MS)
    inbox = at.page.inner_text("#pending")
    assert "Rackmesh Simulated server" in inbox
    assert "rack/" in inbox, "the relay's port is not shown"
    at.page.click("[data-tick-all]")
    at.page.click("button[value=accept]")
    at.page.fill("#pattern", "web{nn}")
    at.page.click("text=Fill the names")
    at.page.click("button[type=submit]:has-text('Accept 2 machines')")
    at.page.wait_for_selector(".notice:has-text('2 machines being accepted')")
    at.page.wait_for_selector("#pending .empty", timeout=SEEN_MS)
    at.open("/sites/fra1")
    at.page.wait_for_selector("#tab tbody tr:has-text('available') >> nth=1", timeout=SEEN_MS)
    assert at.page.locator("#tab tbody th").all_inner_texts() == ["web01", "web02"]
    at.open("/")
    assert "New " in at.page.inner_text("#latest") or "Accept" in at.page.inner_text("#latest")


def _steps(at: Visit) -> list[Any]:
    return [step.get_attribute("class") for step in at.page.locator(".way li").all()]
