"""A hub and the nodes of one site as processes in a lab's namespaces, ordered by command line.

    site = RealSite([lab.host("site", "10.77.0.1")], boot_files)
    site.start()
    site.discover(bmcs, machine); site.accept(bmcs, machine)
    job = site.order("server", "deploy", machine.name, "--image", ...); site.succeeded(job)

The hub and the first node are on the first host, every further node on a host of its own. It
knows the commands that an operator would type. Rule: every wait has a limit and ends with the
last lines of the logs.
"""

import json
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tests.vm.bmcs import PASSWORD, USER, Bmcs
from tests.vm.conftest import REPOSITORY
from tests.vm.lab import Host, Machine, end_process

RACKMESH = REPOSITORY / ".venv/bin/rackmesh"
SITE = "lab"
SUBNET = "10.77.0.0/24"
BMC_SECRET = "bmc"
START_S = 60.0
POLL_S = 0.3
COMMAND_S = 300.0
DISCOVER_S = 180.0
JOB_S = 300.0
LOG_SHOWN = 1500
OVER = ("succeeded", "failed", "cancelled", "parked")


class RealSite:
    """Folders, processes and commands of one hub and the nodes of one site."""

    def __init__(self, hosts: Sequence[Host], boot_files: Path) -> None:
        self._hosts = hosts
        self._folder = hosts[0].lab.folder
        self.boot_files = boot_files
        self._running: dict[Path, subprocess.Popen[bytes]] = {}
        self.hub = self._folder / "hub"
        self.nodes = [self._folder / f"node{n}" for n in range(1, len(hosts) + 1)]

    @property
    def node(self) -> Path:
        """The data folder of the first node that runs."""
        return next(data for data in self.nodes if data in self._running)

    def start(self) -> None:
        """Start the hub, join the nodes, start them, wait for all."""
        address = self._hosts[0].address
        self._hosts[0].popen(
            [RACKMESH, "hub", "up", "--data", self.hub, "--listen", address,
             "--port", "0", "--advertise", address],
            "hub.log",
        )  # fmt: skip
        self.wait("the hub is up", lambda: self.ask("status", "--data", self.hub), START_S)
        for data in self.nodes:
            token = self.rackmesh("token", "create", "--site", SITE, "--role", "node",
                                  "--role", "site-operator", "--data", self.hub)  # fmt: skip
            self.rackmesh("node", "join", "--token-file", "-", "--name", data.name,
                          "--data", data, stdin=token)  # fmt: skip
            self.start_node(data)
        for data in self.nodes:
            self.rackmesh("status", "--wait", str(int(START_S)), "--data", data)

    def start_node(self, data: Path) -> None:
        """Run a node that has joined, on its host."""
        host = self._hosts[self.nodes.index(data)]
        settings = self._folder / f"{data.name}.toml"
        settings.write_text("[policy]\ndestructive_per_hour = 100\n")
        self._running[data] = host.popen(
            [RACKMESH, "node", "run", "--data", data, "--config", settings,
             "--interface", "eth0", "--mesh-listen", host.address, "--mesh-port", "0",
             "--subnet", SUBNET, "--boot-files", self.boot_files],
            f"{data.name}.log",
        )  # fmt: skip

    def kill_node(self, data: Path) -> None:
        """End a node as a power cut would."""
        end_process(self._running.pop(data), at_once=True)

    def runs(self, data: Path) -> bool:
        """Tell whether a node was started, and has not died since."""
        process = self._running.get(data)
        return process is not None and process.poll() is None

    def process(self, data: Path) -> int:
        """Return the process of a node that runs; its session has the same number."""
        return self._running[data].pid

    def serve_image(self, image: Path) -> str:
        """Run an HTTP server for one file; return its URL."""
        script = REPOSITORY / "scripts/lib/demo_origin.py"
        python = REPOSITORY / ".venv/bin/python"
        name, address = f"origin-{image.name}", self._hosts[0].address
        bytes_log = self._folder / f"{name}.bytes"
        self._hosts[0].popen([python, script, image, bytes_log, address], f"{name}.log")
        log = self._folder / f"{name}.log"
        port = self.wait("the origin is up", lambda: log.read_text().strip(), START_S)
        return f"http://{address}:{port}/{image.name}"

    def add_image(self, name: str, image: Path) -> None:
        """Register an image by URL, wanted at the site."""
        url = self.serve_image(image)
        self.rackmesh("asset", "add", name, url, "--want", SITE, "--data", self.hub)

    def discover(self, bmcs: Bmcs, *machines: Machine) -> None:
        """Switch machines on, booting from the network; wait for their inventories."""
        for machine in machines:
            bmcs.boot(machine, "network")
            bmcs.reset(machine, "on")

        def seen() -> bool:
            items = self.ask("server", "pending", "--data", self.node)["items"]
            told = {item["mac"] for item in items if item["summary"]}
            return told >= {machine.mac for machine in machines}

        self.wait("the machines were discovered", seen, DISCOVER_S)

    def accept(self, bmcs: Bmcs, *machines: Machine) -> None:
        """Take machines in by their names, with a BMC password that only nodes can read."""
        self.rackmesh("secret", "set", BMC_SECRET, "--site", SITE, "--username", USER,
                      "--data", self.hub, stdin=PASSWORD)  # fmt: skip
        for machine in machines:
            self.rackmesh("server", "accept", machine.mac, machine.name, "--bmc",
                          bmcs.url(machine), "--bmc-secret", BMC_SECRET, "--wait",
                          "--timeout", str(int(START_S)), "--data", self.hub)  # fmt: skip

    def order(self, *words: str | Path) -> str:
        """Give an order at the hub; return its job."""
        return str(self.ask(*words, "--data", self.hub)["item"]["job"])

    def job(self, job: str) -> Any:
        """Return a job as the site has it."""
        return self.ask("job", "show", job, "--data", self.node)["item"]

    def ended(self, job: str, timeout_s: float = JOB_S) -> Any:
        """Wait until a job is over, however; return it."""

        def over() -> Any:
            item = self.job(job)
            return item if item["state"] in OVER else None

        return self.wait(f"job {job} is over", over, timeout_s)

    def succeeded(self, job: str, timeout_s: float = JOB_S) -> Any:
        """Wait until a job has succeeded; return it."""
        item = self.ended(job, timeout_s)
        assert item["state"] == "succeeded", f"{item['error']}\n{self.logs()}"
        return item

    def rackmesh(self, *words: str | Path, stdin: str | None = None) -> str:
        """Run a command as an operator would; raise with its sentence when it fails."""
        argv = ["ip", "netns", "exec", self._hosts[0].namespace, RACKMESH, *words]
        done = subprocess.run(
            [str(word) for word in argv], input=stdin, text=True, capture_output=True,
            timeout=COMMAND_S, check=False,
        )  # fmt: skip
        if done.returncode:
            said = (done.stderr or done.stdout).strip()
            raise RuntimeError(f"rackmesh {' '.join(map(str, words))}: {said}\n{self.logs()}")
        return done.stdout

    def ask(self, *words: str | Path) -> Any:
        """Run a command with --json; return its answer."""
        return json.loads(self.rackmesh(*words, "--json"))

    def state(self, server: str) -> str:
        """Return a server's state as the site has it."""
        return str(self.ask("server", "show", server, "--data", self.node)["item"]["state"])

    def wait(self, what: str, check: Callable[[], Any], timeout_s: float) -> Any:
        """Return the first true answer; commands that fail count as not yet."""
        limit, reason = time.monotonic() + timeout_s, ""
        while time.monotonic() < limit:
            try:
                if answer := check():
                    return answer
            except RuntimeError as exc:
                reason = str(exc).splitlines()[0]
            time.sleep(POLL_S)
        raise TimeoutError(f"{what}: not within {timeout_s:.0f} s {reason}\n{self.logs()}")

    def requests(self, path: str) -> list[str]:
        """Return the methods by which all nodes were asked for a path, in their order."""
        return [
            line["method"]
            for data in self.nodes
            for line in map(json.loads, self.log(data).splitlines())
            if line.get("msg") == "request" and line["path"] == path
        ]

    def log(self, data: Path) -> str:
        """Return a node's log."""
        return (self._folder / f"{data.name}.log").read_text()

    def logs(self) -> str:
        """Return the ends of the logs."""
        texts = [
            f"--- {path.name}\n{path.read_text(errors='replace')[-LOG_SHOWN:]}"
            for path in sorted(self._folder.glob("*.log"))
        ]
        return "\n".join(texts)
