"""One contract for both storages: the dictionaries of the simulator and SQLite."""

import sqlite3

import pytest

from mesh.proto.sets import Entry, Head, SetId, SignedHead, pack_head
from mesh.proto.storage import MemoryStorage, Stage, Storage
from mesh.store_sql import SCHEMA, SqlStorage

A, B = SetId("a", "fleet"), SetId("b", "fleet")


@pytest.fixture(params=["memory", "sqlite"])
def storage(request):
    if request.param == "memory":
        yield MemoryStorage()
        return
    db = sqlite3.connect(":memory:", isolation_level=None)
    for statement in SCHEMA:
        db.execute(statement)
    yield SqlStorage(db)
    db.close()


def entry(key: str, seq: int, body: bytes | None = b"\x80", table: str = "t") -> Entry:
    return Entry(table, key, seq, seq * 10, body)


def signed(set_id: SetId, seq: int) -> SignedHead:
    head = Head(*set_id, 1, seq, 0, bytes(16), 5, 1, 1)
    return SignedHead(head, pack_head(head), b"s" * 64)


def test_a_head_is_kept_and_replaced(storage: Storage):
    assert storage.head(A) is None
    storage.save_head(signed(A, 1))
    storage.save_head(signed(B, 7))
    storage.save_head(signed(A, 2))
    assert storage.head(A) == signed(A, 2)
    assert sorted(h.head.seq for h in storage.heads()) == [2, 7]


def test_rows_come_by_seq_and_a_key_is_replaced(storage: Storage):
    storage.save_entries(A, [entry("x", 3), entry("y", 1), entry("z", 2)])
    storage.save_entries(A, [entry("y", 5)])
    assert [e.key for e in storage.entries(A)] == ["z", "x", "y"]
    assert [e.key for e in storage.entries_since(A, 2)] == ["x", "y"]
    assert [e.key for e in storage.upto(A, 3)] == ["z", "x"]
    assert [e.key for e in storage.oldest(A, 1)] == ["z"]
    assert storage.entry(A, "t", "y") == entry("y", 5)
    assert storage.entry(A, "t", "none") is None
    assert list(storage.entries(B)) == []


def test_retracted_rows_are_rows_but_are_not_shown(storage: Storage):
    storage.save_entries(A, [entry("x", 1), entry("y", 2, None), entry("z", 3, b"")])
    storage.save_entries(B, [entry("x", 9), entry("x", 10, table="u")])
    storage.save_entries(SetId("b", "hubs"), [entry("x", 9)])
    assert storage.keyed("fleet", "t", "x") == [("a", entry("x", 1)), ("b", entry("x", 9))]
    assert storage.keyed("fleet", "t", "y") == []
    shown = [(author, e.key) for author, e in storage.tabled("fleet", "t")]
    assert shown == [("a", "x"), ("a", "z"), ("b", "x")]
    assert len(list(storage.entries(A))) == 3


def test_rows_are_deleted_cleared_and_forgotten(storage: Storage):
    storage.save_head(signed(A, 3))
    storage.save_entries(A, [entry("x", 1), entry("y", 2), entry("z", 3)])
    storage.delete_entries(A, [("t", "x"), ("t", "none")])
    assert [e.key for e in storage.entries(A)] == ["y", "z"]
    storage.clear(A)
    assert (list(storage.entries(A)), storage.head(A)) == ([], signed(A, 3))
    storage.save_stage(A, Stage(1, 0, 3, 1), [entry("x", 3)])
    storage.forget(A)
    assert (storage.head(A), storage.stage(A), storage.heads()) == (None, None, [])
    storage.save_head(signed(A, 4))  # it may come again
    assert storage.head(A) == signed(A, 4)


def test_a_stage_grows_and_is_dropped(storage: Storage):
    assert storage.stage(A) is None
    storage.save_stage(A, Stage(1, 0, 2, 2), [entry("x", 1), entry("y", 2)])
    storage.save_stage(A, Stage(1, 0, 3, 3), [entry("x", 3)])
    assert storage.stage(A) == Stage(1, 0, 3, 3)
    assert list(storage.staged(A)) == [entry("y", 2), entry("x", 3)]
    assert list(storage.entries(A)) == []
    storage.drop_stage(A)
    storage.drop_stage(B)
    assert (storage.stage(A), list(storage.staged(A))) == (None, [])


def test_texts_and_bodies_come_back_as_they_were(storage: Storage):
    odd = Entry("tab\u00e9", "k\x00'\"\u2603", 1, (1 << 63) - 1, bytes(range(256)))
    storage.save_entries(A, [odd])
    assert storage.entry(A, odd.table, odd.key) == odd


def test_the_memory_storage_undoes_everything():
    storage = MemoryStorage()
    storage.save_head(signed(A, 1))
    storage.save_entries(A, [entry("x", 1)])
    storage.forget_undo()
    mark = storage.mark()
    storage.save_entries(A, [entry("x", 2), entry("y", 3)])
    storage.save_stage(B, Stage(1, 0, 3, 1), [entry("z", 3)])
    storage.forget(A)
    storage.undo_to(mark)
    assert list(storage.entries(A)) == [entry("x", 1)]
    assert (storage.head(A), storage.stage(B)) == (signed(A, 1), None)
