"""A real Chromium for tests and benches of the console: pages, and what they complain about.

It knows Playwright and axe-core and nothing of what pages show. Rule: whatever a page's console
says, and whatever a page asks of anybody but its own hub, is kept for the caller to judge.
"""

import shutil
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

CHROMIUM: Final = shutil.which("chromium")
FLAGS: Final = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip
WAIT_MS: Final = 15_000
GRAVE: Final = ("serious", "critical")
"""Impacts of axe-core that count."""


@dataclass
class Visit:
    """One window: its page, and what was noticed."""

    page: Any
    url: str
    complaints: list[str] = field(default_factory=list)
    """Errors and warnings of the page's console."""
    foreign: list[str] = field(default_factory=list)
    """Requests to anybody but the hub."""

    def open(self, path: str) -> None:
        """Go to an address of the hub and wait until its page is live."""
        self.page.goto(self.url + path)
        self.page.wait_for_selector("#feed.good")

    def violations(self) -> list[str]:
        """Return what axe-core finds grave about the page as it stands."""
        from axe_playwright_python.sync_playwright import Axe

        found = Axe().run(self.page).response["violations"]
        return [
            f"{one['id']}: {node['target']} {node['html'][:120]}"
            for one in found
            if one["impact"] in GRAVE
            for node in one["nodes"]
        ]


@contextmanager
def chromium() -> Generator[Any]:
    """Start a browser."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        try:
            yield started
        finally:
            started.close()


@contextmanager
def visit(browser: Any, url: str, **settings: Any) -> Generator[Visit]:
    """Open a window of its own, without cookies, on a hub."""
    context = browser.new_context(ignore_https_errors=True, **settings)
    made = Visit(context.new_page(), url)
    made.page.set_default_timeout(WAIT_MS)
    made.page.on("console", lambda said: _keep(made, said))
    made.page.on("pageerror", lambda error: made.complaints.append(str(error)))
    made.page.on("request", lambda asked: _check(made, asked.url))
    try:
        yield made
    finally:
        context.close()


def sign_in(made: Visit, account: str, password: str) -> None:
    """Sign in by the form; ends on the first page, live or without a script."""
    made.page.goto(made.url + "/sign-in")
    made.page.fill("#account", account)
    made.page.fill("#password", password)
    made.page.click("button[type=submit]")
    made.page.wait_for_selector("#feed")


def _keep(made: Visit, said: Any) -> None:
    if said.type in ("error", "warning"):
        made.complaints.append(said.text)


def _check(made: Visit, url: str) -> None:
    if not url.startswith((made.url, "data:", "blob:")):
        made.foreign.append(url)
