"""The snapshot that is kept up with a real store is the one that would be built from it."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import trio

from mesh.host.clock import FixedClock
from mesh.proto import tables
from mesh.store import MeshStore, Tx
from node.boot import snapshot as module
from node.boot.snapshot import SnapshotSource
from tests.support.boot_site import SUBNET, node_row
from tests.support.members import sign_head

SCOPE = tables.site_scope("lab")


@asynccontextmanager
async def opened(tmp_path: Path) -> AsyncIterator[MeshStore]:
    store = MeshStore.open(
        tmp_path / "state.db", author="a", sign_head=sign_head("a"), clock=FixedClock()
    )
    with store, trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            await nursery.start(store.run)
            yield store
            nursery.cancel_scope.cancel()


def source(store: MeshStore) -> SnapshotSource:
    return SnapshotSource(store, "lab", IPv4Address("10.77.0.1"), frozenset, now=lambda: 0.0)


def binding(mac: str, **body: Any) -> Callable[[Tx], None]:
    return lambda tx: tx.put(SCOPE, tables.BINDING, mac, {"claimed_ms": 1, **body})


async def test_what_is_kept_up_is_what_would_be_built(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        kept = source(store)
        known = {"macs": ["52:54:00:77:00:01"], "accepted_ms": 5}
        steps: list[Callable[[Tx], None]] = [
            lambda tx: tx.put(SCOPE, tables.SUBNET, SUBNET["cidr"], SUBNET),
            lambda tx: tx.put(tables.FLEET, tables.NODE, "a", node_row("10.77.0.1")),
            binding("52:54:00:00:00:01", ip="10.77.0.101"),
            binding("52:54:00:00:00:02", ip="10.77.0.102"),
            binding("52:54:00:00:00:03", ip="10.77.0.102"),  # given twice
            lambda tx: tx.put(SCOPE, tables.SIGHTING, "52:54:00:00:00:04", {"last_ms": 7}),
            binding("52:54:00:00:00:02", ip="", declined=["10.77.0.102"]),
            lambda tx: tx.delete(SCOPE, tables.BINDING, "52:54:00:00:00:01"),
            binding("52:54:00:00:00:01", ip="10.77.0.109", declined="no list"),
            binding("52:54:00:00:00:05", ip="10.77.0.254"),  # the router's
            lambda tx: tx.put(SCOPE, tables.SERVER, "s1", known),
            lambda tx: tx.put(SCOPE, tables.PORT_LOCK, "s1", {"port": "eth7"}),
            binding("52:54:00:77:00:01", ip="10.77.0.120"),
            binding("52:54:00:00:00:06", ip="10.77.0.121"),
            lambda tx: tx.drop(SCOPE, tables.BINDING, "52:54:00:00:00:06"),
            lambda tx: tx.delete(SCOPE, tables.PORT_LOCK, "s1"),
        ]
        for step in steps:
            await store.write(step)
            now, built = kept.current(), source(store).current()
            assert now == built
            assert now.id == built.id


async def test_only_rows_that_count_make_another_snapshot(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        await store.write(lambda tx: tx.put(SCOPE, tables.SUBNET, SUBNET["cidr"], SUBNET))
        kept = source(store)
        first = kept.current()
        await store.write(lambda tx: tx.put(SCOPE, tables.SIGHTING, "m", {"last_ms": 7}))
        assert kept.current() is first
        assert kept.version == store.version
        await store.write(binding("52:54:00:00:00:01", ip="10.77.0.101"))
        assert kept.current() is not first


async def test_a_flood_of_bindings_and_a_long_sleep_end_in_the_same(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        await store.write(lambda tx: tx.put(SCOPE, tables.SUBNET, SUBNET["cidr"], SUBNET))
        kept = source(store)
        kept.current()

        def many(tx: Tx) -> None:
            for number in range(module.CHANGED_MAX + 10):
                mac = f"52:54:00:00:{number >> 8:02x}:{number & 255:02x}"
                ip = f"10.77.{number >> 8}.{number & 255}"
                tx.put(SCOPE, tables.BINDING, mac, {"ip": ip, "claimed_ms": number})

        await store.write(many)
        assert kept.current() == source(store).current()
        for number in range(300):  # more commits than the store remembers changes of
            await store.write(binding("52:54:00:01:00:00", ip="", claimed_ms=number))
        assert kept.current() == source(store).current()
