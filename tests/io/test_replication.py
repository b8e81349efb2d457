"""Replication over in-memory links, with real stores: what is written here appears there."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import trio

from mesh.host.clock import FixedClock
from mesh.proto.sets import SetId
from mesh.proto.tables import FLEET, NODE, SERVER, SIGHTING
from mesh.store import MeshStore, mark_restored
from mesh.sync import Replication
from tests.support.members import (
    FakeLink,
    FakeMember,
    FakeRegister,
    FakeRegisterStore,
    link_pair,
    sign_head,
)

SITE = "site:lab"
NOW_MS = 1_700_000_000_000
LATER_MS = NOW_MS + 60_000
MEMBERS = (
    FakeMember("a", "lab"),
    FakeMember("b", "lab"),
    FakeMember("c", "far"),
    FakeMember("h", "", frozenset({"hub"})),
)


@dataclass
class Peer:
    name: str
    store: MeshStore
    register: FakeRegisterStore
    replication: Replication
    nursery: trio.Nursery

    async def until(self, condition) -> None:
        """Wait for a level of the store."""
        with trio.fail_after(10):
            version = 0
            while not condition():
                version = await self.store.wait_past(version)


@asynccontextmanager
async def peer(
    name: str, folder: Path, register: FakeRegister | None = None, now_ms: int = NOW_MS, **more
):
    path = folder / name / "state.db"
    store = MeshStore.open(
        path, author=name, sign_head=sign_head(name), clock=FixedClock(now_ms), **more
    )
    with store:
        register_store = FakeRegisterStore(register or FakeRegister(MEMBERS, [b"r1", b"r2"]))
        replication = Replication(store, register_store, jitter=lambda: 0.5)
        async with trio.open_nursery() as nursery:
            await nursery.start(store.run)
            yield Peer(name, store, register_store, replication, nursery)
            nursery.cancel_scope.cancel()


@asynccontextmanager
async def linked(a: Peer, b: Peer) -> AsyncIterator[tuple[FakeLink, FakeLink]]:
    at_a, at_b = link_pair(a.name, b.name)
    async with trio.open_nursery() as nursery:
        for one, link in ((a, at_a), (b, at_b)):
            nursery.start_soon(one.replication.service, link)
            nursery.start_soon(one.replication.receipt_service, link)
        yield at_a, at_b
        nursery.cancel_scope.cancel()


def has(peer: Peer, scope: str, table: str, key: str):
    return lambda: peer.store.get(scope, table, key) is not None


async def test_rows_cross_on_connect_and_on_commit(tmp_path):
    async with peer("a", tmp_path) as a, peer("b", tmp_path) as b:
        await a.store.write(lambda tx: tx.put(SITE, SERVER, "before", {"n": 1}))
        async with linked(a, b):
            await b.until(has(b, SITE, SERVER, "before"))
            await a.store.write(lambda tx: tx.put(SITE, SERVER, "after", {"n": 2}))
            await b.until(has(b, SITE, SERVER, "after"))
            await b.store.write(lambda tx: tx.delete(SITE, SERVER, "before"))
            await a.until(lambda: a.store.get(SITE, SERVER, "before") is None)
        assert a.store.heads == b.store.heads


async def test_a_site_row_never_reaches_a_node_outside(tmp_path):
    async with peer("a", tmp_path) as a, peer("c", tmp_path) as c:
        await a.store.write(lambda tx: tx.put(SITE, SERVER, "s", {"n": 1}))
        await a.store.write(lambda tx: tx.put(FLEET, NODE, "a", {"name": "a"}))
        async with linked(a, c) as (at_a, at_c):
            await c.until(has(c, FLEET, NODE, "a"))
            at_c_before = len(at_a.frames)
            await at_c.send("sync", {"t": "pull", "n": 9, "wants": [["a", SITE, 0, 0]]})
            await at_c.send("sync", {"t": "root?", "n": 9})
            with trio.fail_after(5):
                while not any(f[1].get("n") == 9 for f in at_a.frames[at_c_before:]):
                    await trio.lowlevel.checkpoint()
        assert c.store.rows(SITE, SERVER) == []
        assert not any(SITE in str(body) for _, body in at_a.frames)
        assert a.replication.statistics()["scope"] == 1


async def test_a_receipt_names_another_node_of_the_site_and_hubs_do_not_count(tmp_path):
    async with peer("a", tmp_path) as a, peer("b", tmp_path) as b, peer("h", tmp_path) as h:
        async with linked(a, h):
            await a.store.write(lambda tx: tx.put(SITE, SERVER, "s", {"n": 1}))
            point = a.store.head(SITE)
            await h.until(has(h, SITE, SERVER, "s"))
            assert await a.replication.wait_receipt(SITE, *point, timeout_s=0.05) is None
            async with linked(a, b):
                with trio.fail_after(10):
                    assert await a.replication.wait_receipt(SITE, *point, timeout_s=9) == "b"


async def test_a_write_is_acknowledged_without_waiting_for_the_minute(tmp_path):
    async with peer("a", tmp_path) as a, peer("b", tmp_path) as b, linked(a, b):
        for n in range(3):
            await a.store.write(lambda tx, n=n: tx.put(SITE, SERVER, "s", {"n": n}))
            point = a.store.head(SITE)
            assert await a.replication.wait_receipt(SITE, *point, timeout_s=9) == "b"


async def test_a_set_larger_than_a_frame_arrives_whole(tmp_path):
    def many(tx):
        for n in range(800):
            tx.put(SITE, SIGHTING, f"m{n}", {"x": b"z" * 4000})

    async with peer("a", tmp_path) as a, peer("b", tmp_path) as b:
        await a.store.write(many)
        async with linked(a, b):
            await b.until(lambda: len(b.store.rows(SITE, SIGHTING)) == 800)
        assert a.store.heads == b.store.heads
        assert b.replication.statistics()["staged"] >= 4


async def test_equal_members_exchange_two_digests(tmp_path):
    async with peer("a", tmp_path) as a, peer("b", tmp_path) as b:
        await a.store.write(lambda tx: tx.put(SITE, SERVER, "s", {"n": 1}))
        async with linked(a, b):
            await b.until(has(b, SITE, SERVER, "s"))
        async with linked(a, b) as (at_a, at_b):
            with trio.fail_after(5):
                while len(at_a.frames) < 2 or len(at_b.frames) < 3:
                    await trio.lowlevel.checkpoint()
            assert [body["t"] for kind, body in at_a.frames if kind == "sync"] == [
                "root?",
                "root",
            ]


async def test_the_register_goes_first_and_records_cross_both_ways(tmp_path):
    left = FakeRegister(MEMBERS, [b"r1", b"bad and never taken"])
    right = FakeRegister(MEMBERS, [b"r1", b"r2"])
    async with peer("a", tmp_path, left) as a, peer("b", tmp_path, right) as b:
        async with linked(a, b):
            with trio.fail_after(5):
                await a.register.wait_past(0)
            assert b"r2" in left.kept
            assert right.kept == {b"r1", b"r2"}
            left.kept.add(b"r3")
            a.register.touch()
            with trio.fail_after(5):
                await b.register.wait_past(0)
            assert b"r3" in right.kept


async def test_a_member_that_writes_anothers_set_is_refused_and_counted(tmp_path):
    async with peer("a", tmp_path) as a:
        forged = MeshStore.open(
            tmp_path / "forged" / "state.db",
            author="b",  # says that it is b ...
            sign_head=sign_head("c"),  # ... but has not b's key
            clock=FixedClock(),
        )
        with forged:
            async with trio.open_nursery() as nursery:
                await nursery.start(forged.run)
                await forged.write(lambda tx: tx.put(FLEET, NODE, "b", {"name": "evil"}))
                liar = Peer("c", forged, a.register, Replication(forged, a.register), nursery)
                async with linked(a, liar) as (at_a, _):
                    with trio.fail_after(5):
                        while not any(f[1].get("t") == "pull" for f in at_a.frames):
                            await trio.lowlevel.checkpoint()
                        await trio.testing.wait_all_tasks_blocked(0.05)
                nursery.cancel_scope.cancel()
        assert a.store.rows(FLEET, NODE) == []
        assert SetId("b", FLEET) not in a.store.heads
        assert a.replication.statistics()["signature"] == 1


async def test_garbage_is_dropped_and_counted_and_too_much_of_it_ends_the_link(tmp_path):
    async with peer("a", tmp_path) as a:
        at_a, at_b = link_pair("a", "b")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(a.replication.service, at_a)
            nursery.start_soon(a.replication.receipt_service, at_a)
            for body in (None, 7, [], {}, {"t": 1}, {"t": "delta", "n": 1, "parts": [[1]]}):
                await at_b.send("receipt", body)
                await at_b.send("receipt", {"sets": [[SITE, 1, -1]]})
            await at_b.send("receipt", {"sets": [[SITE, 5, 5]]})
            for n in range(64):
                await at_b.send("sync", {"t": "heads", "n": n, "heads": [n], "more": False})
            with trio.fail_after(5):
                while at_a.reason is None:
                    await trio.lowlevel.checkpoint()
        counted = a.replication.statistics()
        assert counted["garbage"] == 64
        assert counted["receipts garbage"] == 12
        assert counted["receipts impossible"] == 1


async def test_an_author_that_lost_its_disk_takes_its_set_back(tmp_path):
    async with peer("b", tmp_path) as b:
        async with peer("a", tmp_path) as a, linked(a, b):
            await a.store.write(lambda tx: tx.put(SITE, SERVER, "old", {"n": 1}))
            await b.until(has(b, SITE, SERVER, "old"))
            epoch = a.store.head(SITE)[0]
        backup = tmp_path / "backup"
        async with peer("a", backup) as a, linked(a, b):
            await a.until(has(a, SITE, SERVER, "old"))
            await a.store.write(lambda tx: tx.put(SITE, SERVER, "new", {"n": 2}))
            assert a.store.head(SITE)[0] > epoch
            await b.until(has(b, SITE, SERVER, "new"))
            assert a.store.heads == b.store.heads


async def test_an_author_that_wrote_on_an_empty_disk_before_it_met_a_peer_loses_nothing(
    tmp_path,
):
    async with peer("b", tmp_path) as b:
        async with peer("a", tmp_path) as a, linked(a, b):
            await a.store.write(lambda tx: tx.put(SITE, SERVER, "old", {"n": 1}))
            await b.until(has(b, SITE, SERVER, "old"))
        async with peer("a", tmp_path / "new disk", now_ms=LATER_MS) as a:
            await a.store.write(lambda tx: tx.put(SITE, SERVER, "new", {"n": 2}))
            assert a.store.head(SITE) > b.store.heads[SetId("a", SITE)].head.point
            async with linked(a, b):
                await a.until(has(a, SITE, SERVER, "old"))
                await b.until(has(b, SITE, SERVER, "new"))
                await b.until(lambda: a.store.heads == b.store.heads)
            assert has(b, SITE, SERVER, "old")()


async def test_a_restored_store_writes_again_after_it_met_a_peer(tmp_path):
    async with peer("a", tmp_path):
        pass
    mark_restored(tmp_path / "a" / "state.db", "a")
    async with peer("a", tmp_path) as a, peer("b", tmp_path) as b:
        assert a.store.awaits_peer
        async with linked(a, b):
            with trio.fail_after(5):
                while a.store.awaits_peer:
                    await trio.lowlevel.checkpoint()
        await a.store.write(lambda tx: tx.put(SITE, SERVER, "s", {"n": 1}))


async def test_a_full_disk_at_the_receiver_does_not_end_its_link(tmp_path):
    def many(tx):
        for n in range(20):
            tx.put(SITE, SERVER, f"s{n}", {"x": b"z" * 20_000})

    async with peer("a", tmp_path) as a, peer("b", tmp_path, bytes_max=150_000) as b:
        await a.store.write(many)
        async with linked(a, b) as (_, at_b):
            with trio.fail_after(5):
                while not any(f[1].get("t") == "pull" for f in at_b.frames):
                    await trio.lowlevel.checkpoint()
                await trio.testing.wait_all_tasks_blocked(0.1)
            assert at_b.reason is None
        assert b.store.rows(SITE, SERVER) == []
        assert b.replication.statistics()["apply failed"] == 1


async def test_a_dead_authors_rows_are_written_anew_by_the_heir_then_dropped(tmp_path):
    members = [replace(member) for member in MEMBERS]
    shared = FakeRegister(members, [b"r1"])
    async with peer("b", tmp_path, shared) as b:
        async with peer("a", tmp_path, shared) as a, linked(a, b):
            await a.store.write(lambda tx: tx.put(SITE, SERVER, "s", {"n": 1}))
            await a.store.write(lambda tx: tx.put(SITE, SIGHTING, "m", {"n": 1}))
            await b.until(has(b, SITE, SIGHTING, "m"))
            epoch, seq = a.store.head(SITE)
        shared.all["a"].status = "revoked"
        shared.all["a"].heads = {SITE: (epoch, seq, b"")}
        b.register.touch()
        await b.replication.collect()
        await b.replication.collect()
        row = b.store.get(SITE, SERVER, "s")
        assert row is not None
        assert (row.author, row.body) == ("b", {"n": 1})
        assert b.store.rows(SITE, SIGHTING) == []
        assert SetId("a", SITE) not in b.store.heads


@pytest.mark.parametrize("deleter", ["a", "b"])
async def test_a_deletion_marker_goes_when_all_authors_have_promised(tmp_path, deleter):
    register = FakeRegister(MEMBERS[:2], [b"r1"])
    async with peer("a", tmp_path, register) as a, peer("b", tmp_path, register) as b:
        async with linked(a, b):
            await a.store.write(lambda tx: tx.put(SITE, SERVER, "s", {"n": 1}))
            await b.until(has(b, SITE, SERVER, "s"))
            by = {"a": a, "b": b}[deleter]
            await by.store.write(lambda tx: tx.delete(SITE, SERVER, "s"))
            with trio.fail_after(10):
                while sum(
                    h.head.rows for h in [*a.store.heads.values(), *b.store.heads.values()]
                ):
                    await a.replication.collect()
                    await b.replication.collect()
                    await trio.testing.wait_all_tasks_blocked(0.05)
        assert a.store.heads == b.store.heads
        assert a.store.get(SITE, SERVER, "s") is None
