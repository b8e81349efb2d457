"""After a restore: what came back is told, and two stores of one member are noticed."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from hub.errors import NotFound
from hub.restored import REPORT_FILE, RestoreDesk
from hub.store import ReportStore
from mesh.host.clock import FixedClock
from mesh.host.files import write_json
from mesh.proto.tables import HUBS, ORDER, TOKEN
from mesh.store import MeshStore, Tx, mark_restored
from mesh.sync import Replication
from tests.support.members import (
    FakeMember,
    FakeRegister,
    FakeRegisterStore,
    link_pair,
    sign_head,
)

SITE = "site:lab"
NOW_MS = 1_700_000_000_000
MEMBERS = (
    FakeMember("n", "lab"),
    FakeMember("h", "", frozenset({"hub"})),
)


class Side:
    """A member's store and replication; several may have the same name."""

    def __init__(self, path: Path, name: str, now_ms: int) -> None:
        self.path, self.name, self.clock = path, name, FixedClock(now_ms)
        self.store = MeshStore.open(
            path / "state.db", author=name, sign_head=sign_head(name), clock=self.clock
        )
        self.register = FakeRegister(MEMBERS)
        self.replication = Replication(self.store, FakeRegisterStore(self.register))

    async def put(self, scope: str, table: str, key: str) -> None:
        def write(tx: Tx) -> None:
            tx.put(scope, table, key, {"key": key})

        await self.store.write(write)

    def report(self, force: bool = False) -> RestoreDesk:
        class Register(FakeRegister):
            def member(self, name: str) -> Any:
                return self.all.get(name)

        return RestoreDesk(
            path=self.path / REPORT_FILE, store=self.store, replication=self.replication,
            register=Register(MEMBERS),  # type: ignore[arg-type]
            reports=ReportStore.open(self.path / "report.db"), read_order=lambda _: None,
            clock=self.clock, force=force,
        )  # fmt: skip


@asynccontextmanager
async def side(path: Path, name: str, now_ms: int = NOW_MS) -> AsyncGenerator[Side]:
    found = Side(path, name, now_ms)
    async with trio.open_nursery() as nursery:
        await nursery.start(found.store.run)
        yield found
        nursery.cancel_scope.cancel()
    found.store.close()


@asynccontextmanager
async def linked(one: Side, other: Side) -> AsyncGenerator[None]:
    a, b = link_pair(one.name, other.name)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(one.replication.service, a)
        nursery.start_soon(other.replication.service, b)
        yield
        nursery.cancel_scope.cancel()


async def until(what: Any) -> None:
    with trio.fail_after(10):
        while not what():
            await trio.testing.wait_all_tasks_blocked(0.01)


def copied(store: MeshStore, target: Path) -> None:
    """Back a store up as the hub does."""
    import sqlite3

    target.mkdir()
    db = sqlite3.connect(f"file:{store.path}?mode=ro", uri=True, isolation_level=None)
    db.execute("VACUUM INTO ?", (str(target / "state.db"),))
    db.close()


async def test_what_came_back_after_a_restore_is_listed(
    tmp_path: Path,
) -> None:
    async with side(tmp_path / "n", "n", NOW_MS + 10_000) as node:
        async with side(tmp_path / "h", "h") as old:
            await old.put(SITE, ORDER, "before")
            await old.put(HUBS, TOKEN, "before")
            copied(old.store, tmp_path / "h2")
            old.clock.advance(5_000)
            await old.put(SITE, ORDER, "after")
            async with linked(old, node):
                await until(lambda: node.store.get(SITE, ORDER, "after"))
            await old.put(SITE, ORDER, "reached nobody")
        mark_restored(tmp_path / "h2" / "state.db", "h")
        write_json(
            tmp_path / "h2" / REPORT_FILE,
            {"backup_ms": NOW_MS, "restored_ms": NOW_MS + 9_000},
        )
        async with side(tmp_path / "h2", "h", NOW_MS + 20_000) as new:
            desk = new.report()
            assert desk.report()["state"] == "waits"
            assert desk.report()["waits_for"] == ["a node of site lab"]
            (problem,) = desk.problems()
            assert "writes nothing before it has met a node of site lab" in problem
            async with trio.open_nursery() as nursery:
                nursery.start_soon(desk.run)
                async with linked(new, node):
                    await until(lambda: not new.store.awaits_peer)
                    await new.put(SITE, ORDER, "new")
                    await until(lambda: desk.report()["went_on_ms"])
                    await until(lambda: desk.report()["got_back"])
                nursery.cancel_scope.cancel()
            found = desk.report()
            assert [row["key"] for row in found["got_back"]] == ["after"]
            assert (found["orders_got_back"], found["sites_not_met"]) == (1, [])
            assert found["lost_from_ms"] == NOW_MS + 5_000
            assert new.store.own.twin_ms is None
            again = new.report()
            assert again.report() == found, "it stands until somebody has read it"
            again.dismiss()
            with pytest.raises(NotFound):
                new.report().report()
            for made in (desk, again):
                made.reports.close()


@pytest.mark.parametrize("alone", [True, False])
async def test_writing_goes_on_when_nobody_else_is_left_or_by_force(
    tmp_path: Path, alone: bool
) -> None:
    async with side(tmp_path / "h", "h") as old:
        await old.put(SITE, ORDER, "before")
    mark_restored(tmp_path / "h" / "state.db", "h")
    write_json(tmp_path / "h" / REPORT_FILE, {"backup_ms": 1, "restored_ms": 2})
    async with side(tmp_path / "h", "h") as new, trio.open_nursery() as nursery:
        if alone:
            del new.register.all["n"]
            new.replication.roster.refresh()
        desk = new.report(force=not alone)
        epoch = new.store.head(SITE)[0]
        nursery.start_soon(desk.run)
        await until(lambda: not new.store.awaits_peer)
        await new.put(SITE, ORDER, "after")
        assert new.store.head(SITE)[0] > epoch
        assert desk.report()["forced"] is not alone
        desk.reports.close()
        nursery.cancel_scope.cancel()


async def test_two_hubs_made_of_one_are_noticed_by_both(tmp_path: Path) -> None:
    async with side(tmp_path / "n", "n") as node, side(tmp_path / "h", "h") as old:
        await old.put(SITE, ORDER, "before")
        copied(old.store, tmp_path / "h2")
        mark_restored(tmp_path / "h2" / "state.db", "h")
        async with side(tmp_path / "h2", "h", NOW_MS + 20_000) as new:
            async with linked(new, node):
                await until(lambda: not new.store.awaits_peer)
                await new.put(SITE, ORDER, "of the new one")
                await until(lambda: node.store.get(SITE, ORDER, "of the new one"))
            assert old.store.own.twin_ms is new.store.own.twin_ms is None
            async with linked(old, node):
                await until(lambda: old.store.own.twin_ms is not None)
                old.clock.advance(60_000)
                await old.put(SITE, ORDER, "of the old one")
                await until(lambda: node.store.get(SITE, ORDER, "of the old one"))
            async with linked(new, node):
                await until(lambda: new.store.own.twin_ms is not None)
            desk = new.report()
            assert any(
                "another process writes with this member's keys" in p for p in desk.problems()
            )
            desk.reports.close()
