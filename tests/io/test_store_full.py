"""Store and register on a file system that is really full."""

import errno
import shutil
import subprocess
from collections.abc import Generator
from pathlib import Path

import pytest
import trio

from mesh.errors import StoreFull
from mesh.proto.tables import SERVER
from mesh.register_store import RegisterStore
from tests.support.stores import SITE, opened
from tests.support.trust import Org

pytestmark = pytest.mark.root


@pytest.fixture
def disk(tmp_path: Path) -> Generator[Path]:
    """A file system of 2 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "test", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def fill(disk: Path) -> Path:
    filler = disk / "filler"
    with filler.open("ab", buffering=0) as out:
        try:
            while True:
                out.write(b"x" * 4096)
        except OSError as exc:
            if exc.errno != errno.ENOSPC:
                raise
    return filler


def number(store) -> int:
    row = store.get(SITE, SERVER, "s")
    return -1 if row is None else row.body["n"]


async def write(store, n: int) -> None:
    await store.write(lambda tx: tx.put(SITE, SERVER, "s", {"n": n, "x": b"y" * 5000}))


async def test_a_store_on_a_full_disk_answers_and_goes_on(disk):
    with opened(disk) as store:
        async with trio.open_nursery() as running:
            await running.start(store.run)
            await write(store, 1)
            filler = fill(disk)
            with pytest.raises(StoreFull):
                await write(store, 2)
            assert (number(store), store.full) == (1, True)
            filler.unlink()
            with trio.fail_after(10):
                await store.write_when_room(lambda tx: tx.put(SITE, SERVER, "s", {"n": 3}))
            assert (number(store), store.full) == (3, False)
            running.cancel_scope.cancel()


async def test_after_a_power_cut_a_full_disk_is_said_and_nothing_is_lost(disk, tmp_path):
    kept = ("state.db", "state.db-wal")
    with opened(disk) as store:
        async with trio.open_nursery() as running:
            await running.start(store.run)
            await write(store, 1)
            for name in kept:  # what a power cut leaves: the WAL's index must be made anew
                shutil.copy(disk / name, tmp_path / name)
            running.cancel_scope.cancel()
    for file in disk.iterdir():
        file.unlink()
    for name in kept:
        shutil.copy(tmp_path / name, disk / name)
    filler = fill(disk)
    with pytest.raises(StoreFull, match="is full"):
        opened(disk)
    filler.unlink()
    with opened(disk) as store:
        assert number(store) == 1


def test_what_a_full_disk_does_not_take_holds_and_is_written_later(disk):
    org = Org()
    org.admit_hub()
    store = RegisterStore.open(disk / "register", org.root_fp)
    store.merge_all(org.register.records())
    filler, before = fill(disk), len(RegisterStore.open(disk / "register").register.records())
    for n in range(40):
        org.admit(f"n{n}")
    with pytest.raises(StoreFull):
        store.merge_all(org.register.records())
    assert store.register.digest() == org.register.digest()
    assert len(RegisterStore.open(disk / "register").register.records()) == before
    filler.unlink()
    store.merge_all(())
    again = RegisterStore.open(disk / "register")
    assert (again.damaged, again.register.digest()) == (0, org.register.digest())
