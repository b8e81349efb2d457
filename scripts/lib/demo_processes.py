"""Processes of the demo: started in the background, found again by their pid files, stopped."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
RACKMESH = ROOT / ".venv" / "bin" / "rackmesh"
NAMESPACES = "namespaces"
"""File in the demo's folder: network namespaces that it made, one a line."""


class DemoFailed(Exception):
    """The demo cannot go on; one sentence."""


class Processes:
    """Background processes with a log and a pid file each, below one folder.

    ``prefix``: words before every command, to run it in a namespace.
    """

    def __init__(self, folder: Path, prefix: tuple[str, ...] = ()) -> None:
        self.folder = folder
        self.prefix = prefix
        self.running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, *argv: str | Path) -> subprocess.Popen[bytes]:
        """Start a process; its output goes to NAME.log."""
        log = (self.folder / f"{name}.log").open("ab")
        process = subprocess.Popen(
            [*self.prefix, *(str(word) for word in argv)], stdin=subprocess.DEVNULL, stdout=log,
            stderr=log, cwd=ROOT, start_new_session=True,
        )  # fmt: skip
        log.close()
        self.running[name] = process
        note_pid(self.folder, name, process.pid)
        return process

    def check(self) -> None:
        """Fail when one of them has ended by itself."""
        for name, process in self.running.items():
            if process.poll() is not None:
                tail = (self.folder / f"{name}.log").read_text(errors="replace")[-1500:]
                raise DemoFailed(f"{name} ended with code {process.returncode}:\n{tail}")

    def stop(self, name: str, timeout_s: float = 20.0) -> None:
        """End one process and wait for it."""
        end(self.running.pop(name), timeout_s)
        (self.folder / f"{name}.pid").unlink(missing_ok=True)

    def stop_all(self) -> None:
        """End all processes, the last one first."""
        for name in reversed(list(self.running)):
            self.stop(name)


def end(process: subprocess.Popen[bytes], timeout_s: float = 20.0) -> None:
    """End a process that we started and wait for it; kill it when that takes too long."""
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def note_pid(folder: Path, name: str, pid: int) -> None:
    """Write the file by which a later run finds a process."""
    (folder / f"{name}.pid").write_text(f"{pid} {_born(pid)}")


def stop_earlier(folder: Path) -> int:
    """End what an earlier run left up, its namespaces too; return how many processes."""
    count = 0
    for file in folder.glob("*.pid"):
        pid, _, born = file.read_text().partition(" ")
        if pid.isdigit() and _born(int(pid)) == born and born:
            os.kill(int(pid), signal.SIGTERM)
            count += 1
            end = time.monotonic() + 20
            while _born(int(pid)) == born and time.monotonic() < end:
                time.sleep(0.05)
            if _born(int(pid)) == born:
                os.kill(int(pid), signal.SIGKILL)
        file.unlink(missing_ok=True)
    left = folder / NAMESPACES
    for name in left.read_text().split() if left.exists() else ():
        subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)
    return count


def _born(pid: int) -> str:
    """Return the start time of a process, so that a pid that was given anew is not ours."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] == "Z" else fields[19]


def rackmesh(
    *words: str | Path,
    stdin: str | None = None,
    quiet: bool = True,
    prefix: tuple[str, ...] = (),
) -> str:
    """Run a rackmesh command as an operator would; return what it printed."""
    done = subprocess.run(
        [*prefix, str(RACKMESH), *map(str, words)], input=stdin, text=True, cwd=ROOT,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE if quiet else None, check=False,
    )  # fmt: skip
    if done.returncode:
        reason = (done.stderr or done.stdout or "").strip()
        raise DemoFailed(f"rackmesh {' '.join(str(w) for w in words)}: {reason}")
    return done.stdout


def ask(*words: str | Path) -> Any:
    """Run a command with --json and decode its answer."""
    return json.loads(rackmesh(*words, "--json"))


def wait_for(
    what: str, check: Callable[[], Any], timeout_s: float, processes: Processes
) -> Any:
    """Return the first true answer; fail with one sentence after the time."""
    end, reason = time.monotonic() + timeout_s, ""
    while time.monotonic() < end:
        processes.check()
        try:
            if answer := check():
                return answer
        except DemoFailed as exc:
            reason = f" ({exc})"
        time.sleep(0.2)
    raise DemoFailed(f"{what}: not within {timeout_s:.0f} s{reason}")


def say(line: str) -> None:
    """Tell the person in front of the terminal."""
    print(line, file=sys.stderr, flush=True)
