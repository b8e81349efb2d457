"""The reporting store, its filling and the event bus, on real files."""

import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from hub.live import EventBus
from hub.proto.rollup import Changes, Document, digest_of
from hub.store import ReportStore
from mesh.errors import Refused
from mesh.proto import tables
from tests.support.hub_bench import NODE_A, Member, fill, hub_bench


async def test_a_scope_is_read_once_until_its_heads_move(tmp_path: Path) -> None:
    async with hub_bench(tmp_path) as bench:
        fill(bench)
        assert await bench.ingest.read_all() > 0
        assert await bench.ingest.read_all() == 0
        bench.rows.put(tables.site_scope("fra1"), tables.SERVER, "s1", name="renamed")
        assert await bench.ingest.read_all() == 1
        assert bench.services.store.find("server", "renamed")[0]["id"] == "s1"
        bench.rows.drop(tables.site_scope("fra1"), tables.SERVER, "s1")
        await bench.ingest.read_all()
        assert bench.services.store.find("server", "s1") == []


async def test_a_restart_reads_nothing_again_and_an_empty_file_everything(
    tmp_path: Path,
) -> None:
    async with hub_bench(tmp_path) as bench:
        fill(bench)
        first = await bench.ingest.read_all()
        bench.services.store.close()
        again = ReportStore.open(tmp_path / "report.db")
        bench.ingest._reports = again
        assert await bench.ingest.read_all() == 0
        again.close()
        for file in tmp_path.glob("report.db*"):
            file.unlink()
        bench.ingest._reports = fresh = ReportStore.open(tmp_path / "report.db")
        assert await bench.ingest.read_all() == first
        fresh.close()


async def test_a_new_member_shows_without_any_row(tmp_path: Path) -> None:
    async with hub_bench(tmp_path) as bench:
        await bench.ingest.read_all()
        bench.members.found.append(Member("c" * 32, site="ams1", name="newcomer"))
        await bench.ingest.read_all()
        assert bench.services.store.find("node", "newcomer")[0]["site"] == "ams1"


async def test_events_follow_the_commit(tmp_path: Path) -> None:
    async with hub_bench(tmp_path) as bench, trio.open_nursery() as nursery:
        await nursery.start(bench.ingest.run)
        before = bench.services.bus.ring.newest
        bench.rows.put(tables.site_scope("fra1"), tables.SERVER, "s1", name="web-1")
        stream = bench.services.bus.stream(f"run1-{before}")
        with trio.fail_after(5):
            assert b"event: server" in await anext(stream)
        await stream.aclose()
        assert bench.services.store.find("server", "web-1")
        nursery.cancel_scope.cancel()


async def test_a_stream_resumes_and_resets(autojump_clock: trio.testing.MockClock) -> None:
    bus = EventBus("run1")
    bus.publish("server", id="1")
    bus.publish("server", id="2")
    stream = bus.stream("run1-1")
    assert b'"id":"2"' in await anext(stream)
    assert await anext(stream) == b": ping\n\n", "silence is broken by a comment"
    await stream.aclose()
    assert bus.listeners == 0
    other = bus.stream("run0-1")
    assert b"event: reset" in await anext(other)
    await other.aclose()


async def test_last_contact_never_moves_backwards(tmp_path: Path) -> None:
    async with hub_bench(tmp_path) as bench:
        store = bench.services.store
        store.touch({NODE_A: 10})
        store.touch({NODE_A: 5})
        assert store.contacts() == {NODE_A: 10}


def test_a_damaged_reporting_store_is_put_aside_and_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "report.db"
    path.write_bytes(b"no database at all" * 100)
    store = ReportStore.open(path)
    assert store.documents("server") == []
    store.close()
    assert (tmp_path / "report.db.damaged").exists()
    (tmp_path / "folder.db").mkdir()
    with pytest.raises(Refused, match=r"folder\.db cannot be used"):
        ReportStore.open(tmp_path / "folder.db")


@pytest.mark.parametrize("column", ["doc", "state", "name", "id"])
def test_a_document_that_has_rotted_is_never_shown(tmp_path: Path, column: str) -> None:
    path = tmp_path / "report.db"
    document = Document("server", "s1", "fra1", "web-1", "active", '{"state":"active"}', b"")
    parts = [
        getattr(document, name)
        for name in ("kind", "id", "site", "name", "state", "text", "group")
    ]
    written = replace(document, digest=digest_of(*parts))
    store = ReportStore.open(path)
    store.apply("fleet", Changes([written], []), b"mark", 1)
    store.close()
    again = ReportStore.open(path)
    assert again.documents("server") == [{"state": "active"}]
    again.close()
    with closing(sqlite3.connect(path)) as db, db:
        db.execute(f"UPDATE document SET {column} = replace({column}, 'e', 'f') || '1'")
    rebuilt = ReportStore.open(path)
    assert (rebuilt.documents("server"), rebuilt.cursor("fleet")) == ([], None)
    rebuilt.close()
    assert (tmp_path / "report.db.damaged").exists()
