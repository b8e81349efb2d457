"""One real node with its hub, as ``rackmesh`` starts them, for benches of the boot services."""

import json
import sys
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "scripts" / "lib")]

from tests.support.fleet import Fleet  # noqa: E402


@dataclass(frozen=True)
class BenchNode:
    """A running node: its ports by service, its folder of boot files, its process."""

    ports: dict[str, int]
    boot: Path
    pid: int
    fleet: Fleet


@contextmanager
def bench_node(folder: Path, *flags: str) -> Generator[BenchNode]:
    """Found an organisation, join a node and run it on loopback with free ports."""
    fleet = Fleet(folder, servers=0, image_mib=1)
    try:
        fleet.start_hub()
        fleet.join("one", fleet.one)
        fleet.run_node(fleet.one, *flags)
        ports = json.loads((fleet.one / "run" / "ports.json").read_text())
        pid = fleet.processes.running[fleet.one.name].pid
        yield BenchNode(ports, fleet.boot, pid, fleet)
    finally:
        fleet.close()


@contextmanager
def bench_sites(folder: Path, image_mib: int) -> Generator[Fleet]:
    """Run a hub and two sites of a node each; site one has read an image from its origin."""
    fleet = Fleet(folder, servers=0, image_mib=image_mib)
    try:
        fleet.start_hub()
        for site, data in (("one", fleet.one), ("two", fleet.two)):
            fleet.join(site, data)
            fleet.run_node(data)
        fleet.start_origin()
        for data in (fleet.one, fleet.two):
            fleet.wait_linked(data)
        fleet.register_image()
        yield fleet
    finally:
        fleet.close()


def cpu_s(pid: int) -> float:
    """Return the processor time that a process and its reaped children have used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / 100
