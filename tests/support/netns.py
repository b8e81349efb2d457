"""Throw-away network namespaces, wired by veth pairs; they vanish with their process."""

import ctypes
import os
import subprocess
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager

CLONE_NEWNET = 0x40000000
LIBC = ctypes.CDLL(None, use_errno=True)


class Namespace:
    """One namespace, held open by a process of ours."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process

    def argv(self, *command: str) -> list[str]:
        return ["nsenter", "-t", str(self.process.pid), "-n", *command]

    def run(self, *command: str) -> str:
        return subprocess.run(
            self.argv(*command), check=True, capture_output=True, text=True, timeout=30
        ).stdout

    def entered(self) -> AbstractContextManager[None]:
        """Let this thread make its sockets in here."""
        return entered(f"/proc/{self.process.pid}/ns/net")


@contextmanager
def entered(path: str) -> Iterator[None]:
    """Let this thread make its sockets in the namespace of a path."""
    with ExitStack() as stack:
        before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        stack.callback(os.close, before)
        inside = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        stack.callback(os.close, inside)
        _set(inside)
        try:
            yield
        finally:
            _set(before)


def _set(descriptor: int) -> None:
    if LIBC.setns(descriptor, CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")


@contextmanager
def namespace(seconds: int = 300) -> Iterator[Namespace]:
    process = subprocess.Popen(
        ["unshare", "-n", "sh", "-c", f"echo ready; exec sleep {seconds}"],
        stdout=subprocess.PIPE,
    )
    with process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n", "no network namespace to be had"
            made = Namespace(process)
            made.run("ip", "link", "set", "lo", "up")
            yield made
        finally:
            process.kill()


def wire(one: Namespace, name: str, two: Namespace, other: str) -> None:
    """Join two namespaces by a cable."""
    peer = ["peer", "name", other, "netns", str(two.process.pid)]
    one.run("ip", "link", "add", name, "type", "veth", *peer)
    one.run("ip", "link", "set", name, "up")
    two.run("ip", "link", "set", other, "up")
