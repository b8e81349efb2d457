"""Rows of a store as DHCP's snapshot, and the table of boot files."""

import os
from ipaddress import IPv4Address
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

from mesh.proto import tables
from node.boot.aging import KEEP_MS, SWEEP_MAX, stale
from node.boot.files import BootFiles
from node.boot.snapshot import ABSENT_EACH_S, SnapshotSource
from tests.support.boot_site import SUBNET, node_row


class Rows:
    """The reading half of the store, from lists."""

    def __init__(self) -> None:
        self.version = 1
        self.tables: dict[str, list[Any]] = {}

    def put(self, table: str, key: str, body: dict[str, Any], author: str = "a") -> None:
        self.version += 1
        row = SimpleNamespace(author=author, key=key, hlc=self.version, body=body)
        self.tables.setdefault(table, []).append(row)

    heads: ClassVar[dict[Any, Any]] = {}

    def changes_since(self, version: int) -> None:
        return None

    def rows(self, scope: str, table: str) -> list[Any]:
        assert scope == "site:lab"
        return self.tables.get(table, [])

    def authored(self, scope: str, table: str) -> list[Any]:
        assert scope == "fleet"
        return self.tables.get(table, [])


def source(rows: Any, address: str = "10.77.0.1", **more: Any) -> SnapshotSource:
    absent, now = more.get("absent", frozenset), more.get("now", lambda: 0.0)
    return SnapshotSource(rows, "lab", IPv4Address(address), absent, now)


def test_only_what_members_say_about_themselves_makes_the_service_set() -> None:
    rows = Rows()
    rows.put(tables.SUBNET, SUBNET["cidr"], SUBNET)
    rows.put(tables.NODE, "a", node_row("10.77.0.1"))
    rows.put(tables.NODE, "b", node_row("10.77.0.66"), author="a")  # about another
    rows.put(tables.NODE, "c", node_row("10.77.0.3", site="other"), author="c")
    rows.put(tables.NODE, "d", {**node_row("10.77.0.4"), "services": ["cache"]}, author="d")
    snapshot = source(rows).current()
    assert [member.node for member in snapshot.members] == ["a"]


def test_the_snapshot_is_built_again_only_when_rows_or_absences_change() -> None:
    rows = Rows()
    gone: set[str] = set()
    now = [0.0]
    held = source(rows, absent=lambda: frozenset(gone), now=lambda: now[0])
    first = held.current()
    assert held.current() is first
    rows.put(tables.NODE, "a", node_row("10.77.0.1"))
    second = held.current()
    assert second is not first
    gone.add("a")
    assert held.current() is second, "not looked at for every packet"
    now[0] += ABSENT_EACH_S
    assert held.current().absent == {"a"}


def test_an_expensive_snapshot_is_built_for_a_fifth_of_the_time_at_most() -> None:
    now, cost = [10.0], [0.1]

    def looked() -> float:
        return now[0]

    class Dear(Rows):
        def authored(self, scope: str, table: str) -> list[Any]:
            now[0] += cost[0]
            return super().authored(scope, table)

    rows = Dear()
    held = source(rows, now=looked)
    first = held.current()
    rows.put(tables.NODE, "a", node_row("10.77.0.1"))
    now[0] = 10.4
    assert held.current() is first, "it took 0.1 s, so not before 10.5"
    assert held.version < rows.version
    now[0] = 10.6
    assert held.current() is not first
    assert held.version == rows.version


def row(key: str, **body: Any) -> Any:
    return SimpleNamespace(author="a", key=key, hlc=1, body=body)


def test_bindings_of_machines_long_gone_end_and_no_others() -> None:
    now_ms = 10 * KEEP_MS
    old, new = now_ms - KEEP_MS - 1, now_ms - KEEP_MS + 1
    bindings = [
        row("gone", claimed_ms=old),
        row("older", claimed_ms=old - 5),
        row("seen", claimed_ms=old),
        row("new", claimed_ms=new),
        row("server", claimed_ms=old),
        row("strange", claimed_ms="x"),
    ]
    sightings = [row("seen", last_ms=old), row("seen", last_ms=new), row("gone", last_ms=7)]
    assert stale(bindings, sightings, {"server"}, now_ms) == ["strange", "older", "gone"]
    assert len(stale([row(str(n)) for n in range(999)], [], set(), now_ms)) == SWEEP_MAX


def test_clients_without_a_relay_are_on_the_subnet_of_our_own_address() -> None:
    rows = Rows()
    rows.put(tables.SUBNET, SUBNET["cidr"], SUBNET)
    rows.put(tables.SUBNET, "10.1.0.0/24", {"cidr": "10.1.0.0/24"})
    rows.put(tables.SUBNET, "nonsense", {})
    assert str(source(rows).current().direct) == "10.77.0.0/24"
    assert str(source(rows, "10.1.0.1").current().direct) == "10.1.0.0/24"


def test_a_folder_is_served_by_name_and_read_again_when_it_changes(tmp_path: Path) -> None:
    folder = tmp_path / "boot"
    files = BootFiles(folder, {"memory": b"abc"})
    assert files.names() == ["memory"]
    folder.mkdir()
    (folder / "vmlinuz").write_bytes(b"k" * 10)
    (folder / ".hidden").write_bytes(b"no")
    (folder / "sub").mkdir()
    (tmp_path / "outside").write_bytes(b"no")
    assert files.names() == ["memory", "vmlinuz"]
    kernel = files.get("/vmlinuz")
    assert kernel is not None
    assert kernel.size == 10
    (folder / "vmlinuz").write_bytes(b"k" * 11)
    changed = files.get("vmlinuz")
    assert changed is not None
    assert changed.etag != kernel.etag
    os.unlink(folder / "vmlinuz")
    assert files.get("vmlinuz") is None
    for name in ("../outside", "sub", ".hidden", "sub/../vmlinuz", "", "/"):
        assert files.get(name) is None
