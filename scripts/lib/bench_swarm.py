"""The swarm: five nodes take one asset from a sixth, beside one plain copy and libtorrent.

A hub and six nodes of a site in namespaces on one bridge, each port shaped to ``--mbit`` both
ways. Every round takes a new asset, which one node holds, and all take their turn: a plain copy
over HTTP, ours (from the command ``asset want`` until the last node has the last chunk on its
disk) and libtorrent (from the start of the leeches' processes, the seed runs
already, until the last has all). ``ratio`` and ``libtorrent_ratio`` are medians over the median
plain copy. CPU is that of all processes (ours: the hub's too), by what the five received,
without shaping, with chunks in clear and with all of them encrypted.
``origin_ratio``: an asset by URL, bytes by the origin's own log.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

sys.path[:0] = [str(Path(__file__).resolve().parents[2]), str(Path(__file__).parent)]

from bench_idle import RACKMESH, START_S, Site, bridge, plug  # noqa: E402
from bench_idle import start as start_fleet  # noqa: E402
from bench_node import cpu_s  # noqa: E402
from demo_processes import Processes, rackmesh, say, wait_for  # noqa: E402

from tests.support.netns import namespace  # noqa: E402

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
        for number, node in enumerate(self.nodes):
            name = f"one-{number}"
            self.processes.stop(name)
            ports = self.folder / name / "run" / "ports.json"
            ports.unlink(missing_ok=True)
            run = [str(RACKMESH), "node", "run", "--data", str(self.folder / name)]
            process = self.processes.start(name, *node.argv(*run, "--config", str(config)))
            self.pids[number + 1] = process.pid
            wait_for(f"{name} runs", ports.exists, START_S, self.processes)

    def make_file(self) -> tuple[str, Path]:
        """Return the name and the file of a new asset."""
        self.count += 1
        name = f"asset-{self.count}"
        path = self.folder / "files" / name
        path.parent.mkdir(exist_ok=True)
        with path.open("wb") as file:
            for _ in range(self.mib):
                file.write(os.urandom(MIB))
        return name, path

    @contextmanager
    def origin(self, path: Path, at: int) -> Generator[tuple[str, Path]]:
        """Serve a file at the hub (0) or the first node; yield its URL and the bytes' log."""
        where, host = [(self.hub, HUB), (self.nodes[0], GIVER)][at]
        log, said = self.folder / "origin.bytes", self.folder / "origin.log"
        log.unlink(missing_ok=True)
        said.unlink(missing_ok=True)
        script = Path(__file__).with_name("demo_origin.py")
        words = [sys.executable, str(script), str(path), str(log), host]
        self.processes.start("origin", *where.argv(*words))
        port = wait_for("origin", lambda: said.read_text().strip(), 30, self.processes)
        try:
            yield f"http://{host}:{port}/{path.name}", log
        finally:
            self.processes.stop("origin")

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
        """Tell whether a node has every chunk of an asset durably, by its own marks."""
        bits = folder / "cache" / "assets" / asset.removeprefix("b3:") / "bits"
        try:
            return int.from_bytes(bits.read_bytes(), "big").bit_count() == self.mib
        except OSError:
            return False

    def let_go(self, folder: Path) -> str:
        """Let go of what nobody wants in a node's folder; return what that said."""
        return rackmesh("asset", "gc", "--data", folder)

    def seed(self, name: str) -> tuple[float, float]:
        """Return seconds and CPU seconds until every node of the site holds the asset."""
        used = sum(map(cpu_s, self.pids))
        began = time.monotonic()
        rackmesh("asset", "want", name, "one", "--data", self.data)
        asset = ""
        while not asset or not all(self.holds(folder, asset) for folder in self.folders):
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


@contextmanager
def ended(argv: list[str]) -> Generator[subprocess.Popen[bytes]]:
    """Run a process for the time of the block."""
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


def measure(bench: Bench, rounds: int, torrent: bool) -> dict[str, Any]:
    """Run all rounds; return the figures."""
    seconds: dict[str, list[float]] = {"plain": [], "ours": [], "libtorrent": []}
    cpu: dict[str, list[float]] = {"clear": [], "encrypted": [], "libtorrent": []}
    gib = bench.mib * NODES / 1024
    for number in range(rounds):
        name, path = bench.make_file()
        bench.give(name, path)
        bench.shape(True)
        seconds["plain"].append(bench.plain(path))
        seconds["ours"].append(bench.seed(name)[0])
        if torrent:
            seconds["libtorrent"].append(bench.torrent(path)[0])
        bench.shape(False)
        bench.forget(name)
        bench.give(name, path)
        cpu["clear"].append(bench.seed(name)[1] / gib)
        if torrent:
            cpu["libtorrent"].append(bench.torrent(path)[1] / gib)
        bench.forget(name)
        path.unlink()
        say(f"round {number + 1}: s {last(seconds)}, CPU s/GiB {last(cpu)}")
    bench.shape(True)
    origin_ratio = bench.by_url()
    bench.shape(False)
    bench.seal()
    for _ in range(rounds):
        name, path = bench.make_file()
        bench.give(name, path)
        cpu["encrypted"].append(bench.seed(name)[1] / gib)
        bench.forget(name)
        path.unlink()
    plain_s = statistics.median(seconds["plain"])
    found: dict[str, Any] = {
        "ratio": round(statistics.median(seconds["ours"]) / plain_s, 3),
        "best_ratio": round(min(seconds["ours"]) / min(seconds["plain"]), 3),
        "seconds": rounded(seconds), "cpu_s": rounded(cpu),
        "origin_ratio": round(origin_ratio, 4),
        "cpu_s_per_gib": round(statistics.median(cpu["clear"]), 2),
        "cpu_s_per_gib_encrypted": round(statistics.median(cpu["encrypted"]), 2),
    }  # fmt: skip
    if torrent:
        version = [SYSTEM_PYTHON, "-c", "import libtorrent; print(libtorrent.version)"]
        theirs = statistics.median(cpu["libtorrent"])
        found |= {
            "libtorrent_ratio": round(statistics.median(seconds["libtorrent"]) / plain_s, 3),
            "libtorrent_cpu_s_per_gib": round(theirs, 2),
            "cpu_ratio": round(statistics.median(cpu["clear"]) / theirs, 3),
            "libtorrent": subprocess.run(
                version, check=True, capture_output=True, text=True
            ).stdout.strip(),
        }  # fmt: skip
    return found


def last(figures: dict[str, list[float]]) -> dict[str, float]:
    """Return the newest of each."""
    return {name: round(values[-1], 2) for name, values in figures.items() if values}


def rounded(figures: dict[str, list[float]]) -> dict[str, list[float]]:
    """Return all of them as people read them."""
    return {name: [round(value, 2) for value in values] for name, values in figures.items()}


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--mbit", type=int, default=300)
    parser.add_argument("--mib", type=int, default=512, help="size of the asset")
    args = parser.parse_args()
    probe = [SYSTEM_PYTHON, "-c", "import libtorrent"]
    found = subprocess.run(probe, capture_output=True, check=False)
    if found.returncode:
        say("without libtorrent: apt-get install python3-libtorrent puts it beside us")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rackmesh-swarm")))
        bench = Bench(stack, folder, args.mbit, args.mib)
        figures = measure(bench, args.rounds, not found.returncode)
    print(json.dumps(figures | {"nodes": NODES, "mib": args.mib, "mbit": args.mbit}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
