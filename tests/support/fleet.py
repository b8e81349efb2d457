"""A small fleet of real processes on loopback, for tests: hub, two sites, a rack, an origin.

It is the demo's own (scripts/lib/demo.py) with a small image and generated boot files, so a
whole deploy takes seconds and needs no Debian packages. Rules: commands are run as an operator
would; looking is done through the same API client; every wait is for a level and bounded; what
was started is stopped, whatever happened.
"""

import hashlib
import json
import os
import signal
import subprocess
import time
from base64 import b64encode
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from demo import Demo, is_empty, sha256
from demo_processes import RACKMESH, ROOT, DemoFailed, rackmesh, wait_for

from mesh.rest.client import ApiClient, ApiError, Target
from scripts.lib.build_image import write_filler

IMAGE_MIB = 24
DISK_MIB = 64
POLL_S = 0.02
ENDED = ("succeeded", "failed", "cancelled", "parked", "refused")
IMAGE = "demo-os"


@dataclass(frozen=True)
class Said:
    """What a command said, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def sentence(self) -> str:
        """The last line on standard error, which is the one for the operator."""
        return (self.err.strip().splitlines() or [""])[-1]


def run(
    *words: str | Path, stdin: str = "", timeout_s: float = 60.0, user: int | None = None
) -> Said:
    """Run a rackmesh command to its end, whatever it says; ``user``: with that uid."""
    done = subprocess.run(
        [str(RACKMESH), *map(str, words)], input=stdin, text=True, cwd=ROOT, check=False,
        capture_output=True, timeout=timeout_s, user=user,
        env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
    )  # fmt: skip
    return Said(done.returncode, done.stdout, done.stderr)


def one_sentence(said: Said) -> str:
    """Check that a refusal is one line for people and no traceback; return it."""
    lines = [line for line in said.err.splitlines() if not line.startswith("{")]
    assert len(lines) == 1, f"code {said.code}: {said.out}\n{said.err}"
    assert lines[0].startswith("rackmesh: "), lines[0]
    assert "Traceback" not in said.out + said.err
    return lines[0]


def until(what: str, check: Callable[[], Any], timeout_s: float = 30.0) -> Any:
    """Return the first true answer, looking often: for what is true only for a moment."""
    end = time.monotonic() + timeout_s
    while not (answer := check()):
        assert time.monotonic() < end, f"{what}: not within {timeout_s:.0f} s"
        time.sleep(POLL_S)
    return answer


def small_image(path: Path, mib: int = IMAGE_MIB, seed: int = 1) -> Path:
    """Write a random image that the simulated servers take for a system."""
    write_filler(path, mib, seed)
    return path


def boot_files(folder: Path) -> Path:
    """Write boot files that are as good as real ones for simulated servers."""
    folder.mkdir(exist_ok=True)
    sizes = {
        "undionly.kpxe": 70_000, "vmlinuz": 200_000, "initrd": 300_000,
        "mediaboot.bios": 9_000, "mediaboot.efi": 30_720,
    }  # fmt: skip
    for name, size in sizes.items():
        (folder / name).write_bytes(hashlib.shake_128(name.encode()).digest(size))
    return folder


class Fleet(Demo):
    """The demo's processes, which can also be killed and started again."""

    def __init__(self, folder: Path, servers: int = 2, image_mib: int = IMAGE_MIB) -> None:
        folder.mkdir(exist_ok=True)
        image = small_image(folder / "image.raw", image_mib)
        super().__init__(folder, boot_files(folder / "boot"), image, servers)
        self.image_sha256 = sha256(image, image.stat().st_size)
        self.disk_mib = DISK_MIB

    # -- starting ----------------------------------------------------------------------------

    def join(self, site: str, data: Path, *roles: str) -> None:
        """Join a node to a site."""
        named = [word for role in roles or ("node",) for word in ("--role", role)]
        token = rackmesh("token", "create", "--site", site, *named, "--data", self.hub)
        rackmesh(
            "node", "join", "--token-file", "-", "--name", data.name, "--data", data,
            stdin=token,
        )  # fmt: skip

    def node_words(self, data: Path, *flags: str | Path) -> list[str | Path]:
        """Return the command that runs a node, on the ports that it had before, else free."""
        settings = self.folder / f"{data.name}.toml"
        if not settings.exists():
            settings.write_text("[policy]\ndestructive_per_hour = 100\n")
        kept = self.folder / f"{data.name}.ports"
        ports = json.loads(kept.read_text()) if kept.exists() else {}
        words: list[str | Path] = [
            RACKMESH, "node", "run", "--data", data, "--config", settings,
            "--boot-listen", "127.0.0.1", "--mesh-listen", "127.0.0.1",
            "--boot-files", self.boot,
        ]  # fmt: skip
        for name in ("dhcp", "tftp", "http", "mesh"):
            words += [f"--{name}-port", str(ports.get(name, 0))]
        return [*words, *flags]

    def run_node(self, data: Path, *flags: str | Path) -> None:
        """Run a joined node; a second time on the ports of the first."""
        kept, flagged = self.folder / f"{data.name}.ports", self.folder / f"{data.name}.flags"
        if flags:
            flagged.write_text(json.dumps([str(flag) for flag in flags]))
        elif flagged.exists():
            flags = tuple(json.loads(flagged.read_text()))
        (data / "run" / "ports.json").unlink(missing_ok=True)
        self.processes.start(data.name, *self.node_words(data, *flags))
        wait_for(f"{data.name} runs", lambda: self.status(data) is not None, 30, self.processes)
        kept.write_text((data / "run" / "ports.json").read_text())

    def rack_words(self, *nodes: Path) -> list[str | Path]:
        """Return the command that runs the simulated servers beside nodes, with small disks."""
        beside = [word for node in nodes for word in ("--node-data", node)]
        return [
            RACKMESH, "rack", "simulate", str(self.servers), *beside,
            "--data", self.rack, "--disk-mib", str(self.disk_mib), "--seed", "7",
        ]  # fmt: skip

    def start_rack(self, *nodes: Path) -> None:
        """Run the simulated servers."""
        self.processes.start("rack", *self.rack_words(*nodes))

    def start_sites(self) -> None:
        """Start hub, nodes one and two, the rack at two, and the origin; wait until linked."""
        self.start_hub()
        for site, data, subnet in (
            ("one", self.one, "127.91.0.0/24"),
            ("two", self.two, "127.92.0.0/24"),
        ):
            self.join(site, data, "node", "site-operator")
            self.run_node(data, "--subnet", subnet)
        self.start_rack(self.two)
        self.start_origin()
        for data in (self.one, self.two):
            self.wait_linked(data)

    def wait_linked(self, data: Path) -> None:
        """Wait until a node is well and has its hub."""
        wait_for(f"{data.name} has its hub", lambda: self.linked(data), 45, self.processes)

    def heal(self) -> None:
        """Start again what is down, and wait until all are linked."""
        running = self.processes.running
        for name in [n for n, process in running.items() if process.poll() is not None]:
            del running[name]
        if "hub" not in running:
            self.start_hub()
        for data in (self.one, self.two):
            if data.name not in running:
                self.run_node(data)
        if "rack" not in running:
            self.start_rack(self.two)
        for process in running.values():
            process.send_signal(signal.SIGCONT)
        for data in (self.one, self.two):
            self.wait_linked(data)

    def pause(self, name: str) -> None:
        """Stop a process where it is; ``go_on`` lets it run again."""
        self.processes.running[name].send_signal(signal.SIGSTOP)

    def go_on(self, name: str) -> None:
        """Let a paused process run again."""
        self.processes.running[name].send_signal(signal.SIGCONT)

    def kill(self, name: str) -> None:
        """End a process at once, as a power cut would."""
        process = self.processes.running.pop(name)
        process.send_signal(signal.SIGKILL)
        process.wait()

    # -- looking -----------------------------------------------------------------------------

    @contextmanager
    def api(self, data: Path) -> Generator[ApiClient]:
        """Open the API of a daemon, as the command line does."""
        client = ApiClient(Target(socket=data / "run" / "api.sock"))
        try:
            yield client
        finally:
            client.close()

    def get(self, data: Path, path: str) -> Any:
        """Return a resource, or None while there is none or nobody answers."""
        with self.api(data) as client:
            try:
                answer = client.get(path)
            except ApiError:
                return None
        return answer.get("item", answer.get("items"))

    def status(self, data: Path) -> Any:
        """Return a daemon's status, or None."""
        if not (data / "run" / "ports.json").exists():
            return None
        return self.get(data, "/status")

    def linked(self, data: Path) -> bool:
        """Say whether a node is well and linked to its hub."""
        status = self.status(data)
        return status and status["healthy"] and any(p["role"] == "hub" for p in status["peers"])

    def server(self, name: str, data: Path | None = None) -> Any:
        """Return a server as a daemon sees it (the rack's own node by default)."""
        return self.get(data or self.two, f"/servers/{name}")

    def job(self, job: str, data: Path | None = None) -> dict[str, Any]:
        """Return a job as a daemon sees it."""
        return dict(self.get(data or self.two, f"/jobs/{job}") or {"state": None, "steps": []})

    def step(self, job: str, step: str, data: Path | None = None) -> dict[str, Any]:
        """Return a step of a job by name."""
        steps = self.job(job, data)["steps"]
        return next((s for s in steps if s["name"] == step), {"state": None, "done": None})

    def log(self, name: str) -> str:
        """Return what a process wrote."""
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def machines(self) -> list[dict[str, Any]]:
        """Return the rack's servers as it wrote them down."""
        return list(json.loads((self.rack / "servers.json").read_text()))

    def bmc_login(self) -> dict[str, str]:
        """Return user name and password of the rack's BMCs."""
        return dict(json.loads((self.rack / "bmc-credentials.json").read_text()))

    def bmc_call(self, index: int, path: str, body: Any) -> int:
        """Order something of a server's BMC as somebody else would; return the status."""
        url = urlsplit(self.machines()[index]["bmc"])
        login = self.bmc_login()
        given = b64encode(f"{login['username']}:{login['password']}".encode()).decode()
        headers = {"Authorization": f"Basic {given}", "Content-Type": "application/json"}
        connection = HTTPConnection(url.hostname or "", url.port, timeout=20)
        try:
            connection.request("POST", url.path + path, json.dumps(body), headers)
            return connection.getresponse().status
        finally:
            connection.close()

    def reset_machine(self, index: int) -> None:
        """Pull the plug of a machine and put it in again, behind the node's back."""
        for kind in ("ForceOff", "On"):
            path = "/Actions/ComputerSystem.Reset"
            assert self.bmc_call(index, path, {"ResetType": kind}) in (200, 204)

    def disk(self, index: int) -> Path:
        """Return the file that is a server's disk."""
        return Path(self.machines()[index]["disk"])

    def disk_holds_image(self, index: int) -> bool:
        """Say whether the image is on a server's disk, byte for byte."""
        return self.disk_sha256(index) == self.image_sha256

    def console(self, index: int) -> str:
        """Return what a simulated server wrote on its console."""
        return (self.rack / "console" / f"sim-{index + 1}.log").read_text()

    def disk_is_empty(self, index: int) -> bool:
        """Say whether every byte of a server's disk is zero."""
        return is_empty(self.disk(index))

    # -- work --------------------------------------------------------------------------------

    def accept(self, count: int) -> None:
        """Take the first machines of the rack in as srv1, srv2, ..."""
        wait_for("the machines were discovered", self.discovered, 60, self.processes)
        self.set_bmc_secret(self.bmc_login()["password"])
        for number, machine in enumerate(self.machines()[:count], 1):
            rackmesh(
                "server", "accept", machine["mac"], f"srv{number}", "--bmc", machine["bmc"],
                "--bmc-secret", "rack-bmc", "--wait", "--timeout", "60", "--data", self.hub,
            )  # fmt: skip

    def set_bmc_secret(self, password: str, name: str = "rack-bmc") -> None:
        """Seal a BMC login to site two."""
        rackmesh(
            "secret", "set", name, "--site", "two", "--username",
            self.bmc_login()["username"], "--data", self.hub, stdin=password,
        )  # fmt: skip

    def order(self, *words: str | Path, data: Path | None = None) -> str:
        """Give an order by the command line; return its job."""
        said = run(*words, "--json", "--data", data or self.hub)
        assert said.code == 0, said.err
        return str(json.loads(said.out)["item"]["job"])

    def deploy_order(self, server: str, image: str = IMAGE, data: Path | None = None) -> str:
        """Order a deploy; return its job."""
        return self.order("server", "deploy", server, "--image", image, data=data)

    def ended(self, job: str, timeout_s: float = 60.0, data: Path | None = None) -> Any:
        """Wait until a job is over; return it."""
        at = data or self.two
        try:
            return wait_for(
                f"job {job} ended",
                lambda: (item := self.job(job, at))["state"] in ENDED and item,
                timeout_s,
                self.processes,
            )
        except DemoFailed as exc:
            logs = run("job", "logs", job, "--data", at)
            raise AssertionError(f"{exc}\n{json.dumps(self.job(job, at), indent=1)}\n"
                                 f"{logs.out}{logs.err}") from exc  # fmt: skip

    def succeeded(self, job: str, timeout_s: float = 60.0) -> Any:
        """Wait until a job has succeeded."""
        item = self.ended(job, timeout_s)
        assert item["state"] == "succeeded", item["error"]
        return item

    def make_available(self, server: str) -> None:
        """Release a server when it is deployed; leave it when it is available."""
        if self.server(server)["state"] != "available":
            self.succeeded(self.order("server", "release", server, "--yes"))

    def no_traceback(self) -> None:
        """Check that no process ever wrote one."""
        for log in self.folder.glob("*.log"):
            assert "Traceback" not in log.read_text(errors="replace"), log.name


@contextmanager
def fleet(folder: Path, servers: int = 2, image_mib: int = IMAGE_MIB) -> Generator[Fleet]:
    """Build a fleet, nothing started; stop all of it at the end."""
    made = Fleet(folder, servers, image_mib)
    try:
        yield made
    finally:
        made.processes.stop_all()
