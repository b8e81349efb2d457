"""Several real caches that share a fetch, over the real calls: what leaves the source, and how
often; a fellow that dies, one that never begins."""

import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import trio

from cache.api import (
    Ask,
    Cache,
    ChunkUnavailable,
    Later,
    Members,
    NoHolder,
    rpc_handlers,
)
from mesh.errors import Refused
from mesh.host.clock import FixedClock
from tests.support.hub_office import pieces

MIB = 1 << 20
CONTENT = random.Random(5).randbytes(24 * MIB + 77)


class Lan:
    """A source and some fellows, each with the calls of its cache."""

    def __init__(self, folder: Path, fellows: int) -> None:
        self.names = tuple(f"n{number}" for number in range(fellows))
        self.caches = {
            name: Cache.open(folder / name, 1 << 30, FixedClock())
            for name in ("source", *self.names)
        }
        self.calls = {name: rpc_handlers(cache) for name, cache in self.caches.items()}
        self.given: Counter[tuple[str, int]] = Counter()
        self.dead: set[str] = set()

    def close(self) -> None:
        for cache in self.caches.values():
            cache.close()


class At:
    """The PeerSource of one fellow."""

    def __init__(self, lan: Lan, name: str) -> None:
        self.lan, self.name = lan, name

    async def members(self) -> Members:
        alive = tuple(
            name for name in self.lan.names if name not in self.lan.dead or name == self.name
        )
        return Members(self.name, ("source",), alive, self.lan.names)

    async def manifest(self, node: str, asset: str) -> bytes:
        try:
            answer = await self._call(node, "cache.manifest", {"asset": asset, "offset": 0})
        except ChunkUnavailable as exc:
            raise NoHolder(str(exc)) from exc
        return bytes(answer["piece"])

    async def chunk(self, node: str, asset: str, ask: Ask) -> bytes | Later:
        body = {"asset": asset, "index": ask.index, "wait": ask.shared, "first": ask.first}
        answer = await self._call(node, "cache.chunk", body)
        if isinstance(answer, dict):
            return Later(answer["have"])
        self.lan.given[node, ask.index] += 1
        return answer

    async def _call(self, node: str, method: str, body: Any) -> Any:
        await trio.sleep(0.002)
        if node in self.lan.dead:
            raise NoHolder(f"{node} is gone")
        try:
            return await self.lan.calls[node][method](self.name, body)
        except Refused as exc:
            raise ChunkUnavailable(str(exc)) from exc

    def near(self, node: str) -> bool:
        return node != "source"


def content_of(lan: Lan, name: str, asset: str) -> bytes:
    reader = lan.caches[name].reader(asset)
    assert reader is not None
    with open(f"/proc/self/fd/{reader.fd}", "rb") as file:
        return file.read()


async def test_five_fellows_take_each_chunk_from_the_source_once(tmp_path: Path) -> None:
    lan = Lan(tmp_path, 5)
    asset = (await lan.caches["source"].add_stream("x", pieces(CONTENT))).asset
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            for name in lan.names:
                nursery.start_soon(lan.caches[name].fetch, "x", asset, At(lan, name))
    from_source = Counter(i for (node, i) in lan.given.elements() if node == "source")
    assert from_source == Counter(range(25))
    for name in lan.names:
        assert content_of(lan, name, asset) == CONTENT
        (state,) = lan.caches[name].assets()
        assert state.peer_bytes == len(CONTENT)
        assert 0.7 * len(CONTENT) < state.near_bytes < 0.9 * len(CONTENT)
    lan.close()


async def test_a_fellow_that_dies_in_the_middle_costs_a_few_chunks(tmp_path: Path) -> None:
    lan = Lan(tmp_path, 3)
    asset = (await lan.caches["source"].add_stream("x", pieces(CONTENT))).asset
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            for name in lan.names[1:]:
                nursery.start_soon(lan.caches[name].fetch, "x", asset, At(lan, name))
            with trio.CancelScope() as life:
                nursery.start_soon(die_at_half, lan, life, asset)
                await lan.caches["n0"].fetch("x", asset, At(lan, "n0"))
    for name in lan.names[1:]:
        assert content_of(lan, name, asset) == CONTENT
    taken = sum(count for (node, _), count in lan.given.items() if node == "source")
    assert taken <= 25 + 8
    lan.close()


async def die_at_half(lan: Lan, life: trio.CancelScope, asset: str) -> None:
    cache = lan.caches["n0"]
    while cache.reader(asset) is None or cache.assets()[0].have < 12:
        await cache.wait_past(cache.version)
    lan.dead.add("n0")
    life.cancel()


async def test_a_fellow_that_never_begins_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cache.sharing.WAIT_S", 0.05)
    monkeypatch.setattr("cache.proto.fetch_plan.BEGIN_S", 0.2)
    lan = Lan(tmp_path, 2)
    asset = (await lan.caches["source"].add_stream("x", pieces(CONTENT))).asset
    with trio.fail_after(60):
        await lan.caches["n0"].fetch("x", asset, At(lan, "n0"))
    assert content_of(lan, "n0", asset) == CONTENT
    lan.close()


async def test_a_call_for_a_chunk_that_does_not_come_is_refused_at_once(tmp_path: Path) -> None:
    lan = Lan(tmp_path, 1)
    manifest = await lan.caches["source"].add_stream("x", pieces(CONTENT))
    call = lan.calls["source"]["cache.chunk"]
    with pytest.raises(Refused, match="no chunk 25"):
        await call("n0", {"asset": manifest.asset, "index": 25, "wait": True})
    data = Path(tmp_path / "source/assets" / manifest.asset[3:] / "data")
    data.write_bytes(bytes(len(CONTENT)))
    again = Cache.open(tmp_path / "source", 1 << 30, FixedClock())
    with pytest.raises(Refused, match="damaged"):
        await rpc_handlers(again)["cache.chunk"](
            "n0", {"asset": manifest.asset, "index": 1, "wait": True}
        )
    with pytest.raises(Refused, match="does not come"):
        await rpc_handlers(again)["cache.chunk"](
            "n0", {"asset": manifest.asset, "index": 1, "wait": True}
        )
    again.close()
    lan.close()
