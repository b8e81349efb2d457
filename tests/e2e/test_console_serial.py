"""A server's serial console in a real browser: watched, written to, taken over, lost, found."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from chromium import CHROMIUM, Visit, chromium, sign_in, visit

from tests.support.console_bench import BMC, ConsoleBench, console_bench

PAGE = "/servers/s1/console"
TRUE_COLOUR = "\x1b[38;2;10;200;30mgreen\x1b[0m \x1b[1;4;31mred\x1b[0m \u2502 wide \u6f22\r\n"

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed"),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as started:
        yield started


@contextmanager
def bench(folder: Path) -> Iterator[ConsoleBench]:
    with console_bench(folder) as made:
        made.put("site:fra1", "server", "s1", id="s1", name="web-1", site="fra1", bmc=BMC,
                 state="active", macs=[])  # fmt: skip
        yield made


@contextmanager
def console(made: ConsoleBench, browser: Any, **settings: Any) -> Iterator[Visit]:
    """Sign in; at the end nothing may have been complained about or fetched elsewhere."""
    with visit(browser, made.url, **settings) as at:
        sign_in(at, "admin", made.password)
        yield at
        assert at.complaints == []
        assert at.foreign == []


def state(at: Visit, words: str) -> None:
    at.page.wait_for_selector(f"#console-state:has-text('{words}')")


def shows(at: Visit, text: str) -> None:
    at.page.wait_for_selector(f"#terminal .xterm-rows:has-text('{text}')")


def test_a_console_is_watched_and_written_to_from_its_page(
    tmp_path: Path, browser: Any
) -> None:
    with bench(tmp_path) as made, console(made, browser) as at:
        at.open("/servers/s1")
        at.page.click("a:text-is('Console')")
        state(at, "open: nobody writes")
        made.serial(write="web-1 login: ")
        shows(at, "web-1 login:")
        assert re.fullmatch("last byte (now|[0-9]+ s ago)", at.page.inner_text("#console-last"))
        at.page.click("#terminal")
        at.page.keyboard.type("nobody reads this")
        at.page.click("#console-write")
        state(at, "open: you write")
        at.page.keyboard.type("root")
        at.page.keyboard.press("Enter")
        shows(at, "web-1 login: root")
        assert "nobody reads this" not in at.page.inner_text("#terminal")
        made.serial(write=TRUE_COLOUR)
        shows(at, "green red")
        colour = (
            "getComputedStyle([...document.querySelectorAll('.xterm-rows span')]"
            ".find((one) => one.textContent.startsWith('green'))).color"
        )
        assert at.page.evaluate(colour) == "rgb(10, 200, 30)"
        assert at.violations() == []
        at.page.click("#console-read")
        state(at, "open: nobody writes")


def test_two_pages_share_a_console_and_one_takes_writing_over(
    tmp_path: Path, browser: Any
) -> None:
    with bench(tmp_path) as made, console(made, browser) as one, console(made, browser) as two:
        one.open(PAGE)
        two.open(PAGE)
        one.page.click("#console-write")
        state(one, "open: you write, 2 watch")
        state(two, "admin writes")
        two.page.click("#console-take")
        state(two, "open: you write")
        state(one, "admin writes")
        two.page.keyboard.type("from two")
        for at in (one, two):
            shows(at, "from two")


def test_a_console_that_ends_says_why_and_is_opened_again(tmp_path: Path, browser: Any) -> None:
    with bench(tmp_path) as made, console(made, browser) as at:
        at.open(PAGE)
        state(at, "open")
        made.serial(fail="ipmi://b: the console was taken over by another client")
        at.page.wait_for_selector("#console-note:has-text('taken over by another client')")
        state(at, "not connected")
        made.serial(refuse="ipmi://b: in use by another client; take it with --steal")
        at.page.click("#console-open")
        at.page.wait_for_selector("#console-note:has-text('in use by another client')")
        made.serial()
        at.page.click("#console-steal")
        state(at, "open")
        made.serial(write="here again")
        shows(at, "here again")
