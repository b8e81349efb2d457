"""TFTP: a real node beside atftpd and tftpd-hpa, the same client, the same file, in turns.

Every figure is the best and the median of ``--rounds`` rounds in which all servers take their
turn; MB/s is the sum over the clients. Loss is made in the client: of the packets that arrive
0.2 % are thrown away unseen. tftpd-hpa knows no window, so it is measured with a window of 1.
"""

import argparse
import json
import os
import random
import socket
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

sys.path[:0] = [str(Path(__file__).resolve().parents[2]), str(Path(__file__).parent)]

from bench_node import bench_node  # noqa: E402
from debian import Debian  # noqa: E402
from demo_processes import end  # noqa: E402

BLOCK_BYTES: Final = 1468
FILE: Final = "payload"
LOSS: Final = 0.002
CLIENT_S_MAX: Final = 120
HOST: Final = "127.0.0.1"
CACHE: Final = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rackmesh"


@dataclass
class Server:
    """A server: where it listens, and what it is."""

    name: str
    port: int
    version: str
    command: str
    found: dict[str, list[float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Case:
    """What is measured: which window, how many clients, how much loss; of which servers."""

    key: str
    window: int
    clients: int
    loss: float
    servers: tuple[str, ...]


CASES: Final = (
    Case("w1", 1, 1, 0.0, ("node", "atftpd", "hpa")),
    Case("w16", 16, 1, 0.0, ("node", "atftpd")),
    Case("w64", 64, 1, 0.0, ("node", "atftpd")),
    Case("c8_w16", 16, 8, 0.0, ("node", "atftpd")),
    Case("c8_w1", 1, 8, 0.0, ("node", "atftpd", "hpa")),
    Case("loss", 16, 1, LOSS, ("node", "atftpd")),
)


def unpacked(package: str, folder: Path) -> str:
    """Unpack a Debian package that cannot be installed beside the other; return its version."""
    debian = Debian(CACHE)
    (deb,) = debian.fetch([package])
    debian.unpack(deb, folder)
    return f"{package} {deb.name.split('_')[1]}"


def peers(stack: ExitStack, folder: Path, served: Path, ports: Sequence[int]) -> list[Server]:
    """Start the C servers; they are ended with the stack."""
    programs = folder / "peers"
    log = str(folder / "atftpd.log")
    found: list[Server] = []
    for package, name, port, words in (
        ("atftpd", "atftpd", ports[0], [
            "usr/sbin/atftpd", "--daemon", "--no-fork", "--port", str(ports[0]),
            "--bind-address", HOST, "--maxthread", "100", "--logfile", log,
        ]),
        ("tftpd-hpa", "hpa", ports[1], [
            "usr/sbin/in.tftpd", "-L", "-s", "-u", "root", "-a", f"{HOST}:{ports[1]}",
        ]),
    ):  # fmt: skip
        version = unpacked(package, programs)
        process = subprocess.Popen(
            [str(programs / words[0]), *words[1:], str(served)], stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        stack.callback(end, process)
        command = " ".join([words[0].rpartition("/")[2], *words[1:], "FOLDER"])
        found.append(Server(name, port, version, command.replace(log, "LOG")))
    return found


def read(client: Path, server: Server, case: Case, seed: int, size: int) -> float:
    """Read the file with a case's clients; return MB/s in sum."""
    run = subprocess.run(
        [str(client), HOST, str(server.port), FILE, str(BLOCK_BYTES), str(case.window),
         str(case.clients), str(case.loss), str(seed)],
        capture_output=True, text=True, timeout=CLIENT_S_MAX, check=False,
    )  # fmt: skip
    lines = [line.split() for line in run.stdout.splitlines()]
    whole = [line for line in lines if line[0] == str(size)]
    if run.returncode or len(whole) != case.clients or len({line[2] for line in whole}) != 1:
        raise RuntimeError(f"{server.name}, {case.key}: {run.stdout.strip() or run.stderr}")
    return size * case.clients / max(float(line[1]) for line in whole) / 1e6


def free_ports(count: int) -> list[int]:
    """Return UDP ports that are free now."""
    with ExitStack() as stack:
        socks = [
            stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            for _ in range(count)
        ]
        for sock in socks:
            sock.bind((HOST, 0))
        return [int(sock.getsockname()[1]) for sock in socks]


def measure(args: argparse.Namespace, say: Callable[[str], None]) -> dict[str, Any]:
    """Run all rounds; return the figures."""
    size = args.mib << 20
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-tftp-")))
        client = folder / "tftp_client"
        source = Path(__file__).with_name("tftp_client.c")
        subprocess.run(["gcc", "-O2", "-o", str(client), str(source)], check=True)
        node = stack.enter_context(bench_node(folder / "fleet"))
        served = folder / "served"
        served.mkdir()
        folder.chmod(0o755)  # the others serve as nobody
        (served / FILE).write_bytes(random.Random(args.seed).randbytes(size))
        (node.boot / FILE).hardlink_to(served / FILE)
        command = "rackmesh node run --boot-files FOLDER"
        ours = Server("node", node.ports["tftp"], "this tree", command)
        servers = [ours, *peers(stack, folder, served, free_ports(2))]
        for number in range(args.rounds):
            for case in CASES:
                for server in servers if number % 2 else reversed(servers):
                    if server.name in case.servers:
                        rate = read(client, server, case, args.seed + number, size)
                        server.found.setdefault(case.key, []).append(rate)
            say(f"round {number + 1}: " + ", ".join(
                f"{s.name} {k} {v[-1]:.0f}" for s in servers for k, v in s.found.items()
            ))  # fmt: skip
    return figures(servers)


def figures(servers: Sequence[Server]) -> dict[str, Any]:
    """Return best and median of each server and case, and the ratios of the best."""
    best = {(s.name, key): max(rates) for s in servers for key, rates in s.found.items()}
    ratios = {
        "w1_ratio": ("w1", "hpa"),
        "w16_ratio": ("w16", "atftpd"),
        "w64_ratio": ("w64", "atftpd"),
        "c8_w16_ratio": ("c8_w16", "atftpd"),
        "c8_w1_ratio": ("c8_w1", "hpa"),
        "loss_ratio": ("loss", "atftpd"),
    }
    return {
        **{
            name: round(best["node", key] / best[peer, key], 2)
            for name, (key, peer) in ratios.items()
        },
        "mb_per_s": {
            s.name: {
                key: {
                    "best": round(max(rates), 1),
                    "median": round(statistics.median(rates), 1),
                }
                for key, rates in s.found.items()
            }
            for s in servers
        },
        "peers": {s.name: {"version": s.version, "command": s.command} for s in servers},
        "block_bytes": BLOCK_BYTES,
        "loss": LOSS,
    }


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--mib", type=int, default=50, help="size of the file")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    print(json.dumps(measure(args, lambda text: print(text, file=sys.stderr, flush=True))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
