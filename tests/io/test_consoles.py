"""Consoles by a node's socket, by a hub, and by the command line; a test plays the BMC."""

import json
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from quart.typing import TestWebsocketConnectionProtocol as Connection
from quart_trio import QuartTrio

from drivers.errors import DeviceRefused, DeviceUnreachable
from hub.app import make_app
from mesh.host.web_socket import MessageSocket
from mesh.rest.client import ApiError, Target
from mesh.rest.sockets import open_api_socket
from node import consoles
from tests.support.console_stream import FakeSerial, played
from tests.support.hub_bench import API_TOKEN, HUB, Bench, fill, hub_bench
from tests.support.node_api import NodeAt, node_api

BMC = {"url": FakeSerial.url, "secret": "bmc1"}


class Watched:
    """What one watcher has seen."""

    def __init__(self, receive: Callable[[], Any]) -> None:
        self._receive = receive
        self.data = b""
        self.status: dict[str, Any] = {}

    async def until(self, true: Callable[["Watched"], object]) -> "Watched":
        with trio.fail_after(20):
            while not true(self):
                message = await self._receive()
                assert message is not None, self.status
                if isinstance(message, bytes):
                    self.data += message
                else:
                    self.status = json.loads(message)
        return self

    async def until_open(self) -> "Watched":
        return await self.until(lambda seen: seen.status.get("state") == "open")

    async def until_ended(self) -> str:
        await self.until(lambda seen: seen.status.get("state") == "ended")
        return str(self.status["text"])


@asynccontextmanager
async def watching(
    at: NodeAt, server: str = "srv1", **query: bool
) -> AsyncGenerator[tuple[MessageSocket, Watched]]:
    path = f"/servers/{server}/console"
    socket = await open_api_socket(Target(socket=at.path), path, **query)
    try:
        yield socket, Watched(socket.receive)
    finally:
        await socket.aclose()


async def test_several_watch_one_writes_and_who_it_is_is_said(tmp_path: Path) -> None:
    async with node_api(tmp_path) as at:
        await at.put_server(1, bmc=BMC)
        async with watching(at, write=True) as (one, first), watching(at) as (two, second):
            await first.until_open()
            await at.serial.write(b"login: ")
            for seen in (first, second):
                await seen.until(lambda seen: seen.data == b"login: ")
            await second.until(lambda seen: seen.status["watchers"] == 2)
            assert (second.status["you_write"], second.status["writer"]) == (
                False, first.status["writer"],
            )  # fmt: skip
            await two.send(b"not me")
            await one.send(b"root\r")
            await at.serial.until(lambda: at.serial.typed)
            assert at.serial.typed == b"root\r"
            await two.send(json.dumps({"do": "write"}))
            await second.until(lambda seen: "is writing" in seen.status["text"])
            await two.send(json.dumps({"do": "take"}))
            await second.until(lambda seen: seen.status["you_write"])
            await two.send(json.dumps({"do": "break"}))
            await at.serial.until(lambda: at.serial.typed == b"root\r<break>")
            await one.send(b"nor me")
            for odd in ("", "[]", "{", json.dumps({"do": []}), "[" * 5000):
                await one.send(odd)
            async with watching(at) as (_, late):  # what was written before is here, too
                await late.until(lambda seen: seen.data == b"login: ")
            at.serial.say("the server sent a break")
            await first.until(lambda seen: "sent a break" in seen.status["text"])
            await at.serial.fail("ipmi://b: taken over")
            assert await first.until_ended() == "ipmi://b: taken over"
            assert await second.until_ended() == "ipmi://b: taken over"
        assert at.serial.opened == [False]
        assert at.serial.closed == 1
        assert at.serial.typed == b"root\r<break>"


async def test_a_console_stays_open_for_a_moment_and_is_then_given_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with node_api(tmp_path) as at:
        await at.put_server(1, bmc=BMC)
        async with watching(at) as (_, seen):
            await seen.until_open()
            await at.serial.write(b"before")
            await seen.until(lambda seen: seen.data == b"before")
        async with watching(at, steal=True) as (_, seen):  # the same conversation goes on
            await seen.until(lambda seen: seen.data == b"before")
        assert (at.serial.opened, at.serial.closed) == ([False], 0)
        monkeypatch.setattr(consoles, "GRACE_S", 0.0)
        async with watching(at) as (_, seen):
            await seen.until_open()
        await at.serial.until(lambda: at.serial.closed)
        async with watching(at, steal=True) as (_, seen):
            await seen.until_open()
        assert (at.serial.opened[0], at.serial.opened[-1]) == (False, True)


async def test_what_cannot_be_is_one_sentence_in_the_first_message(tmp_path: Path) -> None:
    async with node_api(tmp_path) as at:
        await at.put_server(1, bmc=None)
        await at.put_server(2, bmc=BMC)
        async with watching(at) as (_, seen):
            assert await seen.until_ended() == "srv1 has no BMC with a secret"
        at.serial.refusal = DeviceUnreachable("ipmi://b: no answer within 5 s")
        async with watching(at, "srv2") as (_, seen):
            assert await seen.until_ended() == "ipmi://b: no answer within 5 s"
        with pytest.raises(ApiError, match="there is no server 'nope'"):
            async with watching(at, "nope"):
                pass
        status, body = await at.ask("GET", "/servers/srv2/console")
        assert (status, body["code"]) == (400, "bad-request")
        assert "WebSocket" in body["detail"]


async def run_cli(at: NodeAt, stdin: bytes, *words: str) -> subprocess.CompletedProcess[bytes]:
    data = at.path.parent / "cli"
    (data / "run").mkdir(parents=True, exist_ok=True)
    (data / "run" / "api.sock").unlink(missing_ok=True)
    (data / "run" / "api.sock").symlink_to(at.path)
    argv = [sys.executable, "-m", "rackmesh", "server", "console", *words, "--data", str(data)]
    with trio.fail_after(60):
        return await trio.run_process(
            argv, stdin=stdin, capture_stdout=True, capture_stderr=True, check=False
        )


async def test_the_command_line_copies_its_input_and_output(tmp_path: Path) -> None:
    async with node_api(tmp_path) as at:
        await at.put_server(1, bmc=BMC)
        await at.serial.write(b"login: \xff\0")
        done = await run_cli(at, b"root\r~.", "srv1", "--linger", "0.5")
        assert (done.returncode, done.stdout) == (0, b"login: \xff\0"), done.stderr
        assert at.serial.typed == b"root\r~."
        assert b"console of srv1 is open; you write" in done.stderr
        done = await run_cli(at, b"x", "srv1", "--read-only", "--linger", "0.2")
        assert (done.returncode, at.serial.typed) == (0, b"root\r~."), done.stderr
        done = await run_cli(at, b"", "nope")
        assert (done.returncode, done.stdout) == (4, b"")
        assert b"there is no server" in done.stderr
        done = await run_cli(at, b"", "srv1", "--read-only", "--steal")
        assert done.returncode == 2
        await at.serial.fail("ipmi://b: closed")
        await at.serial.until(lambda: at.serial.closed)
        at.serial.refusal = DeviceRefused("ipmi://b: taken over")
        done = await run_cli(at, b"", "srv1", "--linger", "20", "--json")
        assert done.returncode == 1
        assert b"rackmesh: ipmi://b: taken over" in done.stderr
        assert b'"schema": "rackmesh/console/1"' in done.stderr


async def test_the_command_line_in_a_terminal_ends_by_its_escape(tmp_path: Path) -> None:
    async with node_api(tmp_path) as at:
        await at.put_server(1, bmc=BMC)
        data = tmp_path / "cli"
        (data / "run").mkdir(parents=True)
        (data / "run" / "api.sock").symlink_to(at.path)
        said = await trio.to_thread.run_sync(partial(in_terminal, data))
        assert at.serial.typed == b"\x03ls\r<break>", said
        assert b"[console of srv1 is open; you write; ~? for help]" in said
        assert b"a tilde" in said


def in_terminal(data: Path) -> bytes:
    """Type at the verb in a terminal of its own; return what it showed."""
    import os
    import pty
    import select

    pid, fd = pty.fork()
    if not pid:  # the child
        argv = [
            sys.executable,
            "-m",
            "rackmesh",
            "server",
            "console",
            "srv1",
            "--data",
            str(data),
        ]
        os.execv(sys.executable, argv)
    said, typed = b"", False
    while select.select([fd], [], [], 30)[0]:
        try:
            got = os.read(fd, 4096)
        except OSError:
            break
        said += got
        if not typed and b"for help" in said:
            os.write(fd, b"\x03ls\r~?~B~.")
            typed = True
    os.close(fd)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0, said
    return said


# -- by a hub --------------------------------------------------------------------------------


@asynccontextmanager
async def hub(
    folder: Path,
) -> AsyncGenerator[tuple[Bench, QuartTrio, FakeSerial, list[Any]]]:
    """A hub whose one node plays a server's console."""
    serial, opened = FakeSerial(), list[Any]()

    made = played(serial, BMC, HUB)

    async def on_stream(peer: str, body: Any, stream: Any) -> None:
        opened.append(body)
        await made.streams()["console"](peer, body, stream)

    async with hub_bench(folder) as bench, trio.open_nursery() as nursery:
        fill(bench)
        await bench.ingest.read_all()
        await nursery.start(made.run)
        bench.peers.streams["console"] = on_stream
        yield bench, make_app(bench.services), serial, opened
        nursery.cancel_scope.cancel()


def connect(app: QuartTrio, path: str = "web-1/console", **headers: str) -> Any:
    given = {"Authorization": f"Bearer {API_TOKEN}", "Host": "hub", **headers}
    return app.test_client().websocket(f"/api/v1/servers/{path}", headers=given)


async def seen_by(connection: Connection) -> Watched:
    return Watched(connection.receive)


async def test_a_hub_passes_a_console_on_and_says_who_watches(tmp_path: Path) -> None:
    async with hub(tmp_path) as (_, app, serial, opened):
        async with connect(app, "web-1/console?write=true") as connection:
            seen = await seen_by(connection)
            await seen.until_open()
            await serial.write(b"hello")
            await seen.until(lambda seen: seen.data == b"hello")
            await connection.send(b"typed")
            await serial.until(lambda: serial.typed == b"typed")
    assert opened[0]["who"] == seen.status["writer"]
    assert (opened[0]["server"], opened[0]["may_write"]) == ("s1", True)


async def test_a_hub_says_why_there_is_no_console(tmp_path: Path) -> None:
    async with hub(tmp_path) as (bench, app, _, opened):
        async with connect(app, "nope/console") as connection:
            assert "no server 'nope'" in await (await seen_by(connection)).until_ended()
        async with connect(app, Authorization="Bearer wrong") as connection:
            assert "API token is wrong" in await (await seen_by(connection)).until_ended()
        async with connect(app, Authorization="") as connection:
            assert "sign in first" in await (await seen_by(connection)).until_ended()
        bench.peers.streams.clear()
        async with connect(app) as connection:
            assert "is out of reach" in await (await seen_by(connection)).until_ended()
        bench.peers.links.clear()
        async with connect(app) as connection:
            seen = await seen_by(connection)
            assert "no node of site fra1 is in contact" in await seen.until_ended()
            assert seen.status["code"] == "unreachable"
        assert opened == []


async def test_a_viewer_watches_and_cannot_write(tmp_path: Path) -> None:
    async with hub(tmp_path) as (bench, app, serial, opened):
        _, text = await bench.services.api_tokens.create("eyes", "viewer", None, "test")
        as_viewer = {"Authorization": f"Bearer {text}"}
        async with connect(app, "web-1/console?write=true", **as_viewer) as connection:
            assert "needs the role operator" in await (await seen_by(connection)).until_ended()
        async with connect(app, **as_viewer) as connection:
            seen = await seen_by(connection)
            await seen.until_open()
            await connection.send(json.dumps({"do": "take"}))
            await seen.until(lambda seen: "role operator" in seen.status["text"])
            await connection.send(b"typed")
            await serial.write(b"quiet")
            await seen.until(lambda seen: seen.data == b"quiet")
        assert serial.typed == b""
        assert [one["may_write"] for one in opened] == [False]
