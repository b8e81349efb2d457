"""The address book beside real links on loopback, with a file and without."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import trio

from mesh.addresses import FILE_BYTES_MAX, AddressBook
from mesh.link.level import Level
from mesh.proto.sets import SetId
from mesh.proto.tables import FLEET
from tests.support.link_mesh import WAIT_S, Place, StepClock, eventually, running, until
from tests.support.trust import Org


class NodeRows(Level):
    """The NODE rows of a store, with the changes as the store tells them."""

    def __init__(self) -> None:
        super().__init__()
        self.bodies: dict[str, dict[str, Any]] = {}
        self.changed: list[str] = []

    def put(self, node: str, *addresses: object) -> None:
        self.bodies[node] = {"addresses": list(addresses)}
        self.changed.append(node)
        self.bump()

    def changes_since(self, version: int) -> dict[Any, None] | None:
        changed = self.changed[version:]
        return {SetId(node, FLEET): None for node in changed}

    def authored(self, _scope: str, _table: str, key: str | None = None) -> list[Any]:
        return [
            SimpleNamespace(author=node, key=node, body=body)
            for node, body in self.bodies.items()
            if key in (None, node)
        ]


class Site:
    """Members whose addresses come from books."""

    def __init__(self, *labels: str) -> None:
        self.org = Org()
        for label in labels:
            self.org.admit(label)

    def place(self, label: str, file: Path | None = None, seeds: tuple[str, ...] = ()):
        made = Place(self.org, label)
        rows = NodeRows()
        book = AddressBook(made.id, rows, made.roster, StepClock(), file=file, seeds=seeds)
        made.peers._dialler._addresses = made.peers._keeper._addresses = book
        return made, book, rows


async def test_a_row_leads_to_a_link_and_the_link_to_an_address_that_outlives_all(tmp_path):
    site = Site("a", "b")
    file = tmp_path / "addresses.json"
    a, book, rows = site.place("a", file)
    b, *_ = site.place("b")
    async with running(a, b) as nursery:
        await nursery.start(book.run, a.peers)
        rows.put(b.id, ["127.0.0.9", 1, 0], "rubbish", ["127.0.0.1", b.peers.port, 0])
        await until(a.peers, lambda: b.id in a.peers.connected())
        await eventually(lambda: book()[b.id][0] == ("127.0.0.1", b.peers.port))
    assert json.loads(file.read_text())["peers"][b.id][0][:2] == ["127.0.0.1", b.peers.port]

    again, book, _ = site.place("a", file)
    async with running(again, b) as nursery:
        await nursery.start(book.run, again.peers)
        assert book()[b.id][1:] == [("127.0.0.9", 1)]


async def test_a_damaged_a_huge_and_an_unreadable_file_are_empty_ones(tmp_path):
    site = Site("a", "b")
    damaged, huge, folder = tmp_path / "damaged", tmp_path / "huge", tmp_path / "folder"
    damaged.write_bytes(b'{"peers": {"\xff')
    huge.write_bytes(b"[" * (FILE_BYTES_MAX + 1))
    folder.mkdir()
    for file in (damaged, huge, folder, tmp_path / "deep"):
        if file.name == "deep":
            file.write_bytes(b"[" * 100_000)
        a, book, _ = site.place("a", file)
        async with running(a) as nursery:
            await nursery.start(book.run, a.peers)
            assert book() == {}


async def test_a_seed_without_an_id_finds_the_one_who_is_there():
    site = Site("a", "b", "c", "d")
    b, *_ = site.place("b")
    async with running(b) as nursery:
        a, book, _ = site.place("a", seeds=(f"127.0.0.1:{b.peers.port}",))
        await nursery.start(a.peers.run)
        await nursery.start(book.run, a.peers)
        with trio.fail_after(WAIT_S):
            await until(a.peers, lambda: b.id in a.peers.connected())
        await eventually(lambda: book() == {b.id: [("127.0.0.1", b.peers.port)]})


async def test_who_linked_to_us_can_be_dialled_where_it_came_from():
    site = Site("a", "b")
    a, book, rows = site.place("a")
    b, there, _ = site.place("b")
    async with running(a, b) as nursery:
        await nursery.start(book.run, a.peers)
        await nursery.start(there.run, b.peers)
        there.add_seed(f"{a.id}@127.0.0.1:{a.peers.port}")
        await until(a.peers, lambda: b.id in a.peers.connected())
        rows.put(b.id, ["10.255.255.1", b.peers.port, 0])  # it has moved since it wrote that
        await eventually(lambda: ("127.0.0.1", b.peers.port) in book().get(b.id, ()))


async def test_the_network_is_believed_about_members_only():
    site = Site("a", "b")
    a, book, _ = site.place("a")
    b, *_ = site.place("b")
    async with running(a, b) as nursery:
        await nursery.start(book.run, a.peers)
        book.found("z" * 32, [("127.0.0.1", b.peers.port)])
        book.found(b.id, [("127.0.0.1", b.peers.port)])
        assert set(book()) == {b.id}
        await until(a.peers, lambda: b.id in a.peers.connected())
        book.found(b.id, [])
