"""A consistent copy of everything that only this hub has, made while it runs.

It knows no passphrase and no target: it yields plain bytes to the local socket alone, and who
asks seals them (``hub/restore.py``). Rules: databases are copied by SQLite in one read
transaction each; what others hold or can be made again (reports, the cache) is not inside, and
uploaded content is named; one backup at a time.
"""

import hashlib
import os
import shutil
import sqlite3
import tempfile
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import trio

from hub.errors import Conflict
from hub.joining import SETTINGS_FILE
from hub.proto.backup_file import Manifest, Part
from hub.store import ReportStore
from mesh.errors import StoreFull
from mesh.host.clock import Clock
from mesh.host.files import make_private_folder
from mesh.host.log import get_log
from mesh.host.sqlite_errors import mapping_errors
from mesh.hub_keys import HubKeys

DRAFT: Final = ".backup-"
READ_BYTES: Final = 256 << 10
COPY_S: Final = 3600.0
READER_S: Final = 60.0
FOLDERS: Final = ("keys", "identity", "tls")
log = get_log("backup")


@dataclass(slots=True, kw_only=True)
class BackupDesk:
    """Makes backups of one running hub."""

    data: Path
    keys: HubKeys
    node_id: str
    name: str
    build: str
    reports: ReportStore
    clock: Clock
    busy_until_s: float = 0.0
    """While a copy is made or read; a reader that stood still for READER_S lost its copy."""

    async def stream(self) -> AsyncGenerator[bytes]:
        """Return the manifest's line and the files as a stream; raises Conflict, StoreFull.

        The copy is whole before the first byte is given out.
        """
        if trio.current_time() < self.busy_until_s:
            raise Conflict("a backup is being made already; wait until it is done")
        self.busy_until_s = trio.current_time() + COPY_S
        remove_drafts(self.data)
        folder: Path | None = None
        try:
            folder = Path(tempfile.mkdtemp(prefix=DRAFT, dir=self.data))
            left = left_out(self.reports.documents("asset"))
            manifest = await trio.to_thread.run_sync(self._copy, folder, left)
        except OSError as exc:
            self._end(folder)
            raise StoreFull(f"no room for a copy in {self.data}: {exc.strerror}") from exc
        except BaseException:
            self._end(folder)
            raise
        self.busy_until_s = trio.current_time() + READER_S
        return self._give(folder, manifest)

    async def _give(self, folder: Path, manifest: Manifest) -> AsyncGenerator[bytes]:
        try:
            yield manifest.line()
            for part in manifest.parts:
                file = (folder / part.name).open("rb")
                try:
                    while piece := await trio.to_thread.run_sync(file.read, READ_BYTES):
                        self.busy_until_s = trio.current_time() + READER_S
                        yield piece
                finally:
                    file.close()
            log.info("backup given out", bytes=sum(part.size for part in manifest.parts))
        finally:
            self._end(folder)

    def _end(self, folder: Path | None) -> None:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
        self.busy_until_s = 0.0

    def _copy(self, folder: Path, left: list[dict[str, Any]]) -> Manifest:
        """Copy everything into a folder; in a thread."""
        names: list[str] = []
        with mapping_errors():
            for database in ("state.db", "hub.db"):  # first: what comes later may know more
                _copy_database(self.data / database, folder / database)
                names.append(database)
            forget_sessions(folder / "hub.db")
        names += _copy_files(self.data, folder)
        parts = tuple(_part(folder, name) for name in sorted(names))
        return Manifest(
            node=self.node_id, name=self.name, region=self.keys.region, build=self.build,
            root_fingerprint=self.keys.root_fp.hex(), created_ms=self.clock.now_ms(),
            parts=parts, assets=tuple(left),
        )  # fmt: skip


def left_out(assets: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the content that was uploaded here and has no origin elsewhere."""
    return [
        {
            "name": asset["name"], "asset": asset["asset"], "size": asset["size"],
            "sites": [at["site"] for at in asset["sites"] if at["state"] == "verified"],
        }
        for asset in assets
        if asset["url"] is None and asset["asset"] is not None
    ]  # fmt: skip


def forget_sessions(path: Path) -> None:
    """End every session in a copy of hub.db: a backup must not bring one back."""
    db = sqlite3.connect(path, isolation_level=None)
    try:
        db.execute("DELETE FROM signed_in")
        db.execute("VACUUM")
    finally:
        db.close()


def remove_drafts(data: Path) -> None:
    """Remove what a hub that died at a backup left behind."""
    for folder in data.glob(f"{DRAFT}*"):
        shutil.rmtree(folder, ignore_errors=True)


def _copy_database(source: Path, target: Path) -> None:
    db = sqlite3.connect(f"file:{quote(str(source))}?mode=ro", uri=True, isolation_level=None)
    try:
        db.execute("VACUUM INTO ?", (str(target),))
    finally:
        db.close()


def _copy_files(data: Path, folder: Path) -> list[str]:
    names = ["register", "api-token"]
    names += [SETTINGS_FILE] if (data / SETTINGS_FILE).exists() else []
    for room in FOLDERS:
        make_private_folder(folder / room)
        found = (data / room).iterdir()
        names += [f"{room}/{p.name}" for p in found if p.is_file() and p.name[0] != "."]
    for name in names:
        shutil.copyfile(data / name, folder / name)
    return names


def _part(folder: Path, name: str) -> Part:
    with (folder / name).open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return Part(name, os.fstat(file.fileno()).st_size, digest)
