"""HTTP/2 through Hypercorn with a reader that goes away, and one that takes nothing."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import h2.config
import h2.connection
import h2.events
import pytest
import trio
import trio.testing
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.trio.worker_context import WorkerContext

from hub import web_connection
from hub.front import web_config
from hub.web_connection import WebConnection


class GatedStream:
    """A TLS stream with ALPN h2 as Hypercorn sees it; its peer reads only while it is open."""

    def __init__(self, inner: trio.StapledStream[Any, Any]) -> None:
        self._inner = inner
        self.transport_stream = self
        self.opened = trio.Event()
        self.opened.set()
        self.aclose = inner.aclose
        self.receive_some = inner.receive_some

    @property
    def socket(self) -> Any:
        return self

    family = 1  # AF_UNIX

    def getpeername(self) -> str:
        return "peer"

    getsockname = getpeername

    def selected_alpn_protocol(self) -> str:
        return "h2"

    async def do_handshake(self) -> None:
        """Nothing to do: it is not encrypted."""

    async def send_all(self, data: bytes) -> None:
        await self.opened.wait()
        await self._inner.send_all(data)

    async def send_eof(self) -> None:
        await self._inner.send_eof()


class Client:
    """The browser's end."""

    def __init__(self, stream: trio.StapledStream[Any, Any]) -> None:
        self.stream = stream
        config = h2.config.H2Configuration(header_encoding="utf-8")
        self.h2 = h2.connection.H2Connection(config)
        self.heads: dict[int, dict[Any, Any]] = {}

    async def send(self) -> None:
        await self.stream.send_all(self.h2.data_to_send())

    async def ask(self, path: str) -> int:
        number = self.h2.get_next_available_stream_id()
        head = {":method": "GET", ":path": path, ":scheme": "https", ":authority": "hub"}
        self.h2.send_headers(number, list(head.items()), end_stream=True)
        await self.send()
        return number

    async def head(self, number: int) -> dict[Any, Any]:
        with trio.fail_after(5):
            while number not in self.heads:
                data = await self.stream.receive_some(65536)
                assert data, "the server closed the connection"
                for event in self.h2.receive_data(bytes(data)):
                    if isinstance(event, h2.events.ResponseReceived):
                        self.heads[event.stream_id] = dict(event.headers)
                await self.send()
        return self.heads[number]


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answer with the path as a header; end at a disconnect in whatever it does, as Quart."""

    async def answer() -> None:
        headers = [(b"x-path", scope["path"].encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"x"})
        nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(answer)
        while (await receive())["type"] != "http.disconnect":
            pass
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def connected() -> AsyncGenerator[tuple[Client, GatedStream]]:
    ours, theirs = trio.testing.memory_stream_pair()
    gate, client = GatedStream(theirs), Client(ours)
    context = WorkerContext(None)

    async def serve() -> None:
        await WebConnection(ASGIWrapper(app), web_config(), context, {}, gate)  # type: ignore

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        client.h2.initiate_connection()
        await client.send()
        assert (await client.head(await client.ask("/0")))["x-path"] == "/0"
        await settled()
        await client.stream.receive_some()
        yield client, gate
        await client.stream.aclose()


async def settled() -> None:
    await trio.testing.wait_all_tasks_blocked(0.02)


async def test_the_heads_after_a_reader_that_went_away_are_read_right() -> None:
    async with connected() as (client, gate):
        gate.opened = trio.Event()
        first = await client.ask("/1")
        await settled()
        gone = await client.ask("/2")
        await settled()
        client.h2.reset_stream(gone)
        await client.send()
        await settled()
        gate.opened.set()
        assert (await client.head(first))["x-path"] == "/1"
        for path in ("/2", "/3", "/2", "/1"):
            assert (await client.head(await client.ask(path)))["x-path"] == path


async def test_who_takes_nothing_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web_connection, "SEND_S_MAX", 0.05)
    with trio.fail_after(5):
        async with connected() as (client, gate):
            gate.opened = trio.Event()
            await client.ask("/1")
            assert not await client.stream.receive_some()
