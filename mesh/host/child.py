"""Runs a program that is not ours to its end, fenced in: the one way to do so.

    out = await run_child(["/usr/bin/qemu-img", ...], folder, ChildLimits(memory_bytes=1 << 30))

``run_told`` is for programs whose work is on the network (ssh, ansible): with the host's
network, a few variables of environment, and every way of ending told. It knows no program.
Rules: argv is a list and the program an absolute path; it works in a
folder of its own, as user ``nobody`` where we are root, with an empty environment, without a
network (its own namespaces; ``sees_no_network`` says whether the kernel gave them), under
limits of memory, processor time, file size and open files; it is a process group of its own
that dies with us, at its time limit, and when what it prints is too long; its last words on
standard error are the sentence of its failure. What it leaves in its folder is as hostile as
what it was given.
"""

import json
import os
import pwd
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Final

import trio

SENTENCE_CHARS_MAX: Final = 300
PIECE_BYTES: Final = 4096
PROCESSES_MAX: Final = 256
"""Of user nobody, threads counted; only where we are root: it counts all of a user."""
NOBODY: Final = (65534, 65534)


class ChildFailed(Exception):
    """The program did not do its work; ``str(error)`` is one sentence. Its folder may hold
    anything."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildLimits:
    """What a program may take at most."""

    memory_bytes: int = 1 << 30  # address space, so a multiple of what it really uses
    cpu_s: int = 600
    file_bytes: int = 1 << 30  # each file that it writes
    open_files: int = 64
    time_s: float = 1800.0
    output_bytes: int = 64 << 10  # of standard output, and of standard error

    def rlimits(self) -> dict[str, int]:
        """Return them by the names that the kernel knows."""
        found = {
            "RLIMIT_AS": self.memory_bytes,
            "RLIMIT_CPU": self.cpu_s,
            "RLIMIT_FSIZE": self.file_bytes,
            "RLIMIT_NOFILE": self.open_files,
            "RLIMIT_CORE": 0,
        }
        return {**found, "RLIMIT_NPROC": PROCESSES_MAX} if os.geteuid() == 0 else found


@dataclass(slots=True)
class Told:
    """How a program ended, and the beginning and end of what it printed on both outputs."""

    keep_bytes: int
    code: int | None = None
    """Exit code, negative for a signal; None: it did not end in time and was stopped."""
    head: bytearray = field(default_factory=bytearray)
    tail: bytearray = field(default_factory=bytearray)
    dropped: int = 0
    """Bytes between the two that nobody kept."""

    def take(self, piece: bytes) -> None:
        """Keep what there is room for."""
        room = self.keep_bytes - len(self.head)
        self.head += piece[:room]
        self.tail += piece[max(room, 0) :]
        over = max(len(self.tail) - self.keep_bytes, 0)
        self.dropped += over
        del self.tail[:over]


def nobody() -> tuple[int, int] | None:
    """Return (uid, gid) that children run as, None for our own: only root can change it."""
    if os.geteuid() != 0:
        return None
    try:
        found = pwd.getpwnam("nobody")
    except KeyError:
        return NOBODY
    return found.pw_uid, found.pw_gid


async def run_child(argv: Sequence[str], folder: Path, limits: ChildLimits) -> bytes:
    """Run a program to its end; return its standard output, or raise ChildFailed.

    The folder must be one that the child may work in (``nobody`` owns it where we are root).
    """
    assert os.path.isabs(argv[0]), "a program is named by its path"
    told = {
        "parent": os.getpid(), "folder": str(folder), "user": nobody(), "argv": list(argv),
        "limits": limits.rlimits(),
    }  # fmt: skip
    with _started(json.dumps(told)) as process:
        try:
            return await _watch(process, Path(argv[0]).name, limits)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


async def run_told(
    argv: Sequence[str], folder: Path, limits: ChildLimits, env: Mapping[str, str]
) -> Told:
    """Run a program with the network to its end; tell how it ended.

    Of what it prints, ``limits.output_bytes`` are kept of the beginning and of the end. The
    folder is as for ``run_child``; ``env`` is seen by everybody who sees the process.
    """
    assert os.path.isabs(argv[0]), "a program is named by its path"
    told = json.dumps({
        "parent": os.getpid(), "folder": str(folder), "user": nobody(), "argv": list(argv),
        "limits": limits.rlimits(), "network": True, "env": dict(env),
    })  # fmt: skip
    ended = Told(limits.output_bytes)
    with _started(told, subprocess.STDOUT) as process:
        try:
            assert process.stdout is not None
            with trio.move_on_after(limits.time_s):
                stream = trio.lowlevel.FdStream(os.dup(process.stdout.fileno()))
                async with stream:
                    while piece := await stream.receive_some(PIECE_BYTES):
                        ended.take(piece)
                ended.code = await _ended(process, limits.time_s)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    return ended


def _started(told: str, errors: int = subprocess.PIPE) -> subprocess.Popen[bytes]:
    """Start the child; not in a thread, for it dies with the thread that made it."""
    return subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _start_text(), told],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors,
        start_new_session=True, env={}, cwd="/",
    )  # fmt: skip


async def _watch(process: subprocess.Popen[bytes], name: str, limits: ChildLimits) -> bytes:
    out, err = bytearray(), bytearray()
    assert process.stdout is not None
    assert process.stderr is not None
    most = limits.output_bytes
    with trio.move_on_after(limits.time_s) as clock:
        async with trio.open_nursery() as nursery:
            for pipe, into in ((process.stdout, out), (process.stderr, err)):
                nursery.start_soon(_read, pipe.fileno(), into, most, nursery.cancel_scope)
    if max(len(out), len(err)) > most:
        raise ChildFailed(f"{name} prints over {most} bytes; it was stopped")
    if clock.cancelled_caught:
        raise ChildFailed(f"{name} did not end within {limits.time_s:.0f} s")
    code = await _ended(process, limits.time_s)
    if code is None:
        raise ChildFailed(f"{name} closed its output and did not end; it was stopped")
    if code:
        raise ChildFailed(f"{name}: {_last_words(bytes(err)) or _by_code(code)}")
    return bytes(out)


async def _read(
    descriptor: int, into: bytearray, most: int, all_of_it: trio.CancelScope
) -> None:
    """Read a pipe to its end; when it brings too much, end all reading."""
    stream = trio.lowlevel.FdStream(os.dup(descriptor))
    async with stream:
        while len(into) <= most:
            piece = await stream.receive_some(PIECE_BYTES)
            if not piece:
                return
            into += piece
    all_of_it.cancel()


async def _ended(process: subprocess.Popen[bytes], time_s: float) -> int | None:
    """Wait for the end; return the exit code, None when it does not come."""
    descriptor = os.pidfd_open(process.pid)
    try:
        with trio.move_on_after(time_s):
            await trio.lowlevel.wait_readable(descriptor)
        return process.poll()
    finally:
        os.close(descriptor)


def _last_words(text: bytes) -> str:
    lines = text.decode("utf-8", "replace").strip().splitlines()
    last = lines[-1] if lines else ""
    return "".join(c for c in last if c.isprintable())[:SENTENCE_CHARS_MAX]


def _by_code(code: int) -> str:
    if code < 0:
        with suppress(ValueError):
            return f"ended by {signal.Signals(-code).name}"
    return f"ended with code {code}"


@cache
def _start_text() -> str:
    return files("mesh.host").joinpath("child_start.py").read_text()


async def sees_no_network(folder: Path) -> bool:
    """Tell whether children have a network namespace of their own here."""
    try:
        seen = await run_child(
            ["/usr/bin/readlink", "/proc/self/ns/net"], folder, ChildLimits(time_s=10.0)
        )
    except ChildFailed:
        return False
    return seen.decode("ascii", "replace").strip() != os.readlink("/proc/self/ns/net")
