"""A node that keeps up with the one that reads an origin, and goes on when that dies."""

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from cache.api import Cache, Growth, Members, OriginError, rpc_handlers
from mesh.errors import Refused
from mesh.host.clock import FixedClock
from tests.support.origin import Origin

MIB = 1 << 20
CONTENT = random.Random(9).randbytes(12 * MIB + 345)


class Pair:
    """The reader and its heir, each with the calls of its cache."""

    def __init__(self, folder: Path) -> None:
        self.reader, self.heir = (
            Cache.open(folder / name, 1 << 30, FixedClock()) for name in ("reader", "heir")
        )
        self.gone = trio.Event()

    async def more(self, offset: int) -> Growth | None:
        if self.gone.is_set():
            return None
        try:
            call = rpc_handlers(self.reader)["cache.growing"]
            answer = await call("heir", {"name": "x", "offset": offset})
        except Refused:
            return None
        return Growth(answer["url"], answer["validator"], answer["size"], answer["piece"])

    def close(self) -> None:
        self.reader.close()
        self.heir.close()


@asynccontextmanager
async def serving(origin: Origin) -> AsyncIterator[Origin]:
    async with trio.open_nursery() as nursery:
        await nursery.start(origin.run)
        yield origin
        nursery.cancel_scope.cancel()


def length_of(cache: Cache) -> int:
    found = cache._intakes.get("x")
    return found[0].length if found else 0


async def dies_at(pair: Pair, url: str, length: int) -> None:
    """Let the reader read until the heir has this much, then die."""
    async with trio.open_nursery() as nursery:
        with trio.CancelScope() as life:
            async with trio.open_nursery() as reading:
                reading.start_soon(pair.reader.resolve, "x", url)
                while "x" not in pair.reader._reading:
                    await trio.sleep(0.001)
                nursery.start_soon(pair.heir.mirror, "x", pair.more)
                while length_of(pair.heir) < length:
                    await trio.sleep(0.001)
                pair.gone.set()
                life.cancel()


async def test_the_heir_goes_on_where_the_reader_died(tmp_path: Path) -> None:
    pair = Pair(tmp_path)
    async with serving(Origin(CONTENT, pause_s=0.005)) as origin:
        with trio.fail_after(30):
            await dies_at(pair, origin.url, 6 * MIB)
            manifest = await pair.heir.resolve("x", origin.url)
        assert manifest.size == len(CONTENT)
        (_, whole), (_, rest) = origin.requests
        assert whole is None
        begun = int(str(rest).removeprefix("bytes=").rstrip("-"))
        assert begun >= 6 * MIB
        (state,) = pair.heir.assets()
        assert state.origin_bytes == len(CONTENT) - begun
    pair.close()


async def test_what_the_heir_has_is_not_fetched_again_once_it_is_named(tmp_path: Path) -> None:
    pair = Pair(tmp_path)

    class Nobody:
        """The reader gives the manifest and no chunk."""

        async def members(self) -> Members:
            return Members("heir", ("reader",), ("heir",), ("heir",))

        async def manifest(self, _node: str, asset: str) -> bytes:
            held = pair.reader.manifest(asset)
            assert held is not None
            return held.core

        async def chunk(self, _node: str, _asset: str, ask: Any) -> bytes:
            raise AssertionError(f"chunk {ask.index} was asked for")

        def near(self, _node: str) -> bool:
            return True

    async with serving(Origin(CONTENT, pause_s=0.002)) as origin:
        with trio.fail_after(30):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(pair.reader.resolve, "x", origin.url)
                while "x" not in pair.reader._reading:
                    await trio.sleep(0.001)
                took = await pair.heir.mirror("x", pair.more)
        asset = pair.reader.assets()[0].asset
        assert asset is not None
        assert took >= 4 * MIB
        heir = pair.heir
        partial = heir._partial("x")
        with partial.open("ab") as file:  # what came after the last answer
            file.write(CONTENT[partial.stat().st_size :])
        await heir.fetch("x", asset, Nobody())
        assert heir.holds(asset)
        assert not partial.exists()
    pair.close()


async def test_another_version_is_never_put_behind_this_one(tmp_path: Path) -> None:
    pair = Pair(tmp_path)
    async with serving(Origin(CONTENT, pause_s=0.005)) as origin:
        with trio.fail_after(30):
            await dies_at(pair, origin.url, 5 * MIB)
            origin.content = other = random.Random(10).randbytes(len(CONTENT))
            origin.etag = '"two"'
            manifest = await pair.heir.resolve("x", origin.url)
        reader = pair.heir.reader(manifest.asset)
        assert reader is not None
        assert Path(f"/proc/self/fd/{reader.fd}").read_bytes() == other
    pair.close()


async def test_a_node_that_reads_nothing_says_so_and_odd_calls_are_refused(
    tmp_path: Path,
) -> None:
    pair = Pair(tmp_path)
    assert await pair.heir.mirror("x", pair.more) == 0
    call = rpc_handlers(pair.reader)["cache.growing"]
    bad: tuple[Any, ...] = (None, {}, {"name": "x"}, {"name": "../x", "offset": 0})
    for body in (*bad, {"name": "x", "offset": -1}, {"name": "x", "offset": 1 << 60}):
        with pytest.raises(Refused):
            await call("n", body)
    with pytest.raises(OriginError):
        await pair.reader.resolve("x", "http://127.0.0.1:9/none")
    with pytest.raises(Refused, match="not read"):
        await call("n", {"name": "x", "offset": 0})
    pair.close()
