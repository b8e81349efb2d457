"""The store: durable, one process, honest about disks."""

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from mesh.errors import Refused, StoreBroken, StoreFull
from mesh.proto.sets import SetId
from mesh.proto.tables import BINDING, FLEET, HUB_WRITTEN, PRESENCE, SERVER, SIGHTING
from mesh.store import mark_restored
from tests.support.stores import SITE, opened


async def test_a_write_is_there_when_it_returns_and_after_opening_again(tmp_path):
    with opened(tmp_path) as store:
        async with trio.open_nursery() as running:
            await running.start(store.run)
            await store.write(lambda tx: tx.put(SITE, SERVER, "s1", {"name": "web1"}))
            row = store.get(SITE, SERVER, "s1")
            assert row is not None
            assert (row.author, row.body) == ("a", {"name": "web1"})
            assert store.head(SITE)[1] == 1
            running.cancel_scope.cancel()
    with opened(tmp_path) as store:
        assert [row.body["name"] for row in store.rows(SITE, SERVER)] == ["web1"]
        assert store.head(SITE)[1] == 1


async def test_many_writers_share_commits_and_an_error_takes_back_only_its_own(tmp_path):
    def failing(tx):
        tx.put(SITE, SERVER, "bad", {"name": "no"})
        raise ValueError("on purpose")

    with opened(tmp_path) as store:
        async with trio.open_nursery() as running:
            async with trio.open_nursery() as writers:
                for n in range(50):
                    put = lambda tx, n=n: tx.put(SITE, SERVER, f"s{n}", {"n": n})  # noqa: E731
                    writers.start_soon(store.write, put)

                async def fail():
                    with pytest.raises(ValueError, match="on purpose"):
                        await store.write(failing)

                writers.start_soon(fail)
                await running.start(store.run)
            assert len(store.rows(SITE, SERVER)) == 50
            assert store.version == 2  # one group
            running.cancel_scope.cancel()
    with opened(tmp_path) as store:  # roots fit: the failed put left no leaf
        assert len(store.rows(SITE, SERVER)) == 50


async def test_an_equal_put_writes_nothing(tmp_path):
    with opened(tmp_path) as store:
        async with trio.open_nursery() as running:
            await running.start(store.run)
            for _ in range(2):
                await store.write(lambda tx: tx.put(SITE, SERVER, "s", {"n": 1}))
                await store.write(lambda tx: tx.put(FLEET, PRESENCE, "s", {"n": 1}))
            assert (store.head(SITE)[1], store.head(FLEET)[1], store.version) == (1, 1, 3)
            running.cancel_scope.cancel()


async def test_delete_hides_a_row_and_drop_retracts_it(tmp_path):
    with opened(tmp_path) as store:
        async with trio.open_nursery() as running:
            await running.start(store.run)
            await store.write(lambda tx: tx.put(SITE, BINDING, "m", {"ip": "10.0.0.1"}))
            await store.write(lambda tx: tx.delete(SITE, BINDING, "m"))
            assert store.get(SITE, BINDING, "m") is None
            assert store.rows(SITE, BINDING) == []
            assert store.authored(SITE, BINDING) == []
            await store.write(lambda tx: tx.put(SITE, SIGHTING, "m", {"ip": "10.0.0.1"}))
            await store.write(lambda tx: tx.drop(SITE, SIGHTING, "m"))
            assert store.rows(SITE, SIGHTING) == []
            assert await store.write(lambda tx: tx.own(SITE, SIGHTING, "m")) is None
            running.cancel_scope.cancel()


async def test_a_second_process_is_refused_with_folder_and_holder(tmp_path):
    import os

    with opened(tmp_path):
        with pytest.raises(Refused, match=f"{tmp_path}.* process {os.getpid()}"):
            opened(tmp_path)
    opened(tmp_path).close()


async def test_another_nodes_store_is_refused(tmp_path):
    opened(tmp_path, "a").close()
    with pytest.raises(Refused, match="belongs to node a"):
        opened(tmp_path, "b")


async def test_a_file_of_something_else_is_refused_and_left_alone(tmp_path):
    db = sqlite3.connect(tmp_path / "state.db")
    db.execute("CREATE TABLE other (x)")
    db.close()
    before = (tmp_path / "state.db").read_bytes()
    with pytest.raises(Refused, match="not a store"):
        opened(tmp_path)
    assert (tmp_path / "state.db").read_bytes() == before


async def test_a_newer_file_is_refused(tmp_path):
    opened(tmp_path).close()
    db = sqlite3.connect(tmp_path / "state.db")
    db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(Refused, match="newer version"):
        opened(tmp_path)


async def test_a_damaged_file_is_refused(tmp_path):
    opened(tmp_path).close()
    path = tmp_path / "state.db"
    data = bytearray(path.read_bytes())
    data[4096:] = b"\xff" * (len(data) - 4096)
    path.write_bytes(data)
    with pytest.raises(StoreBroken, match=f"mv {path} {path}.damaged"):
        opened(tmp_path)


async def test_own_rows_that_were_changed_behind_our_back_are_refused(tmp_path):
    with opened(tmp_path) as store:
        async with trio.open_nursery() as running:
            await running.start(store.run)
            await store.write(lambda tx: tx.put(SITE, SERVER, "s", {"n": 1}))
            running.cancel_scope.cancel()
    db = sqlite3.connect(tmp_path / "state.db")
    db.execute("UPDATE mesh_row SET hlc = hlc + 1")
    db.commit()
    db.close()
    with pytest.raises(StoreBroken, match=r"not what we signed.*mv .*state\.db"):
        opened(tmp_path)


async def test_a_full_disk_rolls_back_and_the_store_goes_on(tmp_path):
    with opened(tmp_path, bytes_max=200_000) as store:
        async with trio.open_nursery() as running:
            await running.start(store.run)
            await store.write(lambda tx: tx.put(SITE, SERVER, "small", {"n": 1}))
            with pytest.raises(StoreFull):
                await store.write(
                    lambda tx: [
                        tx.put(SITE, SERVER, f"big{n}", {"x": b"y" * 60_000}) for n in range(9)
                    ]
                )
            assert [row.key for row in store.rows(SITE, SERVER)] == ["small"]
            await store.write(lambda tx: tx.put(SITE, SERVER, "small", {"n": 2}))
            running.cancel_scope.cancel()
    with opened(tmp_path) as store:
        assert [row.body for row in store.rows(SITE, SERVER)] == [{"n": 2}]


async def test_a_row_that_no_peer_would_take_is_refused_with_a_sentence(tmp_path):
    with opened(tmp_path) as store:
        async with trio.open_nursery() as running:
            await running.start(store.run)
            with pytest.raises(Refused, match="at most 65536"):
                await store.write(lambda tx: tx.put(SITE, SERVER, "s", {"x": b"y" * 70_000}))
            with pytest.raises(Refused, match="longer than"):
                await store.write(lambda tx: tx.put(SITE, SERVER, "k" * 300, {}))
            running.cancel_scope.cancel()


async def test_local_tables_share_the_transaction(tmp_path):
    with opened(tmp_path) as store:
        store.local_schema(["CREATE TABLE IF NOT EXISTS job_log (n INTEGER, text TEXT)"])

        def both(tx):
            tx.put(SITE, SERVER, "s", {"n": 1})
            tx.execute("INSERT INTO job_log VALUES (?, ?)", (1, "begun"))

        def neither(tx):
            tx.execute("INSERT INTO job_log VALUES (?, ?)", (2, "lost"))
            raise RuntimeError

        async with trio.open_nursery() as running:
            await running.start(store.run)
            await store.write(both)
            with pytest.raises(RuntimeError):
                await store.write(neither)
            assert store.query("SELECT n, text FROM job_log") == [(1, "begun")]
            running.cancel_scope.cancel()


async def test_a_wrong_statement_is_the_writers_own_error(tmp_path):
    with opened(tmp_path) as store:
        async with trio.open_nursery() as running:
            await running.start(store.run)
            with pytest.raises(sqlite3.OperationalError):
                await store.write(lambda tx: tx.execute("SELECT * FROM nowhere"))
            await store.write(lambda tx: tx.put(SITE, SERVER, "s", {"n": 1}))
            running.cancel_scope.cancel()


async def test_waiting_past_a_version_is_a_level(tmp_path):
    with opened(tmp_path) as store:
        async with trio.open_nursery() as running:
            await running.start(store.run)
            seen = store.version
            await store.write(lambda tx: tx.put(SITE, SERVER, "s", {"n": 1}))
            with trio.fail_after(5):
                assert await store.wait_past(seen) == seen + 1
            changes = store.changes_since(seen)
            assert changes is not None
            assert list(changes) == [SetId("a", SITE)]
            assert store.changes_since(store.version) == {}
            running.cancel_scope.cancel()


async def test_a_restored_store_writes_nothing_before_it_has_met_a_peer(tmp_path):
    opened(tmp_path).close()
    mark_restored(tmp_path / "state.db", "a")
    with opened(tmp_path) as store:
        async with trio.open_nursery() as running:
            await running.start(store.run)
            with pytest.raises(Refused, match="restored"):
                await store.write(lambda tx: tx.put(SITE, SERVER, "s", {"n": 1}))
            await store.admit_writes()
            await store.write(lambda tx: tx.put(SITE, SERVER, "s", {"n": 1}))
            running.cancel_scope.cancel()
    opened(tmp_path).close()


IOERR = """
import resource, sys, trio
from pathlib import Path
from mesh.errors import StoreBroken
from tests.support.stores import opened

async def main():
    store = opened(Path(sys.argv[1]))
    try:
        async with trio.open_nursery() as n:
            await n.start(store.run)
            await store.write(lambda tx: tx.put("site:lab", "server", "s", {"n": 1}))
            resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, 150_000))
            def big(tx):
                for k in range(9):
                    tx.put("site:lab", "server", f"b{k}", {"x": b"y" * 60000})
            try:
                await store.write(big)
            except StoreBroken as exc:
                print("write:", exc)
    except* StoreBroken as group:
        print("run ended:", group.exceptions[0])

trio.run(main)
"""


def test_the_first_io_error_ends_the_store(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", IOERR, str(tmp_path)],
        check=False, capture_output=True, text=True, timeout=30,
        cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert "write: the store met an input/output error" in done.stdout, done.stderr
    assert "run ended: the store met an input/output error" in done.stdout
    with opened(tmp_path) as store:
        assert [row.key for row in store.rows(SITE, SERVER)] == ["s"]


async def test_a_node_never_writes_what_is_for_hubs_to_write(tmp_path):
    with opened(tmp_path, hub=False) as store:
        async with trio.open_nursery() as running:
            await running.start(store.run)
            for table in sorted(HUB_WRITTEN):
                with pytest.raises(AssertionError, match="only hubs"):
                    await store.write(lambda tx, table=table: tx.put(FLEET, table, "x", {}))
                with pytest.raises(AssertionError, match="only hubs"):
                    await store.write(lambda tx, table=table: tx.delete(FLEET, table, "x"))
            await store.write(lambda tx: tx.put(FLEET, PRESENCE, "x", {}))
            assert store.head(FLEET)[1] == 1
            running.cancel_scope.cancel()


async def test_who_has_nobody_to_refuse_waits_for_room_and_says_so_once(tmp_path, capsys):
    def large(tx):
        for n in range(4):
            tx.put(SITE, SERVER, f"large{n}", {"x": b"y" * 60_000})

    with opened(tmp_path, bytes_max=500_000) as store:
        async with trio.open_nursery() as running:
            await running.start(store.run)
            for n in range(5):
                fill = lambda tx, n=n: tx.put(SITE, SERVER, f"old{n}", {"x": b"z" * 60_000})  # noqa: E731
                await store.write(fill)
            assert (store.full, store.room.problem) == (False, None)
            waiting = trio.Event()

            async def wait():
                await store.write_when_room(large)
                waiting.set()

            running.start_soon(wait)
            with trio.fail_after(10):
                while store.room.refused < 2:
                    await trio.sleep(0.01)
            assert store.full
            assert str(tmp_path) in store.room.problem
            assert not waiting.is_set()
            await store.write(lambda tx: [tx.drop(SITE, SERVER, f"old{n}") for n in range(5)])
            assert not store.full
            with trio.fail_after(10):
                await waiting.wait()
            assert len(store.rows(SITE, SERVER)) == 4
            running.cancel_scope.cancel()
    said = capsys.readouterr().err
    assert (said.count("disk full"), said.count("disk has room again")) == (1, 1)
