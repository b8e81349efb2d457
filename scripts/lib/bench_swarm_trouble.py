"""The swarm when things go wrong, and over several sites: what leaves the origin then.

``origin_ratio_kill``: the node that reads the origin is killed (SIGKILL) when half is there and
stays away; bytes by the origin's own log. ``client_errors``: nodes that do not get the asset,
and errors shown. ``refetched_mib``: a node is killed while it fetches from the others, with
1 TiB of other assets in its cache; what stood in its file and not in its marks.
``restart_s``: from the start of its process until all of it runs.
``origin_ratio_sites``: four sites of two nodes.
"""

import json
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import blake3
from bench_idle import build
from bench_idle import start as start_fleet
from bench_swarm_fleet import HUB, LEASE_S, Bench, marks, origin_at, random_file, stored
from demo_processes import Processes, rackmesh, wait_for

from cache.files import AssetFiles
from cache.proto.manifest import CHUNK_BYTES, make_manifest

MIB: Final = 1 << 20
LIMIT_S: Final = 300.0
POLL_S: Final = 0.02
SITES: Final = dict.fromkeys(("one", "two", "three", "four"), 2)
HUGE_BYTES: Final = 256 << 30
HUGE_ASSETS: Final = 4


def kill_reader(bench: Bench) -> dict[str, Any]:
    """Kill the node that reads the origin at half time; the others go on without it."""
    name, path = bench.make_file()
    size = path.stat().st_size
    bench.shape(True)
    with bench.origin(path, 0) as (url, log):
        rackmesh("asset", "add", name, url, "--kind", "file", "--data", bench.data)
        rackmesh("asset", "want", name, "one", "--data", bench.data)
        partials = [f / "cache" / "partial" / name.encode().hex() for f in bench.folders]
        half = size // 2
        wait_for("half", lambda: most(partials)[0] >= half, LIMIT_S, bench.processes)
        victim = most(partials)[1]
        bench.kill(victim)
        others = [f for number, f in enumerate(bench.folders) if number != victim]
        asset, errors = "", set[str]()
        end = time.monotonic() + LIMIT_S
        while time.monotonic() < end:
            item = json.loads(rackmesh("asset", "show", name, "--json", "--data", bench.data))[
                "item"
            ]
            errors |= {str(where["error"]) for where in item["sites"] if where["error"]}
            asset = str(item["asset"] or "")
            if asset and all(bench.holds(folder, asset) for folder in others):
                break
            time.sleep(POLL_S)
        missing = [f for f in others if not asset or not bench.holds(f, asset)]
        sent = sum(json.loads(line)["bytes"] for line in log.read_text().splitlines())
    bench.shape(False)
    bench.run_node(victim)
    bench.forget(name)
    path.unlink()
    return {
        "origin_ratio_kill": round(sent / size, 4),
        "client_errors": len(missing) + len(errors),
    }


def most(paths: list[Path]) -> tuple[int, int]:
    """Return the length of the longest file, and which one that is."""
    sizes = [path.stat().st_size if path.exists() else 0 for path in paths]
    return max(sizes), sizes.index(max(sizes))


def kill_fellow(bench: Bench) -> dict[str, Any]:
    """Kill a node while it fetches from the others; count what it has to fetch twice."""
    victim = len(bench.folders) - 1
    folder = bench.folders[victim]
    bench.stop_node(victim)
    for index in range(HUGE_ASSETS):
        fill(folder / "cache" / "assets", index)
    config = bench.folder / "huge.toml"
    config.write_text(f"[cache]\nquota_gib = {HUGE_BYTES * HUGE_ASSETS >> 29}\n")
    bench.run_node(victim, "--config", str(config))
    name, path = bench.make_file()
    bench.give(name, path)
    bench.shape(True)
    rackmesh("asset", "want", name, "one", "--data", bench.data)
    asset = bench.asset_of(name)
    half = bench.mib // 2
    wait_for("half", lambda: stored(folder, asset) >= half, LIMIT_S, bench.processes)
    bench.kill(victim)
    refetched = stored(folder, asset) - marks(folder, asset)
    began = time.monotonic()
    bench.run_node(victim, "--config", str(config))
    restart_s = time.monotonic() - began
    wait_for("all is there", lambda: bench.holds(folder, asset), LIMIT_S, bench.processes)
    bench.shape(False)
    bench.forget(name)
    path.unlink()
    return {"refetched_mib": refetched, "restart_s": round(restart_s, 2)}


def fill(root: Path, index: int) -> None:
    """Put a sparse asset of 256 GiB there, whole: its chunks are zeros."""
    zeros = blake3.blake3(bytes(CHUNK_BYTES)).digest()
    sha256 = f"{index:064x}"  # what nobody checks again: the chunks are known one by one
    manifest = make_manifest(HUGE_BYTES, sha256, zeros * (HUGE_BYTES // CHUNK_BYTES))
    AssetFiles.create(root, manifest).close()


def by_sites(folder: Path, mib: int) -> float:
    """Let four sites of two nodes hold an asset by URL; return the origin's bytes over size."""
    folder.mkdir()
    with ExitStack() as stack:
        hub, sites = build(stack, LEASE_S, SITES)
        processes = Processes(folder)
        stack.callback(processes.stop_all)
        start_fleet(processes, folder, hub, sites)
        path, data = random_file(folder / "files" / "x", mib), folder / "hub"
        homes = [folder / f"{site}-{number}" for site in SITES for number in range(2)]
        with origin_at(processes, folder, hub, HUB, path) as (url, log):
            rackmesh("asset", "add", "x", url, "--kind", "file", "--data", data)
            for site in SITES:
                rackmesh("asset", "want", "x", site, "--data", data)
            wait_for("all hold it", lambda: held(data, homes, mib), LIMIT_S, processes)
            sent = sum(json.loads(line)["bytes"] for line in log.read_text().splitlines())
    return float(sent) / path.stat().st_size


def held(data: Path, homes: list[Path], mib: int) -> bool:
    """Tell whether every node has every chunk, by its own marks."""
    shown = json.loads(rackmesh("asset", "show", "x", "--json", "--data", data))
    asset = str(shown["item"]["asset"] or "")
    return bool(asset) and all(marks(home, asset) == mib for home in homes)
