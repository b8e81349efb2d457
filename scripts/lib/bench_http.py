"""HTTP: the boot listener of a real node beside nginx, the same curl, the same file, in turns.

Every figure is the best and the median of ``--rounds`` rounds in which both take their turn;
MB/s is the sum over the clients, from the start of the first curl to the end of the last.

Herd: 200 curls from as many addresses ask a node for an image that it does not have and nobody
at its site wants; the node of another site has read it from the origin. ``herd_origin_ratio``
and ``herd_uplink_ratio`` are what the origin has sent by its own log, and what the asked node
has taken from other nodes, each by the size of the image.
"""

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

sys.path[:0] = [str(Path(__file__).resolve().parents[2]), str(Path(__file__).parent)]

from bench_node import bench_node, bench_sites, cpu_s  # noqa: E402
from debian import Debian  # noqa: E402
from demo_processes import wait_for  # noqa: E402

from tests.support.fleet import Fleet  # noqa: E402

HOST: Final = "127.0.0.1"
FILE: Final = "payload"
CLIENTS: Final = (1, 4)
CURL_S_MAX: Final = 300
CACHE: Final = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rackmesh"
NGINX_CONF: Final = """
daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{ worker_connections 1024; }}
http {{
  access_log off; sendfile on; tcp_nopush on; keepalive_timeout 60;
  client_body_temp_path {folder}/t1; proxy_temp_path {folder}/t2; fastcgi_temp_path {folder}/t3;
  uwsgi_temp_path {folder}/t4; scgi_temp_path {folder}/t5;
  server {{ listen 127.0.0.1:{port}; root {served}; }}
}}
"""


def start_nginx(stack: ExitStack, folder: Path, served: Path) -> tuple[int, int, str]:
    """Start nginx with one worker; return its port, its master's pid and its version."""
    debian = Debian(CACHE)
    (deb,) = debian.fetch(["nginx"])
    debian.unpack(deb, folder / "nginx")
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port = int(probe.getsockname()[1])
    conf = folder / "nginx.conf"
    conf.write_text(NGINX_CONF.format(folder=folder, port=port, served=served))
    program = folder / "nginx" / "usr" / "sbin" / "nginx"
    process = subprocess.Popen([str(program), "-c", str(conf), "-e", str(folder / "error.log")])
    stack.callback(process.wait, 10)
    stack.callback(process.terminate)
    for _ in range(100):
        with socket.socket() as probe:
            if probe.connect_ex((HOST, port)) == 0:
                return port, process.pid, deb.name.split("_")[1]
        time.sleep(0.05)
    raise RuntimeError("nginx does not listen")


def fetch(url: str, clients: int, size: int) -> float:
    """Fetch with so many curls at once; return MB/s in sum."""
    words = ["curl", "-sSf", "-o", os.devnull, "-w", "%{size_download}", url]
    began = time.monotonic()
    running = [
        subprocess.Popen(words, stdout=subprocess.PIPE, text=True) for _ in range(clients)
    ]
    said = [process.communicate(timeout=CURL_S_MAX)[0] for process in running]
    seconds = time.monotonic() - began
    if said != [str(size)] * clients:
        raise RuntimeError(f"{url}: curl got {said}")
    return size * clients / seconds / 1e6


def children_cpu_s(pid: int) -> float:
    """Return the processor time of a process and of those that it has started."""
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return cpu_s(pid) + sum(cpu_s(int(child)) for child in found)


def measure(args: argparse.Namespace, say: Callable[[str], None]) -> dict[str, Any]:
    """Run all rounds; return the figures."""
    size = args.mib << 20
    rates: dict[str, list[float]] = {}
    cpu: dict[str, float] = {"node": 0.0, "nginx": 0.0}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-http-")))
        folder.chmod(0o755)
        node = stack.enter_context(bench_node(folder / "fleet"))
        served = folder / "served"
        served.mkdir()
        with (served / FILE).open("wb") as out:
            for _ in range(args.mib):
                out.write(os.urandom(1 << 20))
        (node.boot / FILE).hardlink_to(served / FILE)
        port, pid, version = start_nginx(stack, folder, served)
        servers = {
            "node": (f"http://{HOST}:{node.ports['http']}/boot/v1/file/{FILE}", node.pid),
            "nginx": (f"http://{HOST}:{port}/{FILE}", pid),
        }
        for number in range(args.rounds):
            for clients in CLIENTS:
                for name in list(servers)[:: 1 if number % 2 else -1]:
                    url, server_pid = servers[name]
                    before = children_cpu_s(server_pid)
                    rate = fetch(url, clients, size)
                    cpu[name] += children_cpu_s(server_pid) - before
                    rates.setdefault(f"{name}_{clients}", []).append(rate)
            say(
                f"round {number + 1}: "
                + ", ".join(f"{k} {v[-1]:.0f}" for k, v in rates.items())
            )
    gib = args.rounds * sum(CLIENTS) * size / (1 << 30)
    return {
        **{
            f"ratio_{clients}": round(
                max(rates[f"node_{clients}"]) / max(rates[f"nginx_{clients}"]), 2
            )
            for clients in CLIENTS
        },
        "mb_per_s": {
            key: {"best": round(max(found)), "median": round(statistics.median(found))}
            for key, found in rates.items()
        },
        "cpu_s_per_gib": {name: round(used / gib, 3) for name, used in cpu.items()},
        "nginx": version,
        "nginx_conf": " ".join(NGINX_CONF.split()),
        "mib": args.mib,
    }


def residency(fleet: Fleet, site: str) -> dict[str, Any] | None:
    """Return how the image came to a site, once it is whole there."""
    rows = fleet.get(fleet.hub, "/assets/demo-os")["sites"]
    return next((r for r in rows if r["site"] == site and r["state"] == "verified"), None)


def herd(args: argparse.Namespace, say: Callable[[str], None]) -> dict[str, Any]:
    """Let many clients ask for one absent asset."""
    size = args.herd_mib << 20
    with tempfile.TemporaryDirectory(prefix="bench-herd-") as name:
        with bench_sites(Path(name) / "fleet", args.herd_mib) as fleet:
            asset = wait_for(
                "site two knows the image",
                lambda: (fleet.get(fleet.two, "/assets/demo-os") or {}).get("asset"),
                30,
                fleet.processes,
            )
            port = json.loads((fleet.two / "run" / "ports.json").read_text())["http"]
            url = f"http://{HOST}:{port}/assets/{asset}"
            began = time.monotonic()
            running = [
                subprocess.Popen(
                    ["curl", "-sSf", "--interface", f"127.1.{n // 200}.{1 + n % 200}",
                     "-o", os.devnull, "-w", "%{size_download}", url],
                    stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                )
                for n in range(args.clients)
            ]  # fmt: skip
            said = [process.communicate(timeout=CURL_S_MAX)[0] for process in running]
            seconds = time.monotonic() - began
            state = wait_for(
                "the hub knows that site two holds it",
                lambda: residency(fleet, "two"),
                30,
                fleet.processes,
            )
            say(f"herd of {args.clients}: {seconds:.1f} s, {state}")
            return {
                "herd_errors": sum(one != str(size) for one in said),
                "herd_origin_ratio": round(fleet.origin_bytes() / size, 4),
                "herd_uplink_ratio": round(state["peer_bytes"] / size, 4),
                "herd_s": round(seconds, 2),
                "herd_clients": args.clients,
            }


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--mib", type=int, default=1024, help="size of the file")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--clients", type=int, default=200, help="of the herd")
    parser.add_argument("--herd-mib", type=int, default=256, help="size of the absent image")
    args = parser.parse_args()

    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    print(json.dumps({**measure(args, say), **herd(args, say)}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
