"""The register on disk: durable, found again, whole after a torn end."""

import stat

import pytest
import trio
import trio.testing

from mesh.errors import Refused
from mesh.proto.trust import make_key_record
from mesh.register_store import FRAME_HEAD, HEAD_BYTES, NEWS_MAX, RegisterStore
from tests.support.trust import Org, identity


def filled(path) -> tuple[Org, RegisterStore]:
    org = Org()
    org.admit_hub()
    org.admit("n1")
    store = RegisterStore.open(path, org.root_fp)
    assert store.merge_all(org.register.records()) == len(org.register.records())
    return org, store


def test_what_was_merged_is_there_after_a_restart(tmp_path):
    path = tmp_path / "mesh" / "register"
    org, _ = filled(path)
    again = RegisterStore.open(path)
    assert again.register.digest() == org.register.digest()
    assert again.register.root_fp == org.root_fp
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_an_old_record_changes_nothing_and_does_not_grow_the_file(tmp_path):
    path = tmp_path / "register"
    org, store = filled(path)
    size, version = path.stat().st_size, store.version
    assert not store.merge(org.trust)
    assert not store.merge(b"garbage")
    assert (path.stat().st_size, store.version) == (size, version)


@pytest.mark.parametrize("cut", [1, 7, 100])
def test_a_torn_end_is_cut_off_kept_aside_and_counted(tmp_path, cut):
    path = tmp_path / "register"
    org, _ = filled(path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    again = RegisterStore.open(path)
    assert again.damaged > 0
    assert len(again.register.records()) == len(org.register.records()) - 1
    assert (tmp_path / "register.damaged").read_bytes() == whole[:-cut]
    again.merge_all(org.register.records())
    healed = RegisterStore.open(path)
    assert (healed.damaged, healed.register.digest()) == (0, org.register.digest())


def frames(path) -> list[tuple[int, int]]:
    """Where each record of a file stands, with the head of its frame: (begin, end)."""
    data, at, found = path.read_bytes(), HEAD_BYTES, []
    while at < len(data):
        size = FRAME_HEAD.unpack_from(data, at)[0] + FRAME_HEAD.size
        found.append((at, at + size))
        at += size
    return found


def flip(path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 0x40
    path.write_bytes(data)


@pytest.mark.parametrize("where", [0, 5, 40])
def test_a_flipped_byte_costs_one_record_and_never_brings_a_wrong_one(tmp_path, where):
    path = tmp_path / "register"
    org, _ = filled(path)
    *_, (begin, end) = frames(path)[:-1]
    flip(path, begin + where)
    again = RegisterStore.open(path)
    assert again.damaged == end - begin
    assert set(again.register.records()) < set(org.register.records())
    assert len(again.register.records()) == len(org.register.records()) - 1
    assert RegisterStore.open(path).damaged == 0, "what is left was written anew"


def test_a_page_of_garbage_is_passed_over(tmp_path):
    path = tmp_path / "register"
    org, _ = filled(path)
    data, begin = path.read_bytes(), frames(path)[-1][0]
    path.write_bytes(data[:begin] + b"\x00\x00\x00\x40" * 1024 + data[begin:])
    again = RegisterStore.open(path)
    assert (again.damaged, again.register.digest()) == (4096, org.register.digest())


def test_without_its_trust_document_a_register_is_refused_and_left_as_it_is(tmp_path):
    path = tmp_path / "register"
    org, _ = filled(path)
    flip(path, HEAD_BYTES + 30)
    damaged = path.read_bytes()
    for _ in range(2):
        with pytest.raises(Refused, match="another member"):
            RegisterStore.open(path)
    assert path.read_bytes() == damaged
    again = RegisterStore.open(path, org.root_fp)
    assert not again.register.members()
    again.merge(org.trust)
    assert again.register.digest() == org.register.digest(), "whole records are believed again"
    assert RegisterStore.open(path).register.digest() == org.register.digest()


def test_a_folder_without_register_and_a_foreign_register_are_refused(tmp_path):
    with pytest.raises(Refused, match="not joined yet"):
        RegisterStore.open(tmp_path / "none")
    filled(tmp_path / "register")
    with pytest.raises(Refused, match="belongs to organisation"):
        RegisterStore.open(tmp_path / "register", Org("other").root_fp)
    (tmp_path / "junk").write_bytes(b"hello")
    with pytest.raises(Refused, match="not a register"):
        RegisterStore.open(tmp_path / "junk")


def test_a_file_that_is_mostly_history_is_written_anew(tmp_path):
    path = tmp_path / "register"
    filled(path)
    store = RegisterStore.open(path, rewrite_bytes_min=4096)
    who = identity("n1")
    for epoch in range(2, 60):
        assert store.merge(make_key_record(who, bytes([epoch]) * 32, epoch))
    assert path.stat().st_size < 10_000
    again = RegisterStore.open(path)
    assert again.register.digest() == store.register.digest()
    assert again.register.member(who.node_id).kem_epoch == 59


async def test_a_change_wakes_who_waits(tmp_path):
    org, store = filled(tmp_path / "register")
    seen = []

    async def wait() -> None:
        seen.append(await store.wait_past(store.version))

    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            store.merge(org.roster(identity("n2")))
    assert seen == [store.version]


def test_news_are_what_was_merged_after_a_version_and_none_when_that_is_forgotten(tmp_path):
    _, store = filled(tmp_path / "register")
    before = store.version
    assert store.news_since(before) == []
    signer = identity("n1")
    fresh = [make_key_record(signer, bytes([number]) * 32, number) for number in (2, 3)]
    for record in fresh:
        assert store.merge(record)
    assert store.news_since(before) == fresh
    assert store.news_since(store.version - 1) == fresh[1:]
    for number in range(4, NEWS_MAX + 4):
        store.merge(make_key_record(signer, number.to_bytes(32), number))
    assert store.news_since(before) is None
    assert store.news_since(store.version - 1) is not None
