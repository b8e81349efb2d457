"""What a fleet left behind, as plain data: the evidence that the checker judges.

It is collected from the outside, by nobody's word alone: rows out of each daemon's database
(opened as the program opens it: every page and every set's root is checked), the bytes of the
disks, what the BMCs wrote about the orders that they got, files and sockets in the folders.
"""

import json
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from mesh.host.clock import SystemClock
from mesh.proto import tables
from mesh.store import MeshStore
from tests.support.fleet import Fleet

SITE = "two"
MERGED = (
    tables.SERVER, tables.INVENTORY, tables.BINDING, tables.SUBNET, tables.ORDER, tables.JOB,
)  # fmt: skip
BY_AUTHOR = (tables.BUDGET, tables.SIGHTING, tables.SITE_SECRET, tables.NODE_SECRET)
Rows = dict[str, dict[str, dict[str, Any]]]
"""Table -> key (with the author where a table is read author by author) -> body."""


@dataclass(frozen=True)
class Given:
    """An order that a daemon has acknowledged."""

    order: str
    kind: str
    server: str
    about: str = ""
    """The job that a retry is about."""


@dataclass(frozen=True)
class BmcOrder:
    """An order that reached a server's BMC, by the BMC's own log."""

    at_ms: int
    machine: str
    what: str


@dataclass(frozen=True)
class Disk:
    """A server's disk at the end."""

    image_sha256: str
    empty: bool
    written_ms: int


@dataclass
class Books:
    """Everything that the checker looks at; ``rows`` by the daemon's name."""

    image_sha256: str
    given: list[Given] = field(default_factory=list)
    unanswered: list[tuple[str, str]] = field(default_factory=list)
    """(kind, server) of orders of which nobody knows whether they were taken."""
    machines: dict[str, str] = field(default_factory=dict)
    """Server's name -> its machine's name in the rack."""
    rows: dict[str, Rows] = field(default_factory=dict)
    job_authors: dict[str, dict[str, set[str]]] = field(default_factory=dict)
    """Daemon -> job -> the runners that its authors' own rows name."""
    shown: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    """Daemon -> job -> how its API shows the job."""
    disks: dict[str, Disk] = field(default_factory=dict)
    bmc_orders: list[BmcOrder] = field(default_factory=list)
    left_over: list[str] = field(default_factory=list)
    """Files, sockets and rows that nobody needs."""
    ends: list[str] = field(default_factory=list)
    """Processes that ended though nobody had killed them."""


def look(site: Fleet, given: list[Given], daemons: dict[str, Path]) -> Books:
    """Ask the running daemons, stop everything, then read what is on the disks."""
    books = Books(site.image_sha256, given=list(given))
    for name, data in daemons.items():
        jobs = site.get(data, "/jobs") or []
        books.shown[name] = {job["id"]: job for job in jobs}
    authors = {name: site.get(data, "/status")["node"] for name, data in daemons.items()}
    machines = site.machines()
    site.processes.stop_all()
    for name, data in daemons.items():
        books.rows[name], books.job_authors[name] = read_rows(data / "state.db", authors[name])
        books.left_over += left_over(name, data)
    by_mac = {machine["mac"]: machine["name"] for machine in machines}
    for body in next(iter(books.rows.values()))[tables.SERVER].values():
        books.machines[body["name"]] = by_mac[body["macs"][0]]
    for index, machine in enumerate(machines):
        written_ms = site.disk(index).stat().st_mtime_ns // 1_000_000
        books.disks[machine["name"]] = Disk(
            site.disk_sha256(index), site.disk_is_empty(index), written_ms
        )
    books.bmc_orders = bmc_orders(site.log("rack"))
    return books


def read_rows(path: Path, author: str) -> tuple[Rows, dict[str, set[str]]]:
    """Read all rows of the site as a stopped daemon keeps them, every root checked."""
    scope = tables.site_scope(SITE)
    with MeshStore.open(path, author=author, sign_head=_never, clock=SystemClock()) as store:
        assert not store.damaged, f"{path}: damaged sets {store.damaged}"
        rows: Rows = {
            table: {row.key: row.body for row in store.rows(scope, table)} for table in MERGED
        }
        for table in BY_AUTHOR:
            found = store.authored(scope, table)
            rows[table] = {f"{row.author}/{row.key}": row.body for row in found}
        runners: dict[str, set[str]] = {}
        for row in store.authored(scope, tables.JOB):
            runners.setdefault(row.key, set()).add(str(row.body.get("runner")))
        logs = store.query("SELECT count(*) FROM sqlite_schema WHERE name = 'job_log'")[0][0]
        told = store.query("SELECT DISTINCT job FROM job_log") if logs else []
        rows["job_log"] = {job: {} for (job,) in told}
        staged = store.query("SELECT count(*) FROM mesh_staged")[0][0]
        rows["staged"] = {"rows": {}} if staged else {}
    return rows, runners


def _never(_body: bytes) -> bytes:
    raise AssertionError("reading signs nothing")


def left_over(name: str, data: Path) -> list[str]:
    """Name what a daemon that has been stopped must not leave in its folder."""
    found = [path for path in (data / "run").iterdir() if path.name != "ports.json"]
    found += list((data / "cache" / "partial").iterdir())
    found += list(data.rglob("*.damaged*"))
    return [f"{name}: {path.relative_to(data)}" for path in found]


def bmc_orders(log: str) -> list[BmcOrder]:
    """Read the orders out of a rack's log; a line that a kill has cut is no order."""
    found = []
    for line in log.splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict) and entry.get("msg") == "bmc order":
            moment = datetime.fromisoformat(entry["t"])
            at_ms = round(moment.timestamp() * 1000)
            found.append(BmcOrder(at_ms, entry["server"], entry["detail"]))
    return found
