"""Rules for all tests: who may run here, what runs side by side, what CI may not skip.

With several workers (``scripts/test``) all virtual machines run in one, so that two never fight
for the processors; of everything else a worker takes whole files.
"""

import os
import shutil

import pytest
from hypothesis import settings
from xdist.scheduler import LoadScopeScheduling

settings.register_profile("busy", deadline=None)  # a loaded machine is no failure
if not os.environ.get("CI"):  # there hypothesis has a profile of its own, with fixed examples
    settings.load_profile("busy")

NEEDS = {"root": "root", "vm": "qemu-system-x86_64", "browser": "chromium"}


VIRTUAL_MACHINES = "tests/vm/"
SLOWEST_FIRST = (VIRTUAL_MACHINES, "tests/e2e/chaos", "tests/e2e", "tests/io", "tests/sim")
"""Folders whose tests begin first, so that no long one is left at the end for one worker."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    def place(item: pytest.Item) -> int:
        folders = [
            at for at, folder in enumerate(SLOWEST_FIRST) if item.nodeid.startswith(folder)
        ]
        return folders[0] if folders else len(SLOWEST_FIRST)

    items.sort(key=place)


class ByFile(LoadScopeScheduling):
    """Gives a worker whole files, and all virtual machines to one worker."""

    def _split_scope(self, nodeid: str) -> str:
        path = nodeid.partition("::")[0]
        return VIRTUAL_MACHINES if path.startswith(VIRTUAL_MACHINES) else path


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> ByFile:
    return ByFile(config, log)


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
