"""The wire and the fleet of the swarm bench, and what is done with them."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

sys.path[:0] = [str(Path(__file__).resolve().parents[2]), str(Path(__file__).parent)]

from bench_idle import RACKMESH, START_S, Site, bridge, plug  # noqa: E402
from bench_idle import start as start_fleet  # noqa: E402
from bench_node import cpu_s  # noqa: E402
from demo_processes import Processes, rackmesh, wait_for  # noqa: E402

from tests.support.netns import Namespace, namespace  # noqa: E402

NODES: Final = 5
MIB: Final = 1 << 20
HUB: Final = "10.90.0.1"
GIVER: Final = "10.90.0.2"
LEECHES: Final = [f"10.90.0.{number + 3}" for number in range(NODES)]
LIMIT_S: Final = 600.0
POLL_S: Final = 0.02
LEASE_S: Final = 7200
SYSTEM_PYTHON: Final = "/usr/bin/python3"


class Bench:
    """The wire, the fleet on it, and the rounds."""

    def __init__(self, stack: ExitStack, folder: Path, mbit: int, mib: int) -> None:
        self.stack, self.folder, self.mbit, self.mib = stack, folder, mbit, mib
        self.switch = stack.enter_context(namespace(LEASE_S))
        bridge(self.switch, "10.90.0.254/24")
        self.hub = stack.enter_context(namespace(LEASE_S))
        self.nodes = [stack.enter_context(namespace(LEASE_S)) for _ in range(NODES + 1)]
        for number, device in enumerate([self.hub, *self.nodes]):
            plug(self.switch, device, f"port{number}", "lan0", f"10.90.0.{number + 1}/24")
        self.processes = Processes(folder)
        stack.callback(self.processes.stop_all)
        site = Site("one", 1, self.switch, self.nodes)
        pids = start_fleet(self.processes, folder, self.hub, [site])
        self.pids = [self.processes.running["hub"].pid, *pids]
        self.data = folder / "hub"
        self.folders = [folder / f"one-{number}" for number in range(NODES + 1)]
        self.count = 0

    def shape(self, on: bool) -> None:
        """Cap every port both ways, or take the caps away."""
        ends = [(self.switch, f"port{number}") for number in range(NODES + 2)]
        ends += [(device, "lan0") for device in (self.hub, *self.nodes)]
        for where, name in ends:
            if on:
                where.run("tc", "qdisc", "add", "dev", name, "root", "tbf", "rate",
                          f"{self.mbit}mbit", "burst", "128kb", "latency", "50ms")  # fmt: skip
            else:
                where.run("tc", "qdisc", "del", "dev", name, "root")

    def seal(self) -> None:
        """Run the nodes anew, so that they give each other nothing in clear."""
        config = self.folder / "sealed.toml"
        config.write_text("[cache]\nclear = false\n")
        for number in range(NODES + 1):
            self.stop_node(number)
            self.run_node(number, "--config", str(config))

    def run_node(self, number: int, *flags: str) -> None:
        """Start a node that is stopped; return once it runs."""
        name, folder = f"one-{number}", self.folders[number]
        ports = folder / "run" / "ports.json"
        ports.unlink(missing_ok=True)
        run = [str(RACKMESH), "node", "run", "--data", str(folder), *flags]
        process = self.processes.start(name, *self.nodes[number].argv(*run))
        self.pids[number + 1] = process.pid
        wait_for(f"{name} runs", ports.exists, START_S, self.processes)

    def stop_node(self, number: int) -> None:
        """Stop a node in order."""
        self.processes.stop(f"one-{number}")

    def kill(self, number: int) -> None:
        """End a node as a power cut would."""
        process = self.processes.running.pop(f"one-{number}")
        process.kill()
        process.wait()

    def make_file(self) -> tuple[str, Path]:
        """Return the name and the file of a new asset."""
        self.count += 1
        name = f"asset-{self.count}"
        return name, random_file(self.folder / "files" / name, self.mib)

    @contextmanager
    def origin(self, path: Path, at: int) -> Generator[tuple[str, Path]]:
        """Serve a file at the hub (0) or the first node; yield its URL and the bytes' log."""
        where, host = [(self.hub, HUB), (self.nodes[0], GIVER)][at]
        with origin_at(self.processes, self.folder, where, host, path) as found:
            yield found

    def plain(self, path: Path) -> float:
        """Copy the file once over HTTP; return the seconds."""
        copy = self.folder / "copy"
        with self.origin(path, 1) as (url, _):
            began = time.monotonic()
            argv = self.nodes[1].argv("curl", "-sSf", "-o", str(copy), url)
            subprocess.run(argv, check=True, timeout=LIMIT_S)
            took_s = time.monotonic() - began
        copy.unlink()
        return took_s

    def give(self, name: str, path: Path) -> None:
        """Let the first node hold the asset, and no other one of the site."""
        rackmesh("asset", "add", name, path, "--kind", "file", "--data", self.data)
        self.seed(name)
        rackmesh("asset", "unwant", name, "one", "--data", self.data)
        for folder in self.folders[1:]:
            wait_for("it may go", lambda at=folder: name in self.let_go(at), 30, self.processes)

    def holds(self, folder: Path, asset: str) -> bool:
        """Tell whether a node has every chunk of an asset durably."""
        return marks(folder, asset) == self.mib

    def let_go(self, folder: Path) -> str:
        """Let go of what nobody wants in a node's folder; return what that said."""
        return rackmesh("asset", "gc", "--data", folder)

    def seed(self, name: str) -> tuple[float, float]:
        """Return seconds and CPU seconds until every node of the site has all of the asset.

        That is when the last verified chunk stands in its file; as with the peers, not when it
        is on the disk.
        """
        used = sum(map(cpu_s, self.pids))
        began = time.monotonic()
        rackmesh("asset", "want", name, "one", "--data", self.data)
        asset = ""
        while not asset or any(stored(f, asset) < self.mib for f in self.folders):
            assert time.monotonic() < began + LIMIT_S, f"{name} did not come"
            asset = asset or self.asset_of(name)
            time.sleep(POLL_S)
        took_s = time.monotonic() - began
        self.processes.check()
        return took_s, sum(map(cpu_s, self.pids)) - used

    def asset_of(self, name: str) -> str:
        """Return the id behind a name, empty while no hub has signed it."""
        shown = rackmesh("asset", "show", name, "--json", "--data", self.data)
        return str(json.loads(shown)["item"]["asset"] or "")

    def forget(self, name: str) -> None:
        """Let the asset go everywhere, from the disks too."""
        rackmesh("asset", "remove", name, "--data", self.data)
        for folder in [
            self.data,
            *(self.folder / f"one-{number}" for number in range(NODES + 1)),
        ]:
            rackmesh("asset", "gc", "--data", folder)

    def torrent(self, path: Path) -> tuple[float, float]:
        """Fetch the file by five leeches; return seconds and CPU seconds."""
        script = str(Path(__file__).with_name("swarm_torrent.py"))
        torrent = self.folder / "torrent"
        make = [SYSTEM_PYTHON, script, "make", str(path), str(torrent)]
        subprocess.run(make, check=True, timeout=LIMIT_S)
        with ExitStack() as stack:
            seed = ["seed", str(torrent), str(path.parent), GIVER]
            argv = self.nodes[0].argv(SYSTEM_PYTHON, script, *seed)
            giver = stack.enter_context(ended(argv))
            assert giver.stdout is not None
            giver.stdout.readline()
            began, peers = time.time(), [giver]
            for number, node in enumerate(self.nodes[1:]):
                folder = self.folder / f"leech{number}"
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                known = ",".join([GIVER, *(a for a in LEECHES if a != LEECHES[number])])
                words = ["leech", str(torrent), str(folder), LEECHES[number], known]
                argv = node.argv(SYSTEM_PYTHON, script, *words)
                peers.append(stack.enter_context(ended(argv)))
            last = max(float(peer.stdout.readline()) for peer in peers[1:] if peer.stdout)
            used = sum(cpu_s(peer.pid) for peer in peers)
        for number in range(NODES):
            shutil.rmtree(self.folder / f"leech{number}")
        return last - began, used

    def by_url(self) -> float:
        """Let the site hold an asset by URL; return the origin's bytes over its size."""
        name, path = self.make_file()
        with self.origin(path, 0) as (url, log):
            rackmesh("asset", "add", name, url, "--kind", "file", "--data", self.data)
            self.seed(name)
            sent = sum(json.loads(line)["bytes"] for line in log.read_text().splitlines())
        return float(sent) / path.stat().st_size


def random_file(path: Path, mib: int) -> Path:
    """Make a file of random bytes."""
    path.parent.mkdir(exist_ok=True)
    with path.open("wb") as file:
        for _ in range(mib):
            file.write(os.urandom(MIB))
    return path


def stored(folder: Path, asset: str) -> int:
    """Return the MiB of an asset that stand in a node's file."""
    data = folder / "cache" / "assets" / asset.removeprefix("b3:") / "data"
    return data.stat().st_blocks * 512 // MIB if data.exists() else 0


def marks(folder: Path, asset: str) -> int:
    """Return how many chunks of an asset a node has durably, by its own marks."""
    bits = folder / "cache" / "assets" / asset.removeprefix("b3:") / "bits"
    try:
        return int.from_bytes(bits.read_bytes(), "big").bit_count()
    except OSError:
        return 0


@contextmanager
def origin_at(
    processes: Processes, folder: Path, where: Namespace, host: str, path: Path
) -> Generator[tuple[str, Path]]:
    """Serve a file at an address; yield its URL and the log of bytes sent."""
    log, said = folder / "origin.bytes", folder / "origin.log"
    log.unlink(missing_ok=True)
    said.unlink(missing_ok=True)
    script = Path(__file__).with_name("demo_origin.py")
    words = [sys.executable, str(script), str(path), str(log), host]
    processes.start("origin", *where.argv(*words))
    port = wait_for("origin", lambda: said.read_text().strip(), 30, processes)
    try:
        yield f"http://{host}:{port}/{path.name}", log
    finally:
        processes.stop("origin")


@contextmanager
def ended(argv: list[str]) -> Generator[subprocess.Popen[bytes]]:
    """Run a process for the time of the block."""
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()
