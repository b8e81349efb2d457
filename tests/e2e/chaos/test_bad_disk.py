"""A disk that answers with input/output errors: the process ends, says so, and loses nothing.

After a failed write nobody knows what the disk holds (a later commit may succeed and hide the
lost one), so the first error is the last act. The errors are made by a small library that is
loaded into one process (bad_disk.c).
"""

import json
import subprocess
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.e2e.chaos.storm import DEAD_SOCKETS
from tests.support.fleet import IMAGE, Fleet, run, small_image, until

pytestmark = [pytest.mark.slow, DEAD_SOCKETS]
SOURCE = Path(__file__).with_name("bad_disk.c")
FAILED = 1
DEPLOY = ("server", "deploy", "--image", IMAGE)
WHERE = [
    ("node-two", "state.db", "write"),
    ("node-two", "state.db", "sync"),
    ("node-two", "state.db", "read"),
    ("node-two", "cache/cache.db", "write sync"),
    ("node-two", "cache/assets", "sync"),
    ("hub", "state.db", "write"),
    ("hub", "state.db", "sync"),
    ("hub", "report.db", "write"),
]
"""Process, file, calls that fail."""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library, built once."""
    path = tmp_path_factory.mktemp("bad") / "bad_disk.so"
    words = ["gcc", "-O2", "-fPIC", "-shared", "-o", str(path), str(SOURCE), "-ldl"]
    subprocess.run(words, check=True, timeout=60)
    return path


class Fetching(Fleet):
    """A fleet whose site two can be made to fetch something."""

    images = 0

    def want_another_image(self) -> None:
        """Let site two want content that it does not have; the hub may be on its way out."""
        self.images += 1
        path = small_image(self.folder / f"more-{self.images}.raw", 2, seed=50 + self.images)
        run("asset", "add", f"more-{self.images}", path, "--data", self.hub)
        run("asset", "want", f"more-{self.images}", "two", "--data", self.hub)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Generator[Fetching]:
    """Two sites, a rack of two."""
    made = Fetching(tmp_path_factory.mktemp("eio"), 2, 6)
    made.disk_mib = 16
    try:
        made.start_sites()
        made.register_image()
        made.accept(2)
        yield made
    finally:
        made.processes.stop_all()


@pytest.mark.parametrize(("name", "file", "calls"), WHERE)
def test_the_first_error_ends_the_process_and_no_order_is_lost(
    site: Fetching, library: Path, name: str, file: str, calls: str
) -> None:
    site.heal()
    for server in ("srv1", "srv2"):
        site.make_available(server)
    data, when = site.folder / name, site.folder / "disk-is-bad"
    words = site.hub_words() if name == "hub" else site.node_words(data)
    site.processes.stop(name)
    settings = [f"LD_PRELOAD={library}", f"BAD_DISK_PATH={file}", f"BAD_DISK_WHEN={when}"]
    process = site.processes.start(name, "env", *settings, *words)
    site.wait_linked(site.two)
    jobs = [site.deploy_order("srv1", data=data)]
    told = len(site.log(name))
    when.write_text(calls)
    try:
        site.want_another_image()
        second = run(*DEPLOY, "srv2", "--json", "--data", data)
        if second.code == 0:  # acknowledged before the disk was asked
            jobs.append(json.loads(second.out)["item"]["job"])
        until(f"{name} ends", lambda: process.poll() is not None, 45)
    finally:
        when.unlink()
    said = [line for line in site.log(name)[told:].splitlines() if not line.startswith("{")]
    assert (process.returncode, len(said)) == (FAILED, 1), site.log(name)[told:]
    assert said[0].startswith("rackmesh: ")
    assert "input/output error" in said[0]
    site.heal()
    for job in jobs:
        site.succeeded(job, 120)
    assert site.disk_holds_image(0)
    site.no_traceback()
