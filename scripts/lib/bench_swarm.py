"""The swarm: five nodes take one asset from a sixth, beside one plain copy and libtorrent.

A hub and six nodes of a site in namespaces on one bridge, each port shaped to ``--mbit`` both
ways. Every round takes a new asset, which one node holds, and all take their turn: a plain copy
over HTTP, ours (from the command ``asset want`` until the last node has the last chunk in its
file) and libtorrent (from the start of the leeches' processes, the seed runs
already, until the last has all). ``ratio`` and ``libtorrent_ratio`` are medians over the median
plain copy. CPU is that of all processes (ours: the hub's too), by what the five received,
without shaping, with chunks in clear and with all of them encrypted.
``origin_ratio``: an asset by URL, bytes by the origin's own log. What is killed, and what that
costs, says ``bench_swarm_trouble.py``.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parents[2]), str(Path(__file__).parent)]

from bench_swarm_fleet import NODES, SYSTEM_PYTHON, Bench  # noqa: E402
from bench_swarm_trouble import by_sites, kill_fellow, kill_reader  # noqa: E402
from demo_processes import say  # noqa: E402


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
    trouble = kill_reader(bench) | kill_fellow(bench)
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
        "origin_ratio": round(origin_ratio, 4), **trouble,
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
        bench.processes.stop_all()
        figures["origin_ratio_sites"] = round(by_sites(folder / "sites", args.mib), 4)
    print(json.dumps(figures | {"nodes": NODES, "mib": args.mib, "mbit": args.mbit}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
