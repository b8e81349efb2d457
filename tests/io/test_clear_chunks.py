"""Chunks in clear over real sockets: what is given to whom, and ends that misbehave."""

import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest
import trio

from cache.api import Ask, Cache, ChunkUnavailable, Later
from mesh.errors import Refused
from mesh.host.clock import FixedClock
from node.clear import ClearClient, ClearFailed, ClearServer, Offer, Place
from node.holders import read_offer
from tests.support.hub_office import pieces

MIB = 1 << 20
CONTENT = random.Random(5).randbytes(3 * MIB + 77)
HOST = "127.0.0.1"
SIZES = (MIB, MIB, MIB, 77)


def place(asset: str, index: int) -> Place:
    return Place(asset, index, index * MIB, SIZES[index])


def ask(index: int, *, shared: bool = True, first: bool = False) -> Ask:
    return Ask("n1", index, shared, first, 0.0)


@asynccontextmanager
async def giving(folder: Path) -> AsyncIterator[tuple[ClearServer, Cache, str]]:
    """A node that holds CONTENT and gives it to its neighbour ``near``."""
    cache = Cache.open(folder / "giver", 1 << 30, FixedClock())
    asset = (await cache.add_stream("x", pieces(CONTENT))).asset
    server = ClearServer(cache, lambda node: node == "near")
    async with trio.open_nursery() as nursery:
        await nursery.start(server.run, HOST)
        yield server, cache, asset
        nursery.cancel_scope.cancel()
    cache.close()


async def offer_of(server: ClearServer, asset: str) -> Offer:
    answer = await server.rpc_handlers()["cache.clear"]("near", {"asset": asset})
    offer = read_offer(f"{HOST}:4770", answer)
    assert offer is not None
    return offer


async def test_chunks_come_whole_over_one_connection(tmp_path: Path) -> None:
    async with giving(tmp_path) as (server, _, asset):
        with closing(ClearClient(await offer_of(server, asset))) as client:
            for index in (3, 0, 2, 1):
                found = await client.chunk(
                    place(asset, index), ask(index, shared=index % 2 == 0)
                )
                assert found == CONTENT[index * MIB :][: SIZES[index]]
            assert server.http.statistics()["connections"] == 1
            assert server.http.counts["answers_2xx"] == 4


async def test_a_chunk_on_its_way_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("node.clear.WAIT_S", 0.3)
    async with giving(tmp_path) as (_, giver, _):
        manifest = giver.manifest(giver.assets()[0].asset or "")
        assert manifest is not None
        other = Cache.open(tmp_path / "other", 1 << 30, FixedClock())
        behind = ClearServer(other, lambda node: node == "near")
        async with trio.open_nursery() as nursery:
            await nursery.start(behind.run, HOST)
            with closing(ClearClient(await offer_of(behind, manifest.asset))) as client:
                assert await client.chunk(place(manifest.asset, 0), ask(0)) == Later(None)
                with pytest.raises(ChunkUnavailable, match="not there"):
                    await client.chunk(place(manifest.asset, 0), ask(0, shared=False))
                nursery.start_soon(later, other, CONTENT)
                assert (
                    await client.chunk(place(manifest.asset, 1), ask(1))
                    == CONTENT[MIB : 2 * MIB]
                )
            nursery.cancel_scope.cancel()
        other.close()


async def later(cache: Cache, content: bytes) -> None:
    await trio.sleep(0.1)
    await cache.add_stream("x", pieces(content))


async def test_only_members_of_the_site_are_told_and_only_they_are_answered(
    tmp_path: Path,
) -> None:
    async with giving(tmp_path) as (server, _, asset):
        call = server.rpc_handlers()["cache.clear"]
        for peer, body in (("far", {"asset": asset}), ("near", {"asset": "b3:x"}), ("near", 7)):
            with pytest.raises(Refused):
                await call(peer, body)
        offer = await offer_of(server, asset)
        for bad, where in (
            (Offer(HOST, offer.port, "0" * 32), place(asset, 0)),
            (offer, place("b3:" + "0" * 64, 0)),  # the token is of one asset
            (offer, Place(asset, 4, 0, MIB)),
        ):
            with closing(ClearClient(bad)) as client, pytest.raises(ChunkUnavailable):
                await client.chunk(where, ask(where.index))
        for path in ("", "x", f"{offer.token}/{asset}/-1", f"{offer.token}/{asset}/\u0663"):
            status = await get(offer.port, f"/chunks/{path}")
            assert status in (400, 404), path


async def get(port: int, path: str) -> int:
    stream = await trio.open_tcp_stream(HOST, port)
    async with stream:
        await stream.send_all(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        return int((await stream.receive_some(4096)).split()[1])


Answer = Callable[[trio.SocketStream], Awaitable[None]]


async def silent(_stream: trio.SocketStream) -> None:
    await trio.sleep_forever()


def saying(*parts: bytes) -> Answer:
    async def answer(stream: trio.SocketStream) -> None:
        for part in parts:
            await stream.send_all(part)

    return answer


BAD: dict[str, Answer] = {
    "nothing": saying(),
    "no end of the head": saying(b"HTTP/1.1 206 X\r\n" + b"a: b\r\n" * 4000),
    "no length": saying(b"HTTP/1.1 206 X\r\n\r\n"),
    "two lengths": saying(b"HTTP/1.1 206 X\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n"),
    "another length": saying(b"HTTP/1.1 206 X\r\nContent-Length: 5\r\n\r\nabcde"),
    "a huge answer": saying(b"HTTP/1.1 404 X\r\nContent-Length: 999999999\r\n\r\n"),
    "cut off": saying(b"HTTP/1.1 206 X\r\nContent-Length: 1048576\r\n\r\nabc"),
    "too much": saying(b"HTTP/1.1 404 X\r\nContent-Length: 1\r\n\r\nabc"),
    "no JSON": saying(b"HTTP/1.1 200 X\r\nContent-Length: 3\r\n\r\nabc"),
    "odd JSON": saying(b'HTTP/1.1 200 X\r\nContent-Length: 14\r\n\r\n{"have": "12"}'),
    "an error": saying(b"HTTP/1.1 503 X\r\nContent-Length: 0\r\n\r\n"),
    "garbage": saying(bytes(range(256)) * 40),
    "silence": silent,
}


@pytest.mark.parametrize("name", BAD)
async def test_an_end_that_misbehaves_is_said_and_nothing_else(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("node.clear.STALL_S", 0.2)

    async def serve(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.receive_some(4096)
            await BAD[name](stream)

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, serve, 0)
        port = listeners[0].socket.getsockname()[1]
        client = ClearClient(Offer(HOST, port, "0" * 32))
        with pytest.raises(ClearFailed):
            await client.chunk(place("b3:" + "0" * 64, 0), ask(0))
        nursery.cancel_scope.cancel()


async def test_nobody_listening_is_said_too() -> None:
    with pytest.raises(ClearFailed):
        await ClearClient(Offer(HOST, 9, "0" * 32)).chunk(place("b3:" + "0" * 64, 0), ask(0))


@pytest.mark.parametrize(
    ("address", "answer"),
    [
        ("relay of a hub", {"port": 5, "token": "0" * 32}),
        ("[fe80::1]:4770", {"port": 5, "token": "0" * 32}),
        ("127.0.0.1:4770", {"port": 0, "token": "0" * 32}),
        ("127.0.0.1:4770", {"port": 99999, "token": "0" * 32}),
        ("127.0.0.1:4770", {"port": 5, "token": "../../etc/passwd"}),
        ("127.0.0.1:4770", {"port": "5", "token": "0" * 32}),
        ("127.0.0.1:4770", None),
    ],
)
def test_an_offer_that_cannot_be_is_none(address: str, answer: Any) -> None:
    assert read_offer(address, answer) is None
