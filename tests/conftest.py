"""Rules for all tests: who may run here, what runs side by side, what CI may not skip.

With several workers (``scripts/test``) all virtual machines run in one, so that two never fight
for the processors; so do the tests that share the fleet of ``tests/e2e``; other files whole.
"""

import os
import shutil

import pytest
from hypothesis import settings

settings.register_profile("busy", deadline=None)  # a loaded machine is no failure
if not os.environ.get("CI"):  # there hypothesis has a profile of its own, with fixed examples
    settings.load_profile("busy")

NEEDS = {"root": "root", "vm": "qemu-system-x86_64", "browser": "chromium"}


SLOWEST_FIRST = ("tests/vm", "tests/e2e/chaos", "tests/e2e", "tests/io", "tests/sim")
"""Folders whose tests begin first, so that no long one is left at the end for one worker."""


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    def place(item: pytest.Item) -> int:
        folders = [
            at for at, folder in enumerate(SLOWEST_FIRST) if item.nodeid.startswith(folder)
        ]
        return folders[0] if folders else len(SLOWEST_FIRST)

    items.sort(key=place)
    for item in items:
        group = item.nodeid.partition("::")[0]
        if place(item) == 0:
            group = "virtual machines"
        elif "shared" in getattr(item, "fixturenames", ()):
            group = "fleet"
        item.add_marker(pytest.mark.xdist_group(group))


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("root") and os.geteuid() != 0:
        pytest.skip("needs root for network namespaces")
    if item.get_closest_marker("vm"):
        if os.geteuid() != 0:
            pytest.skip("needs root for network namespaces")
        if shutil.which("qemu-system-x86_64") is None:
            pytest.skip("needs qemu-system-x86_64 (Debian: qemu-system-x86)")
    if item.get_closest_marker("browser") and shutil.which("chromium") is None:
        pytest.skip("needs chromium (Debian: chromium)")


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """With CI set a skipped test is a failure: CI has root, QEMU and Chromium."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None or not os.environ.get("CI"):
        return
    skipped = reporter.stats.get("skipped", [])
    if skipped and exitstatus == 0:
        reporter.write_line(f"CI is set and {len(skipped)} tests were skipped", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
