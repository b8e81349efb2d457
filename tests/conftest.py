"""Rules for all tests: who may run here, and that CI skips nothing it could run."""

import os
import shutil

import pytest
from hypothesis import settings

settings.register_profile("busy", deadline=None)  # a loaded machine is no failure
if not os.environ.get("CI"):  # there hypothesis has a profile of its own, with fixed examples
    settings.load_profile("busy")

NEEDS = {"root": "root", "vm": "qemu-system-x86_64", "browser": "chromium"}


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
