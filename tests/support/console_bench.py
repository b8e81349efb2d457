"""A hub's console over simulated rows, as a process of its own for tests with a browser.

``python -m tests.support.console_bench FOLDER`` serves the bench of ``hub_bench`` behind the
real doors, says its port and password as one JSON line, and takes commands as JSON lines:
rows that change, nodes that come and go, the clock that moves on.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trio

from drivers.errors import DeviceRefused
from hub.api.upload import Uploads
from hub.app import make_app
from hub.front import Front, WebSide, listen_tcp
from hub.tls import load_or_make_tls
from mesh.host.clock import SystemClock
from mesh.host.files import make_private_folder
from mesh.host.local_socket import listen_local
from tests.support.console_stream import Echo, played
from tests.support.hub_bench import HUB, Bench, Member, fill, hub_bench

ROOT = Path(__file__).resolve().parents[2]
BMC = {"url": "ipmi://127.0.0.9:623", "secret": "bmc1"}
PASSWORD = "correct horse battery"


@dataclass
class ConsoleBench:
    process: "subprocess.Popen[str]"
    port: int
    password: str = PASSWORD

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    def tell(self, **command: Any) -> None:
        """Change something; returns when the hub has taken it in."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        assert answer == "done\n", answer

    def put(self, scope: str, table: str, key: str, author: str = "", **body: Any) -> None:
        self.tell(do="put", scope=scope, table=table, key=key, author=author, body=body)

    def serial(self, **command: str) -> None:
        """Let the server's serial port ``write``, ``fail``, or ``refuse`` to be opened."""
        self.tell(do="serial", **command)

    def link(self, node: str, up: bool) -> None:
        self.tell(do="link", node=node, up=up)


@contextmanager
def console_bench(folder: Path, *flags: str) -> Iterator[ConsoleBench]:
    argv = [sys.executable, "-m", "tests.support.console_bench", str(folder), *flags]
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environ
    ) as process:
        try:
            assert process.stdout is not None
            yield ConsoleBench(process, **json.loads(process.stdout.readline()))
        finally:
            assert process.stdin is not None
            process.stdin.close()
            process.wait(10)


async def _serve(folder: Path, empty: bool) -> None:
    members = (Member(HUB, site="", roles=frozenset({"hub"})),) if empty else ()
    clock = SystemClock()
    async with (
        hub_bench(folder, *members, clock=clock) as bench,
        trio.open_nursery() as nursery,
    ):
        if not empty:
            fill(bench)
        now_ms = bench.services.clock.now_ms()
        await bench.services.accounts.create("admin", "admin", PASSWORD)
        await nursery.start(bench.ingest.run)
        nursery.start_soon(bench.services.live.run)
        serial = Echo()
        consoles = played(serial, BMC, HUB)
        await nursery.start(consoles.run)
        bench.peers.streams |= consoles.streams()
        tls = load_or_make_tls(make_private_folder(folder / "tls"), ["127.0.0.1"], now_ms)
        web = WebSide(make_app(bench.services), Uploads(bench.services))
        port = await listen_tcp("127.0.0.1", 0)
        local = await listen_local(folder / "api.sock")
        await nursery.start(Front(web, tls, _no_mesh).serve, port, local)
        print(json.dumps({"port": port.socket.getsockname()[1]}), flush=True)
        async for line in trio.wrap_file(sys.stdin):
            await _obey(bench, serial, json.loads(line))
            print("done", flush=True)
        nursery.cancel_scope.cancel()


async def _obey(bench: Bench, serial: Echo, command: dict[str, Any]) -> None:
    match command["do"]:
        case "serial":
            serial.refusal = DeviceRefused(command["refuse"]) if "refuse" in command else None
            if "write" in command:
                await serial.write(command["write"].encode())
            if "fail" in command:
                await serial.fail(command["fail"])
        case "put":
            author = command["author"] or "a" * 32
            bench.rows.put(
                command["scope"], command["table"], command["key"], author, **command["body"]
            )
            await bench.ingest.settle()
        case "link":
            if command["up"]:
                bench.peers.links[command["node"]] = None
            else:
                bench.peers.links.pop(command["node"], None)
            bench.peers.bump()
        case other:
            raise AssertionError(other)


async def _no_mesh(stream: Any) -> None:
    await stream.aclose()


if __name__ == "__main__":
    trio.run(_serve, Path(sys.argv[1]), "--empty" in sys.argv)
