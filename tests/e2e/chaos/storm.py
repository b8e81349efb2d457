"""Ten deploys in parallel while processes are killed at random and started again.

The storm is two things in one loop: a supervisor that kills by a seeded schedule and starts
again what is down, as systemd would, after a short pause; and an operator who keeps ten servers
busy, gives each order at whichever daemon answers, and says retry when a job asks for a person.
"""

import json
import random
import signal
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from demo_processes import rackmesh, wait_for

from mesh.rest.client import ApiError
from tests.e2e.chaos.books import Books, Given, look
from tests.support.fleet import ENDED, IMAGE, Fleet

SERVERS = 10
IMAGE_MIB = 6
DISK_MIB = 16
RESTART_S = (0.1, 1.2)
LOOK_S = 0.25
POLICY = "[policy]\ndestructive_per_hour = 1000\nmachine_lost_s = 25\n"
"""No site would allow so much; and simulated servers need no self-test."""
SETTLE_S = 180.0
NEXT = {"available": "server.deploy", "active": "server.release"}
VERBS = tuple(NEXT.values())
DEAD_SOCKETS = pytest.mark.filterwarnings(
    "ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning"
)
"""httpcore2 does not close a socket on which nobody answered."""


class ChaosSite(Fleet):
    """A hub, two nodes at one site, a rack beside both, and nothing at the other site."""

    def __init__(self, folder: Path, servers: int = SERVERS) -> None:
        super().__init__(folder, servers, IMAGE_MIB)
        self.disk_mib = DISK_MIB
        self.daemons = {"hub": self.hub, "node-one": self.one, "node-two": self.two}

    def begin(self) -> None:
        """Start everything, register the image, accept all servers."""
        for data in (self.one, self.two):
            (self.folder / f"{data.name}.toml").write_text(POLICY)
        self.start_hub()
        for data, flags in ((self.one, ("--subnet", "127.92.0.0/24")), (self.two, ())):
            self.join("two", data, "node", "site-operator")
            self.run_node(data, *flags)
        self.start_rack(self.one, self.two)
        self.start_origin()
        for data in (self.one, self.two):
            self.wait_linked(data)
        rackmesh("asset", "add", IMAGE, self.origin_url(), "--want", "two", "--data", self.hub)
        wait_for("the image is there", lambda: self.residency("two"), 60, self.processes)
        self.accept(self.servers)

    def words(self, name: str) -> list[str | Path]:
        """Return the command line of a process, on the ports that it had before."""
        match name:
            case "hub":
                return self.hub_words()
            case "rack":
                return self.rack_words(self.one, self.two)
            case _:
                data = self.daemons[name]
                kept = self.folder / f"{name}.flags"
                flags = json.loads(kept.read_text()) if kept.exists() else []
                return self.node_words(data, *flags)


class Supervisor:
    """Kills processes and starts again whatever is down."""

    def __init__(
        self, site: ChaosSite, rng: random.Random, victims: Sequence[str] = ()
    ) -> None:
        self.site, self._rng = site, rng
        self._victims = victims or (*site.daemons, "rack")
        self._due: dict[str, float] = {}
        self.killed: Counter[str] = Counter()
        self.ends: list[str] = []

    def kill(self, name: str) -> None:
        """End a process as a power cut would, and note when it comes back."""
        self.site.kill(name)
        self.killed[name] += 1
        self._due[name] = time.monotonic() + self._rng.uniform(*RESTART_S)

    @property
    def down(self) -> set[str]:
        """What waits for its restart."""
        return set(self._due)

    def power_cut(self, names: list[str]) -> None:
        """Kill several processes in the same instant."""
        processes = {name: self.site.processes.running.pop(name) for name in names}
        for process in processes.values():
            process.send_signal(signal.SIGKILL)
        for name, process in processes.items():
            process.wait()
            self.killed[name] += 1
            self._due[name] = time.monotonic() + self._rng.uniform(*RESTART_S)

    def kill_one(self) -> None:
        """Kill one of those that run."""
        up = [name for name in self._victims if name not in self._due]
        if up:
            self.kill(self._rng.choice(sorted(up)))

    def turn(self) -> None:
        """Start what is due; notice what has ended by itself."""
        running = self.site.processes.running
        for name in [n for n, process in running.items() if process.poll() is not None]:
            code, tail = running.pop(name).returncode, self.site.log(name)[-300:]
            self.ends.append(f"{name} with code {code}: {tail}")
            self._due[name] = time.monotonic() + RESTART_S[1]
        for name in [n for n, due in self._due.items() if time.monotonic() >= due]:
            del self._due[name]
            self.site.processes.start(name, *self.site.words(name))


class Operator:
    """Keeps every server busy and remembers what was acknowledged."""

    def __init__(self, site: ChaosSite, rng: random.Random) -> None:
        self.site, self._rng = site, rng
        self.given: list[Given] = []
        self.unanswered: list[tuple[str, str]] = []
        self._asked: dict[str, dict[str, Any]] = {}
        self._keys = 0

    def begin(self) -> None:
        """Give every server its first order."""
        until = time.monotonic() + 10
        while len(self.given) < self.site.servers:
            self.turn(more=True)
            assert time.monotonic() < until, "the orders were not taken"

    def turn(self, more: bool) -> bool:
        """Look once and give what orders are due; True when all that was ordered has ended."""
        data = self._rng.choice([self.site.one, self.site.two])
        jobs, servers = self.site.get(data, "/jobs"), self.site.get(data, "/servers")
        if jobs is None or servers is None:
            return False
        shown, idle = {job["id"] for job in jobs}, not self._asked
        for server in servers:
            name = server["name"]
            on_way = any(g.server == name and g.order not in shown for g in self.given)
            works = [job for job in jobs if job["server_name"] == name and job["kind"] in VERBS]
            newest = max(works, key=lambda job: int(job["created_ms"]), default=None)
            open_ones = [job for job in jobs if job["server_name"] == name and _open(job)]
            if name in self._asked:
                self._send(name)
            elif on_way or open_ones:
                idle = False
            elif newest is not None and newest["state"] != "succeeded" and newest["started_ms"]:
                idle = False
                self._order("job.retry", name, newest["id"])
            elif more and server["state"] in NEXT:
                self._order(NEXT[server["state"]], name)
        return idle

    def _order(self, kind: str, server: str, about: str = "") -> None:
        self._keys += 1
        body: dict[str, Any] = {"kind": kind, "idempotency_key": f"storm-{self._keys}"}
        body |= {"job": about} if about else {"server": server}
        image = {"image": IMAGE, "hostname": server, "ssh_keys": []}
        body["params"] = image if kind == "server.deploy" else {}
        body["at"] = self._rng.choice(list(self.site.daemons))
        self._asked[server] = body
        self._send(server)

    def _send(self, server: str) -> None:
        """Give an order; what was asked and not answered is asked again where it was asked."""
        body = dict(self._asked[server])
        at = body.pop("at")
        try:
            with self.site.api(self.site.daemons[at]) as client:
                item = client.post("/orders", body)["item"]
        except ApiError as exc:
            refused = exc.code != "unreachable"
            if refused or at != "hub":
                del self._asked[server]
            if not refused and at != "hub" and "nothing answers" not in str(exc):
                self.unanswered.append((body["kind"], server))
            return
        del self._asked[server]
        self.given.append(Given(item["order"], body["kind"], server, body.get("job", "")))


def _open(job: dict[str, Any]) -> bool:
    return job["state"] not in ENDED


def storm(
    site: ChaosSite, seed: int, kills: int, every_s: float, victims: Sequence[str] = ()
) -> tuple[Books, Counter[str]]:
    """Run the storm to its end and collect the evidence; returns it and who was killed.

    Only ``victims`` are killed, all processes when none is named."""
    rng = random.Random(seed)
    supervisor, operator = (
        Supervisor(site, rng, victims),
        Operator(site, random.Random(seed + 1)),
    )
    operator.begin()
    next_kill = time.monotonic() + rng.uniform(0, every_s)
    next_look = 0.0
    while sum(supervisor.killed.values()) < kills:
        now = time.monotonic()
        supervisor.turn()
        if now >= next_kill:
            supervisor.kill_one()
            next_kill = now + rng.uniform(0, 2 * every_s)
        if now >= next_look:
            operator.turn(more=True)
            next_look = now + LOOK_S
        time.sleep(0.02)
    settle(site, supervisor, operator)
    books = look(site, operator.given, site.daemons)
    books.unanswered, books.ends = operator.unanswered, supervisor.ends
    return books, supervisor.killed


def settle(site: ChaosSite, supervisor: Supervisor, operator: Operator) -> None:
    """Let everything come back and end; then wait until all daemons show the same."""
    end = time.monotonic() + SETTLE_S
    while not operator.turn(more=False):
        supervisor.turn()
        time.sleep(LOOK_S)
        assert time.monotonic() < end, f"not settled: {_open_jobs(site)}"
    supervisor.turn()
    for data in (site.one, site.two):
        site.wait_linked(data)
    wait_for("all show the same", lambda: _same(site), 30, site.processes)


def _same(site: ChaosSite) -> bool:
    shown = [
        {job["id"]: job["state"] for job in site.get(data, "/jobs") or []}
        for data in site.daemons.values()
    ]
    ended = all(state in ENDED for state in shown[0].values())
    return bool(shown[0]) and ended and shown[0] == shown[1] == shown[2]


def _open_jobs(site: ChaosSite) -> list[Any]:
    jobs = site.get(site.two, "/jobs") or []
    names = ("id", "kind", "server_name", "state", "waits_for", "error")
    return [{n: job[n] for n in names} for job in jobs if job["state"] != "succeeded"]
