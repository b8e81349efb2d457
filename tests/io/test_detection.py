"""The failure detector over real links: processes that are killed, stopped, and come back."""

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio

ROOT = Path(__file__).parents[2]
LABELS = ("a", "b", "c", "d", "e")
START_S = 180.0
SEEN_S_MAX = 30.0
"""A verdict takes 5 s at most; here on a machine that others use too."""


class Watcher:
    """One process of tests/support/watcher.py and what it has said."""

    def __init__(self, label: str, labels: tuple[str, ...]) -> None:
        self.label = label
        self.said: list[tuple[float, str]] = []
        self._news = trio.Event()
        command = [sys.executable, "-m", "tests.support.watcher", label, *labels]
        self.process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    async def listen(self) -> None:
        assert self.process.stdout is not None
        stream = trio.lowlevel.FdStream(os.dup(self.process.stdout.fileno()))
        text = b""
        async with stream:
            async for data in stream:
                *lines, text = (text + data).split(b"\n")
                now = trio.current_time()
                self.said += [(now, line.decode()) for line in lines]
                self._news.set()

    async def wait_for(self, word: str, since: float = 0.0) -> tuple[float, str]:
        while True:
            for at, line in self.said:
                if at >= since and line.startswith(word):
                    return at, line
            self._news = trio.Event()
            await self._news.wait()

    def words(self) -> list[str]:
        return [line for _, line in self.said if line.startswith(("down", "up"))]

    def tell(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()


@asynccontextmanager
async def watchers(labels: tuple[str, ...] = LABELS) -> AsyncIterator[dict[str, Watcher]]:
    found = {label: Watcher(label, labels) for label in labels}
    try:
        async with trio.open_nursery() as nursery:
            for watcher in found.values():
                nursery.start_soon(watcher.listen)
            with trio.fail_after(START_S):
                ports = [(await w.wait_for("port"))[1].split()[1] for w in found.values()]
                for watcher in found.values():
                    watcher.tell(" ".join(ports))
                for watcher in found.values():
                    await watcher.wait_for("linked")
            yield found
            nursery.cancel_scope.cancel()
    finally:
        for watcher in found.values():
            watcher.process.kill()
            watcher.process.wait()
            for pipe in (watcher.process.stdin, watcher.process.stdout):
                assert pipe is not None
                pipe.close()


async def test_a_killed_process_is_seen_by_all_others_and_by_nobody_else():
    async with watchers() as site:
        killed_at = trio.current_time()
        site["c"].process.kill()
        with trio.fail_after(SEEN_S_MAX):
            seen = [
                (await watcher.wait_for("down c"))[0] - killed_at
                for label, watcher in site.items()
                if label != "c"
            ]
        print("a kill was seen after", [round(one, 2) for one in seen])
        for label, watcher in site.items():
            assert label == "c" or watcher.words() == ["down c"]


async def test_a_stopped_node_is_given_up_and_accuses_nobody_when_it_goes_on():
    async with watchers() as site:
        others = [watcher for label, watcher in site.items() if label != "d"]
        os.kill(site["d"].process.pid, signal.SIGSTOP)
        stopped_at = trio.current_time()
        with trio.fail_after(SEEN_S_MAX):
            seen = [(await watcher.wait_for("down d"))[0] - stopped_at for watcher in others]
        print("a stop was seen after", [round(one, 2) for one in seen])
        assert min(seen) > 2.5
        os.kill(site["d"].process.pid, signal.SIGCONT)
        with trio.fail_after(SEEN_S_MAX):
            for watcher in others:
                await watcher.wait_for("up d")
        killed_at = trio.current_time()
        site["d"].process.kill()  # what it had accused somebody of would be in its words
        with trio.fail_after(SEEN_S_MAX):
            for watcher in others:
                await watcher.wait_for("down d", since=killed_at)
        assert site["d"].words() == []
        for watcher in others:
            assert watcher.words() == ["down d", "up d", "down d"]


async def test_of_two_nodes_one_sees_the_other_go():
    async with watchers(("a", "b")) as site:
        site["b"].process.kill()
        with trio.fail_after(SEEN_S_MAX):
            await site["a"].wait_for("down b")
