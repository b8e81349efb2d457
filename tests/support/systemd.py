"""A real systemd as process 1 of namespaces of its own, for tests of our units.

    with systemd(tmp_path, readable=[REPOSITORY]) as manager:
        manager.run("systemctl", "start", "x.service")

It shares this machine's files, but /etc is a copy, /run and /var/lib are empty, and the network
is its own. Rules: whatever was started in it ends with it; of the machine's own units it sees
only empty targets, since those would clean /tmp, set kernel values or mount file systems here.
"""

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

SYSTEMD = Path("/lib/systemd/systemd")
START_S = 30.0
COMMAND_S = 60.0
POLL_S = 0.1

INSIDE = """
set -e
mount --make-rprivate /
mount -t proc proc /proc
cp -a /etc "$1/etc"
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/lock /run/stash
mount --bind "$1/etc" /etc
mkdir -p "$1/lib" && mount --bind "$1/lib" /var/lib
rm -rf /etc/systemd/system && mkdir /etc/systemd/system
mount -t tmpfs -o mode=755 tmpfs /lib/systemd/system
for name in sysinit basic sockets timers paths slices shutdown umount final local-fs network \
    multi-user test; do
    printf '[Unit]\nDescription=%s\nDefaultDependencies=no\n' $name \
        > /lib/systemd/system/$name.target
done
# What an ordinary user may not reach on this machine, but would on an installed one.
shift
n=0
for path in "$@"; do
    n=$((n + 1)); blocked=; at=
    for part in $(printf '%s' "$path" | tr / ' '); do
        at="$at/$part"
        [ -n "$blocked" ] || [ -n "$(find "$at" -maxdepth 0 -perm -o=x)" ] || blocked=$at
    done
    if [ -n "$blocked" ] && [ "$blocked" != "$path" ]; then
        mkdir -p /run/stash/$n && mount --bind "$path" /run/stash/$n
        mount -t tmpfs -o mode=755 tmpfs "$blocked"
        mkdir -p "$path" && mount --move /run/stash/$n "$path"
    fi
done
ip link set lo up
export container=other
exec /lib/systemd/systemd --system --unit=test.target --show-status=0
"""


class Manager:
    """The systemd that runs; ``run`` does a command beside it."""

    def __init__(self, pid: int, folder: Path) -> None:
        self.pid = pid
        self._folder = folder

    def log_file(self, name: str) -> Path:
        """Return where a unit may write its log (StandardError=append:...)."""
        return self._folder / f"{name}.log"

    def log(self, name: str) -> str:
        return self.log_file(name).read_text(errors="replace")

    def argv(self, *words: str | Path) -> list[str]:
        return ["nsenter", "-t", str(self.pid), "-p", "-m", "-u", "-i", "-n", *map(str, words)]

    def run(self, *words: str | Path, check: bool = True, stdin: str | None = None) -> str:
        done = subprocess.run(
            self.argv(*words), capture_output=True, text=True, timeout=COMMAND_S, check=False,
            input=stdin,
        )  # fmt: skip
        if check and done.returncode:
            raise RuntimeError(f"{words}: {done.stdout}{done.stderr}\n{self.ends()}")
        return done.stdout

    def show(self, unit: str) -> dict[str, str]:
        lines = self.run("systemctl", "show", unit).splitlines()
        return dict(line.split("=", 1) for line in lines if "=" in line)

    def wait(self, what: str, check: Callable[[], Any], timeout_s: float) -> Any:
        limit = time.monotonic() + timeout_s
        while time.monotonic() < limit:
            if answer := check():
                return answer
            time.sleep(POLL_S)
        raise TimeoutError(f"{what}: not within {timeout_s:.0f} s\n{self.ends()}")

    def ends(self) -> str:
        logs = sorted(self._folder.glob("*.log"))
        return "\n".join(f"--- {log.name}\n{self.log(log.stem)[-1500:]}" for log in logs)


def why_not() -> str | None:
    """Say why no systemd can be run here, or None."""
    if os.geteuid() != 0:
        return "needs root for namespaces"
    if not SYSTEMD.exists():
        return "systemd is not installed"
    missing = [name for name in ("unshare", "nsenter", "ip") if shutil.which(name) is None]
    return f"{missing[0]} is not installed" if missing else None


@contextmanager
def systemd(folder: Path, readable: Sequence[Path] = ()) -> Iterator[Manager]:
    """Run a systemd; ``readable``: folders that ordinary users must reach in it."""
    log = folder / "systemd.log"
    argv = ["unshare", "--fork", "--kill-child", "--pid", "--mount", "--uts", "--ipc", "--net",
            "--cgroup", "bash", "-c", INSIDE, "bash", str(folder),
            *map(str, readable)]  # fmt: skip
    with log.open("wb") as file:
        outer = subprocess.Popen(argv, stdout=file, stderr=file, stdin=subprocess.DEVNULL)
    try:
        manager = Manager(_child_of(outer, log), folder)
        manager.wait("systemd runs", lambda: _runs(manager), START_S)
        yield manager
    finally:
        outer.kill()
        outer.wait()


def _child_of(outer: "subprocess.Popen[bytes]", log: Path) -> int:
    children = Path(f"/proc/{outer.pid}/task/{outer.pid}/children")
    limit = time.monotonic() + START_S
    while time.monotonic() < limit and outer.poll() is None:
        if found := children.read_text().split():
            return int(found[0])
        time.sleep(POLL_S)
    raise RuntimeError(f"systemd did not start: {log.read_text()[-800:]}")


def _runs(manager: Manager) -> bool:
    state = manager.run("systemctl", "is-system-running", check=False).strip()
    return state in ("running", "degraded")
