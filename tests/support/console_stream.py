"""A stream between members in one process, and a serial console that a test plays."""

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import trio

from drivers.errors import DeviceRefused
from mesh.errors import Unreachable
from node.consoles import Consoles


class StreamEnd:
    """One end of a stream of messages."""

    def __init__(self, out: Any, into: Any) -> None:
        self._out, self._into = out, into

    async def send(self, data: bytes) -> None:
        await self._out.send(data)

    async def receive(self) -> bytes:
        return bytes(await self._into.receive())

    def end(self) -> None:
        self._out.close()


def stream_pair() -> tuple[StreamEnd, StreamEnd]:
    to_left, left = trio.open_memory_channel[bytes](100)
    to_right, right = trio.open_memory_channel[bytes](100)
    return StreamEnd(to_right, left), StreamEnd(to_left, right)


@asynccontextmanager
async def fake_stream(
    handler: Any, node: str, body: Any, asker: str
) -> AsyncGenerator[StreamEnd]:
    """Give one end of a stream whose other end a handler of a node serves."""
    await trio.lowlevel.checkpoint()
    if handler is None:
        raise Unreachable(f"{node} is away")
    ours, theirs = stream_pair()

    async def serve() -> None:
        await handler(asker, body, theirs)
        theirs.end()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        yield ours
        nursery.cancel_scope.cancel()


class FakeSerial:
    """What a driver opens: the test writes as the server and reads what was typed."""

    url = "ipmi://127.0.0.9:623"

    def __init__(self) -> None:
        self.typed = bytearray()
        self.opened: list[bool] = []
        """``steal`` of each opening."""
        self.closed = 0
        self.refusal: Exception | None = None
        self.write_, self._written = trio.open_memory_channel[bytes | Exception](1000)
        self.say: Callable[[str], None] = lambda text: None
        self.changed = trio.Event()

    async def write(self, data: bytes) -> None:
        await self.write_.send(data)

    async def fail(self, sentence: str) -> None:
        await self.write_.send(DeviceRefused(sentence))

    async def receive(self) -> bytes:
        got = await self._written.receive()
        if isinstance(got, Exception):
            raise got
        return got

    async def send(self, data: bytes) -> None:
        await trio.lowlevel.checkpoint()
        self.typed += data
        self._tell()

    async def send_break(self) -> None:
        await self.send(b"<break>")

    def _tell(self) -> None:
        self.changed.set()
        self.changed = trio.Event()

    async def until(self, true: Callable[[], object]) -> None:
        with trio.fail_after(20):
            while not true():
                await self.changed.wait()

    @asynccontextmanager
    async def open(
        self, url: str, login: Mapping[str, object], /, *, steal: bool, say: Any
    ) -> AsyncGenerator["FakeSerial"]:
        await trio.lowlevel.checkpoint()
        if self.refusal is not None:
            raise self.refusal
        self.opened.append(steal)
        self.say = say
        try:
            yield self
        finally:
            self.closed += 1
            self._tell()


class NoStreams:
    """Links to nobody."""

    def stream(self, node_id: str, name: str, body: Any, timeout_s: float = 15.0) -> Any:
        return fake_stream(None, node_id, body, "")


class Echo(FakeSerial):
    """A server that writes back what is typed."""

    async def send(self, data: bytes) -> None:
        await super().send(data)
        await self.write(data.replace(b"\r", b"\r\n"))


def played(serial: FakeSerial, bmc: Mapping[str, str], hub: str) -> Consoles:
    """Return the consoles of a node whose every server has this serial port."""

    class Rows:
        node_id = "n"

        def server(self, server: str) -> Any:
            return {"id": server, "name": "web-1", "bmc": bmc}

        def check_near_or_hub(self, peer: str) -> None:
            assert peer == hub

    rows: Any = Rows()
    return Consoles(rows, serial.open, lambda _: {}, NoStreams(), lambda: ["n"], dict)
