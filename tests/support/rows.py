"""A replicated store in memory: several members that see each other's rows, or do not.

The contract tests in tests/io/test_ports.py run against this and against the real store.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import trio

from mesh.proto.tables import PER_AUTHOR

T = TypeVar("T")


@dataclass(frozen=True)
class Row:
    author: str
    scope: str
    table: str
    key: str
    seq: int
    hlc: int
    body: dict[str, Any]


@dataclass
class World:
    """What exists: rows by place and author. ``apart`` members see only their own rows."""

    rows: dict[tuple[str, str, str, str], Row] = field(default_factory=dict)
    apart: set[str] = field(default_factory=set)
    stores: list["RowStore"] = field(default_factory=list)
    clock: int = 0

    def changed(self) -> None:
        for store in self.stores:
            store.version += 1
            event, store.event = store.event, trio.Event()
            event.set()


class RowStore:
    """One member's store; it is its own transaction."""

    def __init__(self, world: World, author: str, now_ms: int = 0) -> None:
        self.world, self.author, self.now_ms = world, author, now_ms
        self.version = 1
        self.event = trio.Event()
        world.stores.append(self)

    # -- writing

    async def write(self, fn: Callable[[Any], T]) -> T:
        before = dict(self.world.rows)
        await trio.lowlevel.checkpoint()
        try:
            value = fn(self)
        except Exception:
            self.world.rows = before
            raise
        self.world.changed()
        return value

    def put(self, scope: str, table: str, key: str, body: Mapping[str, Any]) -> None:
        self._put(scope, table, key, dict(body))

    def delete(self, scope: str, table: str, key: str) -> None:
        assert table not in PER_AUTHOR
        self._put(scope, table, key, {})

    def _put(self, scope: str, table: str, key: str, body: dict[str, Any]) -> None:
        self.world.clock += 1
        at = (scope, table, key, self.author)
        now = self.world.clock
        self.world.rows[at] = Row(self.author, scope, table, key, now, now, body)

    # -- reading

    def get(self, scope: str, table: str, key: str) -> Row | None:
        found = [row for row in self._all(scope, table) if row.key == key]
        best = max(found, key=lambda row: (row.hlc, row.author), default=None)
        return best if best and best.body else None

    def rows(self, scope: str, table: str) -> list[Row]:
        if table in PER_AUTHOR:
            return self.authored(scope, table)
        keys = sorted({row.key for row in self._all(scope, table)})
        return [row for key in keys if (row := self.get(scope, table, key))]

    def authored(self, scope: str, table: str, key: str | None = None) -> list[Row]:
        return [row for row in self._all(scope, table) if row.body and key in (None, row.key)]

    def own(self, scope: str, table: str, key: str) -> Row | None:
        rows = self.authored(scope, table, key)
        return next((row for row in rows if row.author == self.author), None)

    async def wait_past(self, version: int) -> int:
        while self.version <= version:
            await self.event.wait()
        return self.version

    def _all(self, scope: str, table: str) -> list[Row]:
        return [
            row
            for row in self.world.rows.values()
            if (row.scope, row.table) == (scope, table)
            and (row.author == self.author or not {self.author, row.author} & self.world.apart)
        ]
