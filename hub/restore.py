"""Putting a backup in place: opened and checked beside, then swapped in, whole or not at all.

It runs in a command of its own while no hub runs on the folder (the lock says so). Rules: the
backup is unpacked into ``DATA/.restore/new`` and proved there (digests, keys that fit together,
a store that is sound) before anything of DATA changes; the swap is made of renames that
``finish`` can go on with after a power cut, which a starting hub does first; what stood there
before is kept in ``DATA/replaced-...``, except the cache, which stays.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Final

from hub.proto.backup_file import (
    CONTEXT,
    HEADER_BYTES_MAX,
    MANIFEST_BYTES_MAX,
    Manifest,
    header,
    read_header,
    read_manifest,
)
from hub.restored import REPORT_FILE
from mesh.errors import CodecError, MeshError, Refused
from mesh.host.files import make_private_folder, sync_folder, write_json
from mesh.hub_keys import RING_FILE, load_or_make_hub_keys
from mesh.identity import load_or_make_identity
from mesh.proto.sealed_stream import SEALED_BYTES, Opener, Sealer
from mesh.proto.wrap import SALT_BYTES, WrapCost, derive_key
from mesh.register_store import RegisterStore
from mesh.store import mark_restored

DRAFT: Final = ".restore"
NEW: Final = "new"
READY: Final = "ready.json"
MOVED: Final = "moved"
STAYS: Final = frozenset({DRAFT, "run", "hub.lock", "cache"})
"""What a restore leaves where it is; cached content is proved by its own name."""
PIECES: Final = 16


def seal_to(target: Path, pieces: Iterator[bytes], passphrase: str) -> int:
    """Write what a running hub gives out as a sealed file (0600); return its bytes.

    ``target`` must not exist; it appears when it is whole and durable.
    """
    cost = WrapCost()
    lines = {
        "memory-kib": str(cost.memory_kib), "passes": str(cost.passes),
        "salt": os.urandom(SALT_BYTES).hex(),
    }  # fmt: skip
    head = header(lines)
    sealer = Sealer(derive_key(lines, passphrase), CONTEXT + head)
    beside = target.with_name(f".{target.name}.{os.getpid()}.new")
    try:
        handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(head)
            for piece in pieces:
                file.write(sealer.feed(piece))
            file.write(sealer.finish())
            file.flush()
            os.fsync(file.fileno())
            size = file.tell()
        os.link(beside, target)
    except FileExistsError:
        raise Refused(f"{target} already exists; give a name that is free") from None
    finally:
        beside.unlink(missing_ok=True)
    sync_folder(target.parent)
    return size


def unpack(source: Path, passphrase: str, data: Path) -> Manifest:
    """Unpack and prove a backup beside the data; Refused with one sentence otherwise.

    Nothing of the data changes before ``put_in_place``.
    """
    draft = data / DRAFT
    if draft.exists():
        shutil.rmtree(draft)  # an attempt that never became ready
    folder = make_private_folder(draft / NEW)
    try:
        with source.open("rb") as file:
            manifest = _unpack(_Plain(file, passphrase), folder)
        _prove(folder, manifest)
    except (CodecError, OSError) as exc:
        shutil.rmtree(draft, ignore_errors=True)
        said = f"cannot be restored: {exc.strerror}" if isinstance(exc, OSError) else str(exc)
        raise Refused(f"{source}: {said}") from exc
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    return manifest


def occupied(data: Path) -> bool:
    """Tell whether a folder holds anything that a restore would put aside."""
    return any(path.name not in STAYS for path in data.iterdir())


def put_in_place(data: Path, manifest: Manifest, now_ms: int) -> Path | None:
    """Swap the unpacked backup in; return where the data of before is, None for none."""
    draft = data / DRAFT
    report = {"backup_ms": manifest.created_ms, "restored_ms": now_ms,
              "assets": [dict(asset) for asset in manifest.assets]}  # fmt: skip
    write_json(draft / NEW / REPORT_FILE, report)
    _sync_tree(draft / NEW)
    aside = f"replaced-{now_ms}" if occupied(data) else None
    write_json(draft / READY, {"aside": aside})
    sync_folder(data)
    return finish(data)


def finish(data: Path) -> Path | None:
    """Do or go on with a swap that is ready; without one only an unready draft is removed."""
    draft = data / DRAFT
    try:
        aside = json.loads((draft / READY).read_text())["aside"]
    except FileNotFoundError:
        if draft.exists():
            shutil.rmtree(draft)
        return None
    kept = data / aside if aside else None
    if not (draft / MOVED).exists():
        if kept is not None:
            make_private_folder(kept)
            for path in sorted(data.iterdir()):
                if path.name not in STAYS and not path.name.startswith("replaced-"):
                    path.rename(kept / path.name)
            sync_folder(kept)
            sync_folder(data)
        (draft / MOVED).touch()
        sync_folder(draft)
    for path in sorted((draft / NEW).iterdir()):
        path.rename(data / path.name)
    sync_folder(data)
    (draft / READY).unlink()
    sync_folder(draft)
    shutil.rmtree(draft)
    return kept


class _Plain:
    """The plaintext of a sealed file, read bit by bit."""

    def __init__(self, file: BinaryIO, passphrase: str) -> None:
        head = file.read(HEADER_BYTES_MAX)
        lines, size = read_header(head)
        try:
            key = derive_key(lines, passphrase)
        except (KeyError, ValueError) as exc:
            raise CodecError("the header of the backup is damaged") from exc
        file.seek(size)
        self._file, self._opener = file, Opener(key, CONTEXT + head[:size])
        self._held, self._over, self._first = bytearray(), False, True

    def read(self, most: int) -> bytes:
        """Return up to so many bytes, none at the end."""
        while not self._held and not self._over:
            self._fill()
        taken = bytes(self._held[:most])
        del self._held[:most]
        return taken

    def line(self) -> bytes:
        """Return the bytes up to the next newline."""
        while b"\n" not in self._held and not self._over:
            if len(self._held) > MANIFEST_BYTES_MAX:
                raise CodecError("the list of contents of the backup is too long")
            self._fill()
        end = self._held.find(b"\n") + 1
        if not end:
            raise CodecError("the backup has no list of contents")
        return self.read(end)

    def _fill(self) -> None:
        sealed = self._file.read(PIECES * SEALED_BYTES)
        try:
            self._held += self._opener.feed(sealed) if sealed else self._opener.finish()
        except CodecError as exc:
            if self._first:
                raise CodecError("the passphrase is wrong, or the file is damaged") from exc
            raise CodecError("the file is damaged or was cut off") from exc
        self._over = not sealed
        self._first = self._first and not self._held


def _unpack(plain: _Plain, folder: Path) -> Manifest:
    manifest = read_manifest(plain.line())
    total = sum(part.size for part in manifest.parts)
    free = shutil.disk_usage(folder).free
    if total > free:
        raise Refused(f"the backup needs {total} bytes in {folder}, {free} are free")
    for part in manifest.parts:
        target = folder / part.name
        make_private_folder(target.parent)
        digest, left = hashlib.sha256(), part.size
        handle = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as file:
            while left:
                piece = plain.read(min(left, 1 << 20))
                if not piece:
                    raise CodecError(f"the backup ends inside {part.name}")
                digest.update(piece)
                file.write(piece)
                left -= len(piece)
        if digest.hexdigest() != part.sha256:
            raise CodecError(f"{part.name} is not what was backed up")
    if plain.read(1):
        raise CodecError("the backup holds more than it lists")
    return manifest


def _prove(folder: Path, manifest: Manifest) -> None:
    """Check that the parts belong together, and let the store wait for a peer."""
    identity = load_or_make_identity(folder / "identity")
    if not (folder / "keys" / RING_FILE).exists() or identity.node_id != manifest.node:
        raise CodecError(f"the keys are not those of hub {manifest.node}")
    keys = load_or_make_hub_keys(folder / "keys", manifest.region)
    if keys.root_fp.hex() != manifest.root_fingerprint:
        raise CodecError("the keys are of another organisation than the backup says")
    register = RegisterStore.open(folder / "register", keys.root_fp)
    if register.register.member(identity.node_id) is None:
        raise CodecError("the register does not know the hub itself")
    try:
        mark_restored(folder / "state.db", identity.node_id)
    except MeshError as exc:
        raise CodecError(f"state.db is not sound: {exc}") from exc
    for path in folder.glob("*.lock"):
        path.unlink()


def _sync_tree(folder: Path) -> None:
    """Make every file below a folder durable."""
    for path in [*folder.rglob("*"), folder]:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def shown(manifest: Manifest) -> dict[str, Any]:
    """Return what the command says of a backup."""
    return {
        "node": manifest.node, "name": manifest.name, "build": manifest.build,
        "root_fingerprint": manifest.root_fingerprint, "created_ms": manifest.created_ms,
        "bytes": sum(part.size for part in manifest.parts),
        "files": [part.name for part in manifest.parts],
        "assets_not_inside": [dict(asset) for asset in manifest.assets],
    }  # fmt: skip
