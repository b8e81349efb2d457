"""Fetch Debian packages by name and unpack them, as root or not, without installing them.

It knows apt-get, dpkg and dpkg-deb. Rule: the system is not changed; without root apt works on
lists and caches of our own. When a package cannot be had the caller gets one sentence.
"""

import fcntl
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

SECONDS_MAX = 900


class NoPackages(Exception):
    """Debian packages cannot be had here; the text is one sentence for people."""


class Debian:
    """Packages of this machine's Debian release, kept under ``cache``.

    One process at a time uses a cache: another one waits here until the first has ended.
    """

    def __init__(self, cache: Path) -> None:
        self._debs = cache / "debs"
        self._state = cache / "apt"
        self._updated = False
        for tool in ("apt-get", "dpkg-deb", "dpkg"):
            if not shutil.which(tool):
                raise NoPackages(
                    f"the ramdisk is built from Debian packages, and {tool} is missing"
                )
        machine = subprocess.run(
            ["dpkg", "--print-architecture"], capture_output=True, text=True, check=True
        ).stdout.strip()
        if machine != "amd64":
            raise NoPackages(
                f"the ramdisk is built on amd64 machines only, this one is {machine}"
            )
        self._debs.mkdir(parents=True, exist_ok=True)
        self._lock = (cache / "lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"waiting for another build that uses {cache}", file=sys.stderr)
            fcntl.flock(self._lock, fcntl.LOCK_EX)

    def fetch(self, names: Sequence[str]) -> list[Path]:
        """Return the package files, downloaded in the version that apt prefers now."""
        run = self._apt("download", *names)
        if run.returncode:
            self._update()
            run = self._apt("download", *names)
        if run.returncode:
            why = " ".join((run.stderr.strip() or run.stdout.strip()).splitlines()[-1:])
            raise NoPackages(f"Debian packages ({' '.join(names)}) cannot be had: {why}")
        return [self._newest(name) for name in names]

    def fetch_kernel(self, name: str) -> Path:
        """Return the package that holds the kernel itself, behind metapackages."""
        for _ in range(3):
            (deb,) = self.fetch([name])
            depends = self._field(deb, "Depends")
            found = re.search(r"\blinux-image-[0-9][^\s,|]*", depends)
            if not found:
                return deb
            name = found[0].split(":")[0]
        raise NoPackages(f"no kernel behind the package {name}")

    def unpack(self, deb: Path, folder: Path) -> None:
        """Unpack a package's files into a folder."""
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run(["dpkg-deb", "-x", deb, folder], check=True, timeout=SECONDS_MAX)

    def _update(self) -> None:
        if not self._updated:
            self._apt("update")
            self._updated = True

    def _apt(self, *argv: str) -> subprocess.CompletedProcess[str]:
        options: list[str] = ["-o", "APT::Sandbox::User=root"]
        if os.geteuid() != 0:
            for part in ("lists/partial", "cache/archives/partial"):
                (self._state / part).mkdir(parents=True, exist_ok=True)
            options = [
                "-o", f"Dir::State={self._state}",
                "-o", f"Dir::State::lists={self._state}/lists",
                "-o", "Dir::State::status=/var/lib/dpkg/status",
                "-o", f"Dir::Cache={self._state}/cache", "-o", "Debug::NoLocking=1",
            ]  # fmt: skip
        return subprocess.run(
            ["apt-get", "-q", *options, *argv],
            cwd=self._debs,
            capture_output=True,
            text=True,
            timeout=SECONDS_MAX,
            check=False,
        )

    def _newest(self, name: str) -> Path:
        """apt leaves older versions in the folder: take the one that was touched last."""
        found = sorted(self._debs.glob(f"{name}_*.deb"), key=lambda deb: deb.stat().st_ctime_ns)
        if not found:
            raise NoPackages(f"apt-get said it downloaded {name}, but there is no such file")
        for old in found[:-1]:
            old.unlink()
        return found[-1]

    def _field(self, deb: Path, field: str) -> str:
        return subprocess.run(
            ["dpkg-deb", "-f", deb, field], capture_output=True, text=True, check=True
        ).stdout.strip()
