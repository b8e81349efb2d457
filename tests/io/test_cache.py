"""The cache on a real disk, with an origin on loopback and with nodes that lie."""

import hashlib
import os
import random
import sqlite3
from pathlib import Path

import pytest
import trio

from cache.api import (
    Ask,
    Cache,
    CacheError,
    ChunkUnavailable,
    ContentMismatch,
    Members,
    NoHolder,
    NoSpace,
    OriginError,
)
from cache.files import AssetFiles
from cache.ledger import Ledger, Tally
from mesh.host.clock import FixedClock
from tests.support.origin import Origin

MIB = 1 << 20
CONTENT = random.Random(1).randbytes(5 * MIB + 12345)


def open_cache(folder: Path, quota: int = 1 << 30) -> Cache:
    return Cache.open(folder, quota, FixedClock())


class Peers:
    """Nodes that hold what other caches hold; a node may corrupt or refuse."""

    def __init__(self, caches: dict[str, Cache]) -> None:
        self.caches = caches
        self.corrupt: set[str] = set()
        self.dead: set[str] = set()
        self.here: set[str] = set()
        self.asked: list[tuple[str, int]] = []

    async def members(self) -> Members:
        return Members("me", tuple(self.caches), ("me",), ("me",))

    async def manifest(self, node: str, asset: str) -> bytes:
        if node in self.dead:
            raise NoHolder(f"{node} is gone")
        manifest = self.caches[node].manifest(asset)
        if manifest is None:
            raise NoHolder("not here")
        return manifest.core

    async def chunk(self, node: str, asset: str, ask: Ask) -> bytes:
        self.asked.append((node, ask.index))
        if node in self.dead:
            raise NoHolder(f"{node} is gone")
        data = await self.caches[node].read_chunk(asset, ask.index)
        return bytes([data[0] ^ 1]) + data[1:] if node in self.corrupt else data

    def near(self, node: str) -> bool:
        return node in self.here


async def test_an_origin_is_read_once_and_the_bytes_are_right(
    tmp_path: Path, nursery: trio.Nursery
) -> None:
    origin = Origin(CONTENT)
    await nursery.start(origin.run)
    cache = open_cache(tmp_path)
    manifest = await cache.resolve("image", origin.url)
    assert manifest.sha256 == hashlib.sha256(CONTENT).hexdigest()
    assert (tmp_path / "assets" / manifest.asset[3:] / "data").read_bytes() == CONTENT
    (state,) = cache.assets()
    assert (state.state, state.have, state.of) == ("verified", 6, 6)
    assert state.origin_bytes == origin.sent == len(CONTENT)
    assert await cache.resolve("image", origin.url) == manifest
    assert origin.sent == len(CONTENT)


async def test_a_download_cut_in_the_middle_goes_on_where_it_stopped(
    tmp_path: Path, nursery: trio.Nursery
) -> None:
    origin = Origin(CONTENT, cut_after=[2 * MIB + 77, MIB])
    await nursery.start(origin.run)
    cache = open_cache(tmp_path)
    for _ in range(2):
        with pytest.raises(OriginError):
            await cache.resolve("image", origin.url)
    (state,) = cache.assets()
    assert state.state == "failed" and state.error
    cache.close()
    cache = open_cache(tmp_path)  # and over a restart of the program
    manifest = await cache.resolve("image", origin.url)
    assert manifest.sha256 == hashlib.sha256(CONTENT).hexdigest()
    assert origin.sent <= len(CONTENT) + 77  # whole chunks are kept
    assert [r for _, r in origin.requests][1:] == [
        f"bytes={2 * MIB}-",
        f"bytes={3 * MIB}-",
    ]


async def test_a_changed_origin_starts_again_and_two_versions_never_mix(
    tmp_path: Path, nursery: trio.Nursery
) -> None:
    origin = Origin(CONTENT, cut_after=[2 * MIB])
    await nursery.start(origin.run)
    cache = open_cache(tmp_path)
    with pytest.raises(OriginError):
        await cache.resolve("image", origin.url)
    origin.content, origin.etag = CONTENT[::-1], '"two"'
    manifest = await cache.resolve("image", origin.url)
    assert manifest.sha256 == hashlib.sha256(CONTENT[::-1]).hexdigest()


async def test_content_that_does_not_match_its_declared_hash_is_thrown_away(
    tmp_path: Path, nursery: trio.Nursery
) -> None:
    origin = Origin(CONTENT)
    await nursery.start(origin.run)
    cache = open_cache(tmp_path)
    with pytest.raises(ContentMismatch, match="declared was 00"):
        await cache.resolve("image", origin.url, "00" * 32)
    assert not list((tmp_path / "assets").iterdir())
    (state,) = cache.assets()
    assert state.state == "failed" and "declared" in (state.error or "")


async def test_an_origin_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    cache = open_cache(tmp_path)
    for url in ("http://127.0.0.1:1/x", "nonsense", "http://"):
        with pytest.raises(OriginError):
            await cache.resolve("image", url)


async def test_a_second_node_takes_every_chunk_from_the_first(tmp_path: Path) -> None:
    first, second = open_cache(tmp_path / "1"), open_cache(tmp_path / "2")
    manifest = await first.add_stream("image", pieces(CONTENT))
    peers = Peers({"first": first})
    with pytest.raises(ContentMismatch, match=manifest.sha256):
        await second.fetch("image", manifest.asset, peers, "0" * 64)
    await second.fetch("image", manifest.asset, peers, manifest.sha256)
    assert (tmp_path / "2/assets" / manifest.asset[3:] / "data").read_bytes() == CONTENT
    (state,) = second.assets()
    assert (state.state, state.peer_bytes, state.origin_bytes) == ("verified", len(CONTENT), 0)
    assert state.near_bytes == 0
    assert sorted(index for _, index in peers.asked) == list(range(6))


async def test_only_what_the_own_site_gives_spares_the_uplink(tmp_path: Path) -> None:
    first, second = open_cache(tmp_path / "1"), open_cache(tmp_path / "2")
    manifest = await first.add_stream("image", pieces(CONTENT))
    peers = Peers({"first": first})
    peers.here = {"first"}
    await second.fetch("image", manifest.asset, peers)
    second.close()
    again = open_cache(tmp_path / "2")
    (state,) = again.assets()
    assert state.near_bytes == state.peer_bytes == len(CONTENT)


def test_a_ledger_with_a_damaged_page_is_put_aside_and_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "cache.db"
    ledger = Ledger(path)
    for number in range(200):
        ledger.save(Tally(f"name-{number}" + "x" * 40, state="verified"))
    ledger.close()
    data = bytearray(path.read_bytes())
    data[-4096:-4000] = b"\xff" * 96
    path.write_bytes(data)
    again = Ledger(path)
    assert again.tallies() == []
    again.close()
    assert path.with_name("cache.db.damaged").read_bytes() == bytes(data)


def test_a_ledger_of_an_earlier_build_is_taken_over(tmp_path: Path) -> None:
    old = sqlite3.connect(tmp_path / "cache.db")
    old.execute(
        "CREATE TABLE tally (name TEXT PRIMARY KEY, asset TEXT, state TEXT NOT NULL,"
        " origin_bytes INTEGER NOT NULL, peer_bytes INTEGER NOT NULL,"
        " rejected_bytes INTEGER NOT NULL, error TEXT, updated_ms INTEGER NOT NULL)"
    )
    old.execute("INSERT INTO tally VALUES ('a', NULL, 'absent', 1, 2, 3, NULL, 4)")
    old.commit()
    old.close()
    ledger = Ledger(tmp_path / "cache.db")
    (tally,) = ledger.tallies()
    assert (tally.peer_bytes, tally.updated_ms, tally.near_bytes) == (2, 4, 0)
    ledger.save(tally)
    ledger.close()


async def test_chunks_stored_by_several_threads_at_once_are_all_kept(tmp_path: Path) -> None:
    content = random.Random(2).randbytes(40 * MIB)
    first, second = open_cache(tmp_path / "1"), open_cache(tmp_path / "2")
    manifest = await first.add_stream("image", pieces(content))
    files = AssetFiles.create(tmp_path, manifest)

    async def store(index: int) -> None:
        data = content[index * MIB : (index + 1) * MIB]
        assert await second.in_thread(files.store, index, data)
        await second.in_thread(files.sync)

    async with trio.open_nursery() as nursery:
        for index in range(manifest.chunks):
            nursery.start_soon(store, index)
    files.close()
    assert AssetFiles.open(files.folder).have.full


async def test_a_corrupt_chunk_is_thrown_away_and_the_peer_is_not_asked_again(
    tmp_path: Path,
) -> None:
    first, liar = open_cache(tmp_path / "1"), open_cache(tmp_path / "l")
    second = open_cache(tmp_path / "2")
    manifest = await first.add_stream("image", pieces(CONTENT))
    await liar.add_stream("image", pieces(CONTENT))
    peers = Peers({"liar": liar, "first": first})
    peers.corrupt.add("liar")
    await second.fetch("image", manifest.asset, peers)
    assert (tmp_path / "2/assets" / manifest.asset[3:] / "data").read_bytes() == CONTENT
    (state,) = second.assets()
    assert 0 < state.rejected_bytes <= 4 * MIB


async def test_only_a_liar_gives_an_error_and_stores_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cache.fetching.REFRESH_S", 0.01)
    monkeypatch.setattr("cache.fetching.PATIENCE_S", 0.1)
    liar, second = open_cache(tmp_path / "l"), open_cache(tmp_path / "2")
    manifest = await liar.add_stream("image", pieces(CONTENT))
    peers = Peers({"liar": liar})
    peers.corrupt.add("liar")
    with pytest.raises(NoHolder):
        await second.fetch("image", manifest.asset, peers)
    (state,) = second.assets()
    assert (state.state, state.have) == ("failed", 0)


async def test_a_fetch_cut_in_the_middle_goes_on_after_a_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cache.fetching.REFRESH_S", 0.01)
    first, second = open_cache(tmp_path / "1"), open_cache(tmp_path / "2")
    manifest = await first.add_stream("image", pieces(CONTENT))
    peers = Peers({"first": first})

    async def chunk(node: str, asset: str, ask: Ask) -> bytes:
        if ask.index >= 3:
            raise ChunkUnavailable("cut")
        return await first.read_chunk(asset, ask.index)

    peers.chunk = chunk  # type: ignore[method-assign]
    with trio.move_on_after(0.5), pytest.raises(CacheError):
        await second.fetch("image", manifest.asset, peers)
    assert second.assets()[0].have == 3
    second.close()
    second = open_cache(tmp_path / "2")
    peers = Peers({"first": first})
    await second.fetch("image", manifest.asset, peers)
    assert sorted(index for _, index in peers.asked) == [3, 4, 5]


async def test_a_damaged_chunk_on_disk_is_found_before_it_is_served(tmp_path: Path) -> None:
    first = open_cache(tmp_path)
    manifest = await first.add_stream("image", pieces(CONTENT))
    first.close()
    data = tmp_path / "assets" / manifest.asset[3:] / "data"
    with data.open("r+b") as file:
        file.seek(2 * MIB)
        file.write(b"\0" * 100)
    again = open_cache(tmp_path)
    assert await again.read_chunk(manifest.asset, 1) == CONTENT[MIB : 2 * MIB]
    with pytest.raises(ChunkUnavailable, match="damaged"):
        await again.read_chunk(manifest.asset, 2)
    assert not again.holds(manifest.asset)


async def test_a_reader_gets_bytes_while_the_rest_is_on_its_way(tmp_path: Path) -> None:
    first, second = open_cache(tmp_path / "1"), open_cache(tmp_path / "2")
    manifest = await first.add_stream("image", pieces(CONTENT))
    peers = Peers({"first": first})
    gate = trio.Event()

    async def chunk(node: str, asset: str, ask: Ask) -> bytes:
        if ask.index == 5:
            await gate.wait()
        return await first.read_chunk(asset, ask.index)

    peers.chunk = chunk  # type: ignore[method-assign]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(second.fetch, "image", manifest.asset, peers)
        with trio.fail_after(10):
            while (reader := second.reader(manifest.asset)) is None:
                await second.wait_past(second.version)
            await reader.wait(MIB, 2 * MIB)
            assert os.pread(reader.fd, 10, MIB) == CONTENT[MIB : MIB + 10]
            gate.set()
            await reader.wait(0, len(CONTENT))


async def test_a_quota_is_kept_with_one_sentence(tmp_path: Path, nursery: trio.Nursery) -> None:
    origin = Origin(CONTENT)
    await nursery.start(origin.run)
    cache = open_cache(tmp_path, quota=4 * MIB)
    with pytest.raises(NoSpace, match="quota of 4 MiB"):
        await cache.resolve("image", origin.url)
    assert cache.assets()[0].state == "failed"


async def pieces(content: bytes):  # type: ignore[no-untyped-def]
    for i in range(0, len(content), 300_000):
        yield content[i : i + 300_000]


async def test_what_rotted_on_the_disk_is_found_forgotten_and_fetched_again(
    tmp_path: Path, nursery: trio.Nursery
) -> None:
    here, there = open_cache(tmp_path / "here"), open_cache(tmp_path / "there")
    for cache in (here, there):
        asset = (await cache.add_stream("x", pieces(CONTENT))).asset
    assert await here.verify(asset, 0, 100) == (6, 0, 6)
    assert await here.verify("b3:" + "0" * 64, 0, 100) == (0, 0, 0)
    with (tmp_path / "here" / "assets" / asset[3:] / "data").open("r+b") as file:
        file.seek(2 * MIB + 5)
        file.write(b"rot")
    assert await here.verify(asset, 0, 2) == (2, 0, 6)
    assert await here.verify(asset, 2, 2) == (2, 1, 6)
    assert not here.holds(asset)
    assert here.assets()[0].state == "absent"
    assert await here.verify(asset, 0, 100) == (5, 0, 6)
    await here.fetch("x", asset, Peers({"there": there}))
    assert here.assets()[0].state == "verified"
    assert await here.verify(asset, 0, 100) == (6, 0, 6)
    for cache in (here, there):
        cache.close()
