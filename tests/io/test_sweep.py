"""Sweeping on the real store: what goes, what stays, and what follows it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from mesh.host.clock import FixedClock
from mesh.proto.tables import ASSET, BUDGET, FLEET, INVENTORY, JOB, ORDER, SIGHTING
from mesh.store import MeshStore
from node.proto.sweep import DAY_MS
from node.sweep import Sweeper
from node.work.log import SCHEMA
from tests.support.stores import SITE, opened

LATER_MS = 40 * DAY_MS


@asynccontextmanager
async def sweeping(folder, alive=("a",)) -> AsyncIterator[tuple[MeshStore, Sweeper]]:
    """Open a store with old rows of each kind, and a sweeper whose clock is far ahead."""
    with opened(folder) as store:
        store.local_schema(SCHEMA)
        now_ms = FixedClock().now_ms()

        def old(tx):
            for key in ("j1", "j2"):
                ended = {"id": key, "state": "failed", "created_ms": now_ms, "ended_ms": now_ms}
                tx.put(SITE, JOB, key, ended)
                tx.put(SITE, ORDER, key, {"signed": b"x", "created_ms": now_ms})
                tx.execute("INSERT INTO job_log VALUES (?, 1, 1, 'line')", (key,))
            tx.put(SITE, SIGHTING, "m", {"mac": "m", "last_ms": now_ms})
            tx.put(SITE, INVENTORY, "m", {"mac": "m", "at_ms": now_ms})
            tx.put(SITE, BUDGET, "j1", {"at_ms": now_ms})
            tx.put(SITE, BUDGET, "policy", {"limit": 5})
            tx.put(FLEET, ASSET, "img", {"name": "img", "asset": "b3:1"})

        async with trio.open_nursery() as running:
            await running.start(store.run)
            await store.write(old)
            clock = FixedClock(now_ms + LATER_MS)
            named = {"img": "b3:1"}
            yield store, Sweeper(store, "lab", clock, lambda: alive, lambda: named)
            running.cancel_scope.cancel()


def left(store: MeshStore) -> dict[str, list[str]]:
    tables = {table: store.rows(SITE, table) for table in (JOB, ORDER, INVENTORY)}
    tables |= {table: store.authored(SITE, table) for table in (SIGHTING, BUDGET)}
    tables[ASSET] = store.authored(FLEET, ASSET)
    found = {table: [row.key for row in rows] for table, rows in tables.items() if rows}
    logs = store.query("SELECT DISTINCT job FROM job_log ORDER BY job")
    return found | ({"log": [job for (job,) in logs]} if logs else {})


async def test_old_rows_go_with_their_logs_and_stay_gone(tmp_path):
    async with sweeping(tmp_path) as (store, sweeper):
        assert await sweeper.sweep() == 8
        assert left(store) == {BUDGET: ["policy"]}
        assert await sweeper.sweep() == 0
    with opened(tmp_path) as store:
        assert left(store) == {BUDGET: ["policy"]}


async def test_a_job_that_was_taken_up_again_meanwhile_stays(tmp_path):
    async with sweeping(tmp_path) as (store, sweeper):
        again = lambda tx: tx.put(SITE, JOB, "j2", {"id": "j2", "state": "running"})  # noqa: E731
        store.write, write = (lambda fn: _first(store, write, again, fn)), store.write
        await sweeper.sweep()
        assert left(store)[JOB] == left(store)[ORDER] == ["j2"]
        assert left(store)["log"] == ["j2"]


async def _first(store, write, before, fn):
    """Let another write come in between the look and the write of a sweep."""
    store.write = write
    await write(before)
    return await write(fn)


async def test_who_is_not_the_owner_leaves_merged_rows_to_the_owner(tmp_path):
    others = [f"n{n}" for n in range(50)]  # one of these owns the sweep, almost surely
    async with sweeping(tmp_path, others) as (store, sweeper):
        await sweeper.sweep()
        assert left(store) == {
            JOB: ["j1", "j2"], ORDER: ["j1", "j2"], INVENTORY: ["m"],
            BUDGET: ["policy"], "log": ["j1", "j2"],
        }  # fmt: skip


async def test_a_job_is_archived_after_its_days_and_stays_in_the_store(tmp_path):
    async with sweeping(tmp_path) as (store, _):
        now_ms = FixedClock().now_ms()
        ended = {"id": "k", "state": "failed", "ended_ms": now_ms, "runner": store.author}
        await store.write(lambda tx: tx.put(SITE, JOB, "k", ended))
        for days, archived in ((7, False), (8, True)):
            clock = FixedClock(now_ms + days * DAY_MS)
            await Sweeper(store, "lab", clock, lambda: ("a",), dict, 7).sweep()
            row = store.get(SITE, JOB, "k")
            assert row is not None and ("archived_ms" in row.body) is archived
