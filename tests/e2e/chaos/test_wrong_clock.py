"""A machine's clock jumps by ten years: nothing ages, no order runs out, it is said, it passes.

The jump is made by a small library in one process (wrong_clock.c); the others have the right
time. Shown for a node, for the hub, for both directions, while it runs and across a restart.
"""

import sqlite3
import subprocess
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from demo_processes import wait_for

from mesh.proto import tables
from mesh.proto.hlc import milliseconds
from mesh.proto.sets import parse_head
from tests.e2e.chaos.books import read_rows
from tests.e2e.chaos.storm import DEAD_SOCKETS
from tests.support.fleet import Fleet, fleet, run, until

pytestmark = [pytest.mark.slow, DEAD_SOCKETS]
SOURCE = Path(__file__).with_name("wrong_clock.c")
YEARS_S = 3652 * 86_400
DAY_MS = 86_400_000


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Generator[Fleet]:
    """Two sites, a rack of two; node two and the hub have clocks that can be set."""
    folder = tmp_path_factory.mktemp("clock")
    library = folder / "wrong_clock.so"
    words = ["gcc", "-O2", "-fPIC", "-shared", "-o", str(library), str(SOURCE), "-ldl"]
    subprocess.run(words, check=True, timeout=60)
    with fleet(folder / "fleet", servers=2, image_mib=6) as made:
        made.disk_mib = 16
        made.start_sites()
        made.register_image()
        made.accept(2)
        made.succeeded(made.deploy_order("srv1"))
        for name in ("node-two", "hub"):
            set_clock(made, name, 0)
            made.processes.stop(name)
            start(made, name, library)
        yield made


def start(site: Fleet, name: str, library: Path) -> None:
    """Run a process with a clock of its own."""
    words = site.hub_words() if name == "hub" else site.node_words(site.folder / name)
    settings = [f"LD_PRELOAD={library}", f"WRONG_CLOCK={site.folder / name}.clock"]
    site.processes.start(name, "env", *settings, *words)
    wait_for(f"{name} answers", lambda: site.status(site.folder / name), 30, site.processes)


def set_clock(site: Fleet, name: str, off_s: int) -> None:
    """Set a process's clock."""
    beside = site.folder / f"{name}.clock.new"
    beside.write_text(str(off_s))
    beside.replace(site.folder / f"{name}.clock")


def right_again(site: Fleet) -> None:
    """Undo what an earlier test may have left."""
    for name in ("node-two", "hub"):
        set_clock(site, name, 0)
    site.heal()


def problem(site: Fleet, name: str) -> str | None:
    """What a daemon says about its clock."""
    status = site.status(site.folder / name) or {"problems": []}
    return next((said for said in status["problems"] if "clock" in said), None)


def listed(site: Fleet) -> dict[str, Any]:
    """All servers and ended jobs by every daemon: nothing of it may go."""
    found: dict[str, Any] = {}
    for data in (site.hub, site.two):
        for item in until("it answers", lambda at=data: site.get(at, "/servers")):
            found[f"{data.name} {item['name']}"] = item["id"]
        for item in until("it answers", lambda at=data: site.get(at, "/jobs")):
            found[f"{data.name} {item['id']}"] = item["kind"]
    return found


@pytest.mark.parametrize("off_s", [YEARS_S, -YEARS_S], ids=["ahead", "back"])
@pytest.mark.parametrize("name", ["node-two", "hub"])
def test_a_clock_that_jumps_by_ten_years_harms_nothing_and_is_said(
    site: Fleet, name: str, off_s: int
) -> None:
    right_again(site)
    site.make_available("srv1")
    before = listed(site)
    site.processes.stop("rack")
    waiting = site.deploy_order("srv1")  # given before the jump, and still open after it
    until("it is taken", lambda: site.job(waiting)["state"] in ("running", "retry_wait"))
    set_clock(site, name, off_s)
    said = wait_for("it is said", lambda: problem(site, name), 20, site.processes)
    assert ("ahead of" if off_s > 0 else "behind") in said
    assert "3652 days" in said
    assert run("status", "--data", site.folder / name).code == 3
    site.start_rack(site.two)
    site.succeeded(waiting, 120)
    later = site.order("server", "release", "srv1", "--yes")  # given while the clock is wrong
    site.succeeded(later, 120)
    assert listed(site).items() >= before.items()
    set_clock(site, name, 0)
    wait_for("it is well again", lambda: not problem(site, name), 20, site.processes)
    site.succeeded(site.deploy_order("srv1"), 120)
    assert site.disk_holds_image(0)
    in_this_decade(site, (waiting, later))
    site.no_traceback()


def in_this_decade(site: Fleet, jobs: tuple[str, ...]) -> None:
    """No time that anybody wrote is off by years: nothing will run out or live for ever."""
    now_ms = max(item["created_ms"] for item in site.get(site.two, "/jobs"))
    for data in (site.hub, site.two):
        for job in jobs:
            item = site.job(job, data)
            times = [item[key] for key in ("created_ms", "started_ms", "ended_ms")]
            times.append(item["not_after_ms"])
            assert all(abs(at - now_ms) < 3 * DAY_MS for at in times), item


@pytest.mark.parametrize("off_s", [YEARS_S, -YEARS_S], ids=["ahead", "back"])
def test_a_node_that_starts_with_a_wrong_clock_goes_on_from_what_it_wrote(
    site: Fleet, off_s: int
) -> None:
    right_again(site)
    library = site.folder.parent / "wrong_clock.so"
    before = listed(site)
    site.processes.stop("node-two")
    set_clock(site, "node-two", off_s)
    start(site, "node-two", library)
    assert problem(site, "node-two")
    site.make_available("srv1")
    job = site.deploy_order("srv1")
    site.succeeded(job, 120)
    assert listed(site).items() >= before.items()
    in_this_decade(site, (job,))
    set_clock(site, "node-two", 0)
    wait_for("it is well again", lambda: not problem(site, "node-two"), 20, site.processes)


@pytest.mark.parametrize("name", ["node-two", "hub"])
def test_no_stamp_of_another_decade_has_reached_a_row_or_a_head(site: Fleet, name: str) -> None:
    """Runs last: it looks at what the jumps before have left."""
    data, node = site.folder / name, site.status(site.folder / name)["node"]
    newest_ms = max(item["created_ms"] for item in site.get(data, "/jobs"))
    site.processes.stop(name)
    rows, _ = read_rows(data / "state.db", node)
    for key, body in rows[tables.BUDGET].items():
        assert key.endswith("policy") or abs(body["at_ms"] - newest_ms) < DAY_MS
    with sqlite3.connect(data / "state.db") as db:
        heads = db.execute("SELECT head, signature FROM mesh_set WHERE head IS NOT NULL")
        floors = [milliseconds(parse_head(*found).head.floor) for found in heads]
    db.close()
    assert floors
    assert all(abs(floor - newest_ms) < DAY_MS for floor in floors)
    start(site, name, site.folder.parent / "wrong_clock.so")
