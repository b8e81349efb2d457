"""A process that has imported the whole program once, and forks daemons from it.

A start costs a fork instead of a second of imports, so that fourteen daemons on two cores are a
test and not a wait. Rules: a child is the program as ``rackmesh`` is, from the command line on,
in a session, a network namespace and a log file of its own; it dies with this process, and this
one ends when its standard input does, so nothing outlives the test.

    in   {"argv": [...], "log": path, "net": path or null}      out  {"pid": n}
                                                                out  {"ended": pid, "code": n}
"""

import ctypes
import gc
import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PR_SET_PDEATHSIG = 1
CLONE_NEWNET = 0x40000000


class Forge:
    """The forge as its user sees it."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT
        )
        self._ended: dict[int, int] = {}
        self._held = b""
        self._read(lambda said: "ready" in said, 60)

    def start(self, argv: list[str], log: Path, net: str | None = None) -> int:
        """Start ``rackmesh ARGV``; return its process id."""
        words = {"argv": argv, "log": str(log), "net": net}
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(words).encode() + b"\n")
        self._process.stdin.flush()
        return int(self._read(lambda said: "pid" in said, 30)["pid"])

    def wait(self, pid: int, timeout_s: float) -> int:
        """Return the exit code of a child, negative for a signal."""
        while pid not in self._ended:
            self._read(lambda said: said.get("ended") == pid, timeout_s)
        return self._ended[pid]

    def alive(self, pid: int) -> bool:
        """Tell whether a child runs."""
        self._read(lambda _: False, 0)
        return pid not in self._ended

    def close(self) -> None:
        """End all children."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(20)
        self._process.stdout.close()

    def _read(self, wanted: Any, timeout_s: float) -> dict[str, Any]:
        """Read what it says until something is wanted; {} when it is not said by then."""
        assert self._process.stdout is not None
        handle, end = self._process.stdout.fileno(), time.monotonic() + timeout_s
        while True:
            line, mark, rest = self._held.partition(b"\n")
            if mark:
                self._held = rest
                said = json.loads(line)
                if "ended" in said:
                    self._ended[said["ended"]] = said["code"]
                if wanted(said):
                    return dict(said)
                continue
            left = end - time.monotonic()
            if not select.select([handle], [], [], max(0.0, left))[0]:
                assert timeout_s == 0, f"the forge did not say so within {timeout_s} s"
                return {}
            data = os.read(handle, 65536)
            assert data, "the forge has ended"
            self._held += data


def main() -> None:
    """Serve until standard input ends."""
    sys.path.insert(0, str(ROOT))
    import hub.commands
    import hub.joining
    import hub.main
    import mesh.joining
    import node.commands
    import node.joining
    import node.main
    import rackmesh

    assert hub.main, (hub.commands, hub.joining, mesh.joining, node.commands, node.joining)
    assert node.main
    gc.collect()
    gc.freeze()
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_write, False)
    signal.set_wakeup_fd(wake_write)
    signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
    children: set[int] = set()
    say({"ready": True})
    held = b""
    while True:
        readable, _, _ = select.select([0, wake_read], [], [])
        if wake_read in readable:
            os.read(wake_read, 512)
        reap(children)
        if 0 in readable:
            data = os.read(0, 65536)
            if not data:
                break
            *lines, held = (held + data).split(b"\n")
            for line in lines:
                children.add(fork(json.loads(line), rackmesh.main))
    for pid in children:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def reap(children: set[int]) -> None:
    """Say which children have ended."""
    while children:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        children.discard(pid)
        say({"ended": pid, "code": os.waitstatus_to_exitcode(status)})


def fork(words: dict[str, Any], program: Any) -> int:
    """Start one child."""
    pid = os.fork()
    if pid:
        say({"pid": pid})
        return pid
    code = 1
    try:
        become(words)
        program()
        code = 0
    except SystemExit as exc:
        code = exc.code if isinstance(exc.code, int) else int(exc.code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def become(words: dict[str, Any]) -> None:
    """Make a process of its own out of the copy."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    os.setsid()
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    log = os.open(words["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.closerange(3, 64)
    if words["net"] is not None:
        inside = os.open(words["net"], os.O_RDONLY)
        if libc.setns(inside, CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "setns")
        os.close(inside)
    sys.argv = ["rackmesh", *words["argv"]]


def say(value: dict[str, Any]) -> None:
    """Tell our user."""
    os.write(1, json.dumps(value).encode() + b"\n")


if __name__ == "__main__":
    main()
