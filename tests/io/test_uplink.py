"""The cap on the uplink: what comes from an origin or from afar waits, the rest does not."""

import random
from pathlib import Path
from typing import Any

import trio
import trio.testing

from cache.api import Ask, Cache, Members
from mesh.host.clock import FixedClock, SystemClock
from node.proto.uplink import parse_hours
from node.uplink import Uplink
from tests.support.hub_office import pieces
from tests.support.origin import Origin

MIB = 1 << 20
CONTENT = random.Random(3).randbytes(4 * MIB)


async def test_what_was_taken_is_waited_for(autojump_clock: trio.testing.MockClock) -> None:
    uplink = Uplink(8, (), SystemClock())
    began = trio.current_time()
    for _ in range(4):
        await uplink.pay(MIB)
    assert trio.current_time() - began == 3 * MIB / 1_000_000  # the first is the burst
    free = Uplink(8, [parse_hours("00:00-00:00 0")], SystemClock())
    await free.pay(1 << 40)
    assert trio.current_time() - began == 3 * MIB / 1_000_000


async def test_an_origin_is_read_no_faster_than_the_cap(tmp_path: Path) -> None:
    cache = Cache.open(tmp_path, 1 << 30, FixedClock())
    cache.pay = Uplink(16, (), SystemClock()).pay
    async with trio.open_nursery() as nursery:
        origin = Origin(CONTENT)
        await nursery.start(origin.run)
        began = trio.current_time()
        with trio.fail_after(20):
            await cache.resolve("x", origin.url)
        assert trio.current_time() - began >= 3 * MIB / 2_000_000
        nursery.cancel_scope.cancel()
    cache.close()


class Far:
    """One node that holds everything; ``near_too``: it stands at our site."""

    def __init__(self, held: Cache, near_too: bool) -> None:
        self._held, self._near = held, near_too

    async def members(self) -> Members:
        return Members("me", ("far",), ("me", "other"), ("me", "other"))

    async def manifest(self, _node: str, asset: str) -> bytes:
        manifest = self._held.manifest(asset)
        assert manifest is not None
        return manifest.core

    async def chunk(self, _node: str, asset: str, ask: Ask) -> bytes:
        return await self._held.read_chunk(asset, ask.index)

    def near(self, _node: str) -> bool:
        return self._near


async def test_chunks_from_afar_are_paid_for_all_fellows_and_near_ones_cost_nothing(
    tmp_path: Path,
) -> None:
    held = Cache.open(tmp_path / "far", 1 << 30, FixedClock())
    asset = (await held.add_stream("x", pieces(CONTENT))).asset
    for near in (True, False):
        paid: list[int] = []

        async def pay(size: int, into: list[Any] = paid) -> None:
            into.append(size)
            await trio.lowlevel.checkpoint()

        cache = Cache.open(tmp_path / str(near), 1 << 30, FixedClock())
        cache.pay = pay
        with trio.fail_after(20):
            await cache.fetch("x", asset, Far(held, near))
        assert paid == ([] if near else [2 * MIB] * 4)
        cache.close()
    held.close()


async def test_a_transfer_that_is_cancelled_is_not_shown_as_going_on(tmp_path: Path) -> None:
    cache = Cache.open(tmp_path, 1 << 30, FixedClock())
    cache.pay = Uplink(1, (), SystemClock()).pay
    async with trio.open_nursery() as nursery:
        origin = Origin(CONTENT)
        await nursery.start(origin.run)
        with trio.move_on_after(3) as scope:
            await cache.resolve("x", origin.url)
        assert scope.cancelled_caught
        (state,) = cache.assets()
        assert (state.state, state.error) == ("absent", None)
        nursery.cancel_scope.cancel()
    cache.close()
