"""Backup and restore on real folders: everything comes back, and nothing by halves."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from hub import founding
from hub.accounts import Accounts
from hub.backup import BackupDesk
from hub.config import HubConfig
from hub.errors import Conflict
from hub.passwords import Passwords
from hub.restore import (
    DRAFT,
    MOVED,
    NEW,
    READY,
    finish,
    occupied,
    put_in_place,
    seal_to,
    unpack,
)
from hub.restored import REPORT_FILE
from mesh.errors import Refused
from mesh.host.clock import FixedClock
from mesh.host.files import make_private_folder, write_json

PASSPHRASE = "four words make it"
KEPT = ("keys", "identity", "tls", "register", "api-token", "state.db", "hub.db")


class StandingClock(FixedClock):
    """Knows no wall clock that a key's date could contradict."""

    def begin_with_key(self, made_ms: int) -> None:
        pass


def opened(data: Path) -> founding.Ground:
    make_private_folder(data)
    return founding.open_ground(HubConfig(data=data, listen="127.0.0.1"), 1, StandingClock())


def desk_of(ground: founding.Ground) -> BackupDesk:
    return BackupDesk(
        data=ground.config.data, keys=ground.keys, node_id=ground.identity.node_id, name="hub",
        build="1", reports=ground.reports, clock=ground.clock,
    )  # fmt: skip


@pytest.fixture
async def made(tmp_path: Path) -> tuple[Path, Path]:
    """A hub's data with the account ann, and its backup from before the account bob."""
    data, file = tmp_path / "hub", tmp_path / "hub.backup"
    ground = opened(data)
    async with trio.open_nursery() as nursery:
        await nursery.start(ground.store.run)
        await ground.accounts.create("ann", "admin", "a long password")
        ground.desk.sign_in("ann", 0)
        desk = desk_of(ground)
        stream = await desk.stream()
        with pytest.raises(Conflict, match="being made already"):
            await desk.stream()
        pieces = [piece async for piece in stream]
        seal_to(file, iter(pieces), PASSPHRASE)
        await ground.accounts.create("bob", "admin", "a long password")
        nursery.cancel_scope.cancel()
    ground.close()
    assert not list(data.glob(".backup-*"))
    return data, file


def names(data: Path) -> list[str]:
    ground = opened(data)
    assert ground.store.awaits_peer
    found = [a.name for a in Accounts(ground.store, Passwords(), ground.clock).list()]
    assert ground.desk.session("anything", 0) is None
    ground.close()
    return found


def content(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.endswith((".lock", "-wal", "-shm"))
    }


async def test_a_backup_made_while_the_hub_writes_becomes_that_hub(
    made: tuple[Path, Path], tmp_path: Path
) -> None:
    data, file = made
    target = make_private_folder(tmp_path / "new")
    manifest = unpack(file, PASSPHRASE, target)
    assert put_in_place(target, manifest, 1234) is None
    for name in KEPT:
        assert (target / name).exists(), name
    for name in ("keys/ring.key", "identity/identity.key", "api-token", "register"):
        assert (target / name).read_bytes() == (data / name).read_bytes()
        assert (target / name).stat().st_mode & 0o777 == 0o600
    assert json.loads((target / REPORT_FILE).read_text())["restored_ms"] == 1234
    assert names(target) == ["ann"]
    assert not (target / DRAFT).exists()


async def test_what_was_there_is_put_aside_and_the_cache_stays(
    made: tuple[Path, Path],
) -> None:
    data, file = made
    (data / "cache" / "mark").write_bytes(b"cached")
    assert occupied(data)
    aside = put_in_place(data, unpack(file, PASSPHRASE, data), 99)
    assert aside == data / "replaced-99"
    assert (data / "cache" / "mark").read_bytes() == b"cached"
    assert names(data) == ["ann"]
    shutil.rmtree(data / "cache")
    old = data / "replaced-99"
    (old / "state.db.lock").unlink(missing_ok=True)
    assert {name for name in KEPT if (old / name).exists()} == set(KEPT)


@pytest.mark.parametrize("cut", range(0, 22, 3))
async def test_a_power_cut_in_the_swap_leaves_the_backup_whole(
    made: tuple[Path, Path], tmp_path: Path, cut: int
) -> None:
    """Do the first ``cut`` renames as a process that then died; a start does the rest."""
    data, file = made
    unpack(file, PASSPHRASE, data)
    draft, kept = data / DRAFT, data / "replaced-7"
    write_json(draft / NEW / REPORT_FILE, {"backup_ms": 1, "restored_ms": 7})
    want = content(draft / NEW)
    write_json(draft / READY, {"aside": "replaced-7"})
    stays = {DRAFT, "run", "hub.lock", "cache", "replaced-7"}
    steps: list[Callable[[], object]] = [lambda: make_private_folder(kept)]
    for path in sorted(data.iterdir()):
        if path.name not in stays:
            steps.append(lambda path=path: path.rename(kept / path.name))
    steps.append((draft / MOVED).touch)
    for path in sorted((draft / NEW).iterdir()):
        steps.append(lambda path=path: path.rename(data / path.name))
    for step in steps[:cut]:
        step()
    lock = founding.lock_folder(data)
    lock.release()
    assert not draft.exists()
    found = content(data)
    assert {name: found.get(name) for name in want} == want
    assert (kept / "keys" / "ring.key").exists()
    assert finish(data) is None, "nothing is left to do"


async def test_nothing_changes_for_a_file_that_cannot_be_restored(
    made: tuple[Path, Path], tmp_path: Path
) -> None:
    data, file = made
    before = content(data)
    whole = file.read_bytes()
    bad = tmp_path / "bad"
    for wrong, told in (
        (whole[:-1], "damaged"), (whole[: len(whole) // 2], "damaged"), (b"", "no backup"),
        (whole[:200] + bytes([whole[200] ^ 1]) + whole[201:], "passphrase is wrong, or"),
    ):  # fmt: skip
        bad.write_bytes(wrong)
        with pytest.raises(Refused, match=told):
            unpack(bad, PASSPHRASE, data)
    with pytest.raises(Refused, match="the passphrase is wrong, or the file is damaged"):
        unpack(file, "another passphrase", data)
    assert content(data) == before
    with pytest.raises(Refused, match="already exists"):
        seal_to(file, iter([b""]), PASSPHRASE)
    assert file.read_bytes() == whole


async def test_a_hub_that_lost_its_database_counts_as_restored(
    made: tuple[Path, Path],
) -> None:
    data, _ = made
    for path in data.glob("state.db*"):
        path.unlink()
    ground = opened(data)
    assert ground.store.awaits_peer
    assert not ground.first
    assert json.loads((data / REPORT_FILE).read_text())["backup_ms"] is None
    ground.close()
