"""Deploys of many servers at once, as an operator sees them (see scripts/bench).

A deploy counts from the order at the hub until the hub says that the job succeeded; then the
disk's first bytes must have the image's SHA-256, or there is no figure. The peer does the least
that anybody must do for the same end: fetch the bytes into a file and hash what was written.
"""

import argparse
import json
import math
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import demo
from demo_processes import DemoFailed, ask, rackmesh, say, wait_for

from mesh.rest.client import ApiClient, Target

SERVERS = 10
SITE = "one"
POLL_S = 0.2
LIMIT_S = 600.0


class Bench:
    """One run: a hub, a node, a rack beside it."""

    def __init__(self, folder: Path, boot: Path, image: Path, servers: int) -> None:
        self.run = demo.Demo(folder, boot, image, servers)
        self.names = [f"srv{number}" for number in range(1, servers + 1)]
        self.sha256 = demo.sha256(image, image.stat().st_size)

    def prepare(self) -> None:
        """Bring everything up, the image to the site, and take all servers in."""
        run = self.run
        run.start_hub()
        run.start_node(SITE, run.one, "--subnet", "127.84.0.0/24")
        rackmesh("status", "--wait", "30", "--data", run.one)
        run.start_rack(run.one)
        run.start_origin()
        run.register_image()
        say(f"waiting for {run.servers} servers to boot off the network and report")
        wait_for("the machines were discovered", run.discovered, 120, run.processes)
        login = json.loads((run.rack / "bmc-credentials.json").read_text())
        rackmesh(
            "secret", "set", "rack-bmc", "--site", SITE, "--username", login["username"],
            "--data", run.hub, stdin=login["password"],
        )  # fmt: skip
        with self.client() as client:
            for name, server in zip(self.names, self.servers(), strict=True):
                bmc = {"url": server["bmc"], "secret": "rack-bmc"}
                order(client, "server.accept", machine=server["mac"],
                      params={"name": name, "bmc": bmc})  # fmt: skip
        wait_for("all servers were accepted", self.accepted, 60, run.processes)

    def servers(self) -> list[dict[str, Any]]:
        """Return the rack's own list: MAC, BMC, disk file."""
        return json.loads((self.run.rack / "servers.json").read_text())

    def accepted(self) -> bool:
        """Tell whether the hub shows every server as one that can be deployed."""
        items = ask("server", "list", "--data", self.run.hub)["items"]
        return sum(item["state"] == "available" for item in items) == len(self.names)

    def client(self) -> "Client":
        """Return a client of the hub's API."""
        return Client(Target(socket=self.run.hub / "run" / "api.sock"))

    def deploy_all(self) -> tuple[list[float], float, list[dict[str, Any]]]:
        """Order all deploys at once; return seconds of each, of all, and the jobs."""
        with self.client() as client:
            began, ordered = time.monotonic(), {}
            for name in self.names:
                params = {"image": "demo-os", "hostname": f"{name}-bench"}
                at = time.monotonic()
                ordered[order(client, "server.deploy", server=name, params=params)] = at
            took: dict[str, float] = {}
            jobs: dict[str, dict[str, Any]] = {}
            while len(took) < len(ordered):
                time.sleep(POLL_S)
                self.run.processes.check()
                if time.monotonic() - began > LIMIT_S:
                    raise DemoFailed(f"{len(took)} of {len(ordered)} deploys in {LIMIT_S:g} s")
                for job in ordered.keys() - took.keys():
                    item = client.find(f"/jobs/{job}")
                    if item and item["item"]["state"] in ("failed", "cancelled"):
                        raise DemoFailed(f"job {job}: {item['item']['error']}")
                    if item and item["item"]["state"] == "succeeded":
                        took[job] = time.monotonic() - ordered[job]
                        jobs[job] = item["item"]
        return list(took.values()), time.monotonic() - began, list(jobs.values())

    def check_disks(self) -> None:
        """Fail unless every disk holds the image."""
        size = self.run.image.stat().st_size
        for server in self.servers():
            if demo.sha256(Path(server["disk"]), size) != self.sha256:
                raise DemoFailed(f"the disk of {server['mac']} does not hold the image")

    def peer(self) -> float:
        """Return the seconds of as many curls into files, each hashed then, all at once."""
        url, folder = self.run.origin_url(), self.run.folder / "peer"
        folder.mkdir()
        script = 'curl -fsS -o "$1" "$2" && sync "$1" && sha256sum "$1"'
        began = time.monotonic()
        running = [
            subprocess.Popen(
                ["sh", "-c", script, "sh", str(folder / name), url], stdout=subprocess.PIPE
            )
            for name in self.names
        ]
        for process in running:
            said, _ = process.communicate()
            if process.returncode or self.sha256.encode() not in said:
                raise DemoFailed("curl and sha256sum failed")
        took_s = time.monotonic() - began
        shutil.rmtree(folder)
        return took_s


class Client(ApiClient):
    """The API's client, as a block."""

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def order(client: ApiClient, kind: str, **body: Any) -> str:
    """Give an order; return its job."""
    answer = client.post("/orders", body | {"kind": kind}, secrets.token_hex(16))
    return str(answer["item"]["job"])


def step_table(jobs: list[dict[str, Any]]) -> None:
    """Print how long each step took, mean and worst, and what lies before and between them."""
    took: dict[str, list[float]] = defaultdict(list)
    for job in jobs:
        steps = [step for step in job["steps"] if step["started_ms"] and step["ended_ms"]]
        began = min(step["started_ms"] for step in steps)
        took["(before the first)"].append(began - job["created_ms"])
        for step in steps:
            took[step["name"]].append(step["ended_ms"] - step["started_ms"])
        whole = job["ended_ms"] - began
        took["(whole job from there)"].append(whole)
    for name, times in took.items():
        mean_s, worst_s = sum(times) / len(times) / 1000, max(times) / 1000
        say(f"  {name:<24} {mean_s:7.2f} s   {worst_s:7.2f} s at worst")


def measure(servers: int) -> dict[str, Any]:
    """Run everything; return the figures."""
    boot, image, kind = demo.prepare()
    with tempfile.TemporaryDirectory(prefix="rackmesh-deploys-") as name:
        bench = Bench(Path(name), boot, image, servers)
        try:
            bench.prepare()
            say(f"deploying {servers} servers at once")
            took, all_s, jobs = bench.deploy_all()
            step_table(jobs)
            bench.check_disks()
            peer_s = bench.peer()
        finally:
            bench.run.processes.stop_all()
    worst_first = sorted(took, reverse=True)
    return {
        "servers": servers,
        "image_bytes": image.stat().st_size,
        "image_kind": kind,
        "cores": os.cpu_count(),
        "all_s": round(all_s, 1),
        "deploys_per_min": round(60 * servers / all_s, 1),
        "p50_s": round(worst_first[servers // 2], 1),
        "p95_s": round(worst_first[servers - math.ceil(0.95 * servers)], 1),
        "curl_all_s": round(peer_s, 1),
        "ratio": round(all_s / peer_s, 2),
    }


def main() -> int:
    """Print a table and the JSON object."""
    parser = argparse.ArgumentParser(prog="scripts/bench/deploys", description=__doc__)
    parser.add_argument("--servers", type=int, default=SERVERS, help="deployed at once")
    options = parser.parse_args()
    if not shutil.which("curl"):
        say("rackmesh: curl is missing: apt-get install curl")
        return 1
    try:
        figures = measure(options.servers)
    except DemoFailed as exc:
        say(f"rackmesh: the bench failed: {exc}")
        return 1
    for key, value in figures.items():
        say(f"{key:<16} {value}")
    print(json.dumps(figures, sort_keys=True))
    return 0


if __name__ == "__main__":
    sys.exit(main())
