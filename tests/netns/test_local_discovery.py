"""Two members on one wire, no hub, no address known: they find each other by multicast DNS."""

import selectors
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.netns import Namespace, namespace, wire

REPOSITORY = Path(__file__).resolve().parents[2]
WAIT_S = 60.0
STRANGER_S = 6.0
"""Members of one site find each other in about 2 s."""

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(shutil.which("unshare") is None, reason="unshare is not installed"),
    pytest.mark.skipif(shutil.which("ip") is None, reason="iproute2 is not installed"),
]


@pytest.fixture
def wired() -> Iterator[tuple[Namespace, Namespace]]:
    with namespace() as one, namespace() as two:
        wire(one, "lan0", two, "lan0")
        for where, host in ((one, "10.79.0.1/24"), (two, "10.79.0.2/24")):
            where.run("ip", "address", "add", host, "dev", "lan0")
        yield one, two


@contextmanager
def member(where: Namespace, *words: str) -> Iterator["subprocess.Popen[str]"]:
    argv = where.argv(sys.executable, "-m", "tests.support.lan_member", *words)
    with subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY
    ) as process:
        try:
            assert said(process, WAIT_S) == "runs"
            yield process
        finally:
            assert process.stdin is not None
            process.stdin.close()
            try:
                process.wait(WAIT_S)
            finally:
                process.kill()


def said(process: "subprocess.Popen[str]", seconds: float) -> str | None:
    """Return the next line that a member prints, None when there is none in time."""
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        return process.stdout.readline().strip() if selector.select(seconds) else None


def test_two_members_of_a_site_find_each_other_without_a_hub(wired):
    one, two = wired
    with (
        member(one, "a", "b", "oslo", "10.79.0.1") as a,
        member(two, "b", "a", "oslo", "10.79.0.2") as b,
    ):
        assert said(a, WAIT_S) == "linked"
        assert said(b, WAIT_S) == "linked"


def test_members_of_two_sites_on_one_wire_are_left_alone(wired):
    one, two = wired
    with (
        member(one, "a", "b", "oslo", "10.79.0.1") as a,
        member(two, "b", "a", "bergen", "10.79.0.2"),
    ):
        assert said(a, STRANGER_S) is None
