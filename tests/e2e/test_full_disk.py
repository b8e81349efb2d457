"""A node whose disk is full: it lives, serves whom it knows, says so, and goes on."""

import errno
import os
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from demo_processes import wait_for

from tests.support.fleet import ENDED, Fleet, fleet, one_sentence, run, until

pytestmark = [pytest.mark.root, pytest.mark.slow]
DISK_MIB = 144
"""Room for the image of 24 MiB beside the cache's reserve of 64."""


@contextmanager
def small_disk(folder: Path) -> Generator[None]:
    """Put a small file system of its own under a folder."""
    folder.mkdir(parents=True)
    size = f"size={DISK_MIB}m,mode=700"
    subprocess.run(["mount", "-t", "tmpfs", "-o", size, "rackmesh-test", folder], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def fill(file: Path, leave_bytes: int = 0) -> None:
    """Take all that is free, or all but so much; again when somebody let something go."""
    disk = os.statvfs(file.parent)
    wanted = disk.f_bavail * disk.f_frsize - leave_bytes
    with file.open("ab", buffering=0) as out:
        for piece in (1 << 20, 1 << 12):
            while wanted > 0:
                try:
                    wanted -= out.write(b"\xaa" * min(piece, wanted))
                except OSError as exc:
                    if exc.errno != errno.ENOSPC:
                        raise
                    break


@pytest.fixture
def site(tmp_path: Path) -> Generator[Fleet]:
    """Two sites, a rack of three at site two, whose node has a small disk of its own."""
    folder = tmp_path / "fleet"
    with small_disk(folder / "node-two"), fleet(folder, servers=3) as made:
        made.start_sites()
        made.register_image()
        made.accept(2)
        made.succeeded(made.deploy_order("srv1"))
        yield made


def problems(site: Fleet) -> list[str]:
    return list((site.status(site.two) or {"problems": ["no answer"]})["problems"])


def full_problem(site: Fleet) -> str | None:
    return next((problem for problem in problems(site) if "is full" in problem), None)


def boots(site: Fleet, index: int) -> int:
    """Count the boots off the network that reached a script of the node."""
    return site.console(index).count("/boot/v1/script")


def acknowledged(site: Fleet) -> dict[str, Any]:
    """Return what the node has said is so: servers with their states, jobs with their ends."""
    servers = {item["name"]: item["state"] for item in site.get(site.two, "/servers")}
    return servers | {
        item["id"]: item["state"]
        for item in site.get(site.two, "/jobs")
        if item["state"] in ENDED
    }


def test_a_node_on_a_full_disk_lives_serves_and_goes_on(site: Fleet) -> None:
    two, filler = site.two, site.two / "filler"
    process, cached = site.processes.running[two.name], two / "cache" / "assets"
    before = acknowledged(site)
    assert before["srv1"] == "active"
    assert list(cached.iterdir())
    try:
        fill(filler, leave_bytes=40 << 20)  # short: the cache gives first
        until("the cache lets the image go", lambda: not list(cached.iterdir()))
        assert full_problem(site) is None
        fill(filler)
        job = site.deploy_order("srv2")
        wait_for("the node says so", lambda: full_problem(site), 60, site.processes)
        assert str(two) in str(full_problem(site))
        refused = run("server", "power", "srv1", "off", "--data", two)
        assert "disk is full" in one_sentence(refused)
        assert site.job(job, site.hub)["state"] == "queued"

        served = boots(site, 1)
        site.reset_machine(1)
        until("the known server boots", lambda: boots(site, 1) > served, 60)
        assert process.poll() is None
        said = site.log(two.name).count('"disk full"')
        assert 1 <= said <= 3
        held = acknowledged(site)
        assert {key: held[key] for key in before} == before
        assert site.job(job, site.hub)["state"] == "queued"
    finally:
        filler.unlink(missing_ok=True)
    site.succeeded(job, 120)
    assert site.disk_holds_image(1)
    assert full_problem(site) is None
    assert process.poll() is None
    held = acknowledged(site)
    assert {key: held[key] for key in before if key != "srv2"} == {
        key: state for key, state in before.items() if key != "srv2"
    }
    assert "disk has room again" in site.log(two.name)
    site.no_traceback()
