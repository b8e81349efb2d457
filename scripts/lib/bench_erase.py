"""Lies that an erase may be told, and the speed of the overwrite beside dd.

Each lying kind of the simulated disks (node/rack/drive.py) is erased by each method that it
claims, by the ramdisk's own code; what that reports is judged as a node does. A lie counts as
accepted when both believe it. Honest disks are erased beside them, so that refusing everything
is no way to pass. The overwrite and dd write the same file in turn, with O_DIRECT.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from node.proto.erase_policy import erase_seed
from node.proto.evidence import missing_erase
from node.rack.drive import HONEST, LIARS, SimulatedDrive
from node.ramdisk.disk import DiskHandle
from node.ramdisk.erase import Wish, erase_disk
from node.ramdisk.errors import StepFailed
from node.ramdisk.hardware import OVERWRITE, Disk
from node.ramdisk.wipe import overwrite

MIB = 1 << 20
DISK_MIB = 64
SAMPLES = 256
OLD = os.urandom(MIB)
"""What stood on each disk before."""


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


class Silent:
    """Stands for Progress: nobody listens."""

    done = total = 0

    def begin(self, total: int) -> None:
        self.done, self.total = 0, total

    def add(self, count: int) -> None:
        self.done += count

    def tick(self) -> None:
        pass


def full_disk(path: Path, mib: int) -> Disk:
    """Return a disk that holds old data everywhere."""
    with path.open("wb") as file:
        for _ in range(mib):
            file.write(OLD)
        file.flush()
        os.fsync(file.fileno())
    return Disk("vda", str(path), "BENCH1", mib * MIB)


def verdict(folder: Path, kind: str, method: str) -> str | None:
    """Erase one disk of a kind; return why that is not believed, or None."""
    disk = full_disk(folder / "disk", DISK_MIB)
    asked = {
        "serial": disk.serial, "bytes": disk.bytes, "methods": [method], "samples": SAMPLES,
        "seed": erase_seed("bench", f"{kind}/{method}"),
    }  # fmt: skip
    wish = Wish(disk.serial, disk.bytes, (method,), SAMPLES, str(asked["seed"]))
    progress: Any = Silent()
    try:
        done = erase_disk(disk, SimulatedDrive(disk, kind, thawed=True), wish, progress)
    except StepFailed as exc:
        return str(exc)
    seen = {
        "serial": done.identity.serial, "bytes": done.identity.bytes, "method": done.method,
        "samples": done.samples, "markers": done.markers, "telling": done.telling, "kept": 0,
        "seed": wish.seed, "verified_bytes": done.verified_bytes, "pattern": done.pattern,
    }  # fmt: skip
    return missing_erase("bench", asked, seen)


def speeds(path: Path, mib: int, rounds: int) -> tuple[float, float]:
    """Return MB/s of our overwrite and of dd, medians of turns on the same file."""
    disk = full_disk(path, mib)
    ours: list[float] = []
    theirs: list[float] = []
    for _ in range(rounds):
        began = time.perf_counter()
        with DiskHandle(disk.path) as handle:
            progress: Any = Silent()
            overwrite(handle, progress)
            if not handle.direct:
                say("rackmesh: the file system takes no O_DIRECT; give --folder on a disk")
        ours.append(disk.bytes / 1e6 / (time.perf_counter() - began))
        began = time.perf_counter()
        subprocess.run(
            ["dd", "if=/dev/zero", f"of={path}", "bs=4M", f"count={mib // 4}", "oflag=direct",
             "conv=notrunc,fsync", "status=none"],
            check=True,
        )  # fmt: skip
        theirs.append(disk.bytes / 1e6 / (time.perf_counter() - began))
    return median(ours), median(theirs)


def main() -> int:
    """Print a table and the JSON object."""
    parser = argparse.ArgumentParser(prog="scripts/bench/erase", description=__doc__)
    parser.add_argument("--mib", type=int, default=1024, help="size of what is overwritten")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each writer")
    parser.add_argument("--folder", type=Path, help="on a real disk; default: the current one")
    options = parser.parse_args()
    accepted = honest_refused = 0
    with tempfile.TemporaryDirectory(dir=options.folder or Path.cwd()) as name:
        folder = Path(name)
        for kind, methods in LIARS.items():
            for method in (m for m in methods if m != OVERWRITE):
                why = verdict(folder, kind, method)
                accepted += why is None
                say(f"{kind:<20} {method:<22} {why or 'BELIEVED'}")
        honest = [(kind, method) for kind, methods in HONEST.items() for method in methods]
        for kind, method in honest:
            why = verdict(folder, kind, method)
            honest_refused += why is not None
            say(f"{kind:<20} {method:<22} {why or 'proved'}")
        ours, theirs = speeds(folder / "speed", options.mib, options.rounds)
    figures = {
        "lies_tried": len(LIARS),
        "lies_accepted": accepted,
        "honest_tried": len(honest),
        "honest_refused": honest_refused,
        "mb_per_s_overwrite": round(ours, 1),
        "mb_per_s_dd": round(theirs, 1),
        "ratio": round(ours / theirs, 3),
    }
    for key, value in figures.items():
        say(f"{key:<20} {value}")
    print(json.dumps(figures, sort_keys=True))
    return 1 if accepted or honest_refused else 0


if __name__ == "__main__":
    sys.exit(main())
