"""Resident memory of both roles beside a well-known peer in the same run (see scripts/bench).

The peer is dnsmasq where it is installed: a C program that does the smallest part of a node's
work (DHCP and TFTP); the ratio says what the rest costs.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import demo
from demo_processes import DemoFailed, rackmesh, say, wait_for

SERVERS = 10
SETTLE_S = 60.0


def rss_mib(pid: int) -> float:
    """Return the resident memory of a process and all its descendants, MiB."""
    total = 0.0
    status = Path(f"/proc/{pid}/status").read_text()
    for line in status.splitlines():
        if line.startswith("VmRSS:"):
            total += int(line.split()[1]) / 1024
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return total + sum(rss_mib(int(child)) for child in children)


def dnsmasq_mib(folder: Path) -> float | None:
    """Return dnsmasq's memory with an empty DHCP and TFTP service on loopback."""
    program = shutil.which("dnsmasq") or "/usr/sbin/dnsmasq"
    if not Path(program).exists():
        return None
    words = [program, "-k", "--port=0", "--conf-file=/dev/null", "--interface=lo"]
    words += ["--bind-interfaces", "--dhcp-range=127.99.0.10,127.99.0.20", "--pid-file="]
    words += ["--dhcp-alternate-port=16767,16768", f"--dhcp-leasefile={folder}/leases"]
    with subprocess.Popen(
        words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        time.sleep(1.0)
        try:
            return rss_mib(process.pid) if process.poll() is None else None
        finally:
            process.terminate()


def measure(settle_s: float) -> dict[str, Any]:
    """Run hub, node and rack; return the figures."""
    boot, image, _ = demo.prepare()
    with tempfile.TemporaryDirectory(prefix="rackmesh-footprint-") as name:
        run = demo.Demo(Path(name), boot, image, SERVERS)
        try:
            run.start_hub()
            run.start_node("one", run.one, "--subnet", "127.83.0.0/24")
            joined = time.monotonic()
            rackmesh("status", "--wait", "30", "--data", run.one)
            run.start_rack(run.one)
            run.start_origin()
            run.register_image()
            wait_for("ten machines were discovered", run.discovered, 120, run.processes)
            time.sleep(max(0.0, settle_s - (time.monotonic() - joined)))
            run.processes.check()
            pids = {name: process.pid for name, process in run.processes.running.items()}
            figures: dict[str, Any] = {
                "node_rss_mib": round(rss_mib(pids[run.one.name]), 1),
                "hub_rss_mib": round(rss_mib(pids["hub"]), 1),
                "servers": SERVERS,
                "settle_s": settle_s,
            }
            peer = dnsmasq_mib(Path(name))
            figures["dnsmasq_rss_mib"] = peer and round(peer, 1)
            figures["node_ratio"] = peer and round(figures["node_rss_mib"] / peer, 1)
            return figures
        finally:
            run.processes.stop_all()


def main() -> int:
    """Print a table and the JSON object."""
    parser = argparse.ArgumentParser(prog="scripts/bench/footprint", description=__doc__)
    parser.add_argument("--settle", type=float, default=SETTLE_S, help="seconds after the join")
    options = parser.parse_args()
    try:
        figures = measure(options.settle)
    except DemoFailed as exc:
        say(f"rackmesh: the bench failed: {exc}")
        return 1
    for key, value in figures.items():
        say(f"{key:<16} {value}")
    print(json.dumps(figures, sort_keys=True))
    return 0


if __name__ == "__main__":
    sys.exit(main())
