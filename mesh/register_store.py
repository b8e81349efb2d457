"""The register on disk: an append-only file of signed records, fsynced before it is believed.

It knows no link; merging is ``mesh/proto/register.py``'s. Rules: a record is acknowledged only
after it is durable; what a full disk does not take holds for this process (a revocation must)
and is written by a later merge; damaged places of the file are left out and counted (each
record has its own check, and peers give it again), and the damaged file is kept beside; without
its trust document a file is refused, for nobody in it could be believed; the file is written
anew, atomically, when it holds more than twice what the register needs.

    8 bytes magic, 20 bytes root fingerprint, then frames: u32 length, 8 bytes BLAKE2b, record
"""

import errno
import hashlib
import os
import struct
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from typing import Final, Self

import trio

from mesh.errors import Refused, StoreBroken, StoreFull
from mesh.host.files import make_private_folder, write_file
from mesh.host.log import get_log
from mesh.proto.ids import ROOT_FINGERPRINT_BYTES
from mesh.proto.register import Merged, Register, Rejected
from mesh.proto.sign import RECORD_BYTES_MAX

MAGIC: Final = b"rmregis1"
HEAD_BYTES: Final = len(MAGIC) + ROOT_FINGERPRINT_BYTES
FRAME_HEAD: Final = struct.Struct(">I8s")
FILE_BYTES_MAX: Final = 256 << 20
SEARCH_BYTES_MAX: Final = 4 << 20
"""How far behind a damaged place the next whole record is looked for, in all."""
NEWS_MAX: Final = 1024
"""Records of the latest merges that are remembered for ``news_since``."""
REWRITE_BYTES_MIN: Final = 1 << 20
"""A file smaller than this is not worth writing anew."""
log = get_log("register")


class RegisterStore:
    """A register that is on disk. One process owns the file; not for use from threads."""

    def __init__(self, path: Path, register: Register, rewrite_bytes_min: int) -> None:
        self.path = path
        self.register = register
        self.version = 0
        self.damaged = 0
        self._changed = trio.Event()
        self._news: deque[tuple[int, bytes]] = deque(maxlen=NEWS_MAX)
        self._size = 0
        self._unwritten: list[bytes] = []
        """Merged records that a full disk did not take."""
        self._early: list[bytes] = []
        """Whole records of a damaged file that nobody vouches for before peers have helped."""
        self._rewrite_bytes_min = rewrite_bytes_min
        self._rewrite_at = rewrite_bytes_min

    @classmethod
    def open(
        cls,
        path: Path,
        root_fp: bytes | None = None,
        rewrite_bytes_min: int = REWRITE_BYTES_MIN,
    ) -> Self:
        """Open the file, or make it when ``root_fp`` is given.

        Raises Refused with one sentence: no register yet, another organisation's register, one
        whose trust document is damaged (with ``root_fp`` the caller has it).
        """
        try:
            size = path.stat().st_size
            if size > FILE_BYTES_MAX:
                raise Refused(f"the register {path} is longer than {FILE_BYTES_MAX} bytes")
            data = path.read_bytes()
        except FileNotFoundError:
            if root_fp is None:
                raise Refused(f"no register at {path}: this node has not joined yet") from None
            make_private_folder(path.parent)
            data = MAGIC + root_fp
            write_file(path, data)
        found = _root_of(path, data)
        if root_fp is not None and found != root_fp:
            raise Refused(
                f"{path} belongs to organisation {found.hex()[:8]}, not {root_fp.hex()[:8]};"
                " use another data folder"
            )
        store = cls(path, Register(found), rewrite_bytes_min)
        store._load(data, alone=root_fp is None)
        return store

    def merge(self, record: bytes) -> bool:
        """Merge one record durably; return whether the register changed."""
        return self.merge_all([record]) > 0

    def merge_all(self, records: Iterable[bytes]) -> int:
        """Merge records with one fsync; return how many changed the register.

        What does not hold is dropped and counted in ``register.counters``. Raises StoreFull
        (the records hold, but are not on disk yet: acknowledge nothing), StoreBroken when the
        disk fails: the process must end then.
        """
        kept: list[bytes] = []
        early, self._early = self._early, []
        for record in (*records, *early):
            outcome = self.register.merge(record)
            released = self.register.take_released()
            kept += [one.wire for one in released]
            if isinstance(outcome, Merged):
                kept.append(outcome.wire)
        if kept:
            self.version += 1
            self._news.extend((self.version, wire) for wire in kept)
            changed, self._changed = self._changed, trio.Event()
            changed.set()
        self._unwritten += kept
        if self._unwritten:
            self._append(self._unwritten)
            self._unwritten = []
        return len(kept)

    def news_since(self, version: int) -> list[bytes] | None:
        """Return the records that were merged after a version, in their order.

        None when that is too long ago to be remembered: compare digests then.
        """
        remembered_from = self._news[0][0] if len(self._news) == NEWS_MAX else 0
        if version < remembered_from:
            return None
        return [wire for when, wire in self._news if when > version]

    async def wait_past(self, version: int) -> int:
        """Wait until the register has changed since ``version``; return the present version."""
        while self.version <= version:
            await self._changed.wait()
        await trio.lowlevel.checkpoint_if_cancelled()
        return self.version

    def _load(self, data: bytes, *, alone: bool) -> None:
        """Merge what the file holds; leave damaged places out; write anew what is history.

        ``alone``: nobody is about to bring the trust document, so it must be here.
        """
        records, self.damaged = _whole_records(data)
        early = [r for r in records if isinstance(self.register.merge(r), Rejected)]
        self._early = early if self.damaged else []
        self.register.take_released()
        self.register.counters.clear()  # what stood here was counted when it came
        needed = sum(len(record) + FRAME_HEAD.size for record in self.register.records())
        if self.damaged:
            write_file(self.path.with_name(f"{self.path.name}.damaged"), data)
            log.error("register damaged", path=self.path, bytes=self.damaged)
            if alone and self.register.trust is None:
                raise Refused(
                    f"{self.path} is damaged and its trust document is lost: put the file of"
                    " another member of this organisation in its place (it holds no secret), or"
                    " join again with a new token"
                )
        self._size = len(data)
        self._rewrite_at = max(self._rewrite_bytes_min, 2 * needed)
        if self.damaged or self._size > self._rewrite_at:
            self._rewrite()

    def _rewrite(self) -> None:
        frames = b"".join(_frame(record) for record in self.register.records())
        write_file(self.path, MAGIC + self.register.root_fp + frames)
        self._size = HEAD_BYTES + len(frames)
        self._rewrite_at = max(self._rewrite_bytes_min, 2 * self._size)

    def _append(self, records: list[bytes]) -> None:
        frames = b"".join(_frame(record) for record in records)
        try:
            if self._size + len(frames) > self._rewrite_at:
                return self._rewrite()  # what is appended is in the register already
            with self.path.open("ab") as file:
                file.write(frames)
                file.flush()
                os.fsync(file.fileno())
            self._size += len(frames)
        except OSError as exc:
            if exc.errno in (errno.ENOSPC, errno.EDQUOT):
                self._cut_back()
                raise StoreFull(f"the disk under {self.path} is full") from exc
            raise StoreBroken(f"cannot write the register {self.path}: {exc.strerror}") from exc

    def _cut_back(self) -> None:
        """Take a half-written end away; a shorter file needs no room."""
        try:
            os.truncate(self.path, self._size)
        except OSError as exc:
            raise StoreBroken(f"cannot write the register {self.path}: {exc.strerror}") from exc


def read_register(path: Path) -> Register:
    """Return what a register file says, for a process that does not own it; changes nothing.

    Raises Refused when the file is no register, OSError when it cannot be read.
    """
    data = path.read_bytes()
    register = Register(_root_of(path, data))
    for record in _whole_records(data)[0]:
        register.merge(record)
    return register


def _root_of(path: Path, data: bytes) -> bytes:
    found = data[len(MAGIC) : HEAD_BYTES]
    if not data.startswith(MAGIC) or len(found) != ROOT_FINGERPRINT_BYTES:
        raise Refused(f"{path} is not a register; restore it, or join in a new folder")
    return found


def _whole_records(data: bytes) -> tuple[list[bytes], int]:
    """Return the records of a file that are whole, and how many bytes are none."""
    found: list[bytes] = []
    at, damaged = HEAD_BYTES, 0
    while at < len(data) and damaged < SEARCH_BYTES_MAX:
        record = _frame_at(data, at)
        if record is None:
            damaged, at = damaged + 1, at + 1
        else:
            found.append(record)
            at += FRAME_HEAD.size + len(record)
    return found, damaged + len(data) - at


def _frame(record: bytes) -> bytes:
    return FRAME_HEAD.pack(len(record), _check(record)) + record


def _frame_at(data: bytes, at: int) -> bytes | None:
    """Return the record at a place in the file, or None at its good end."""
    head = data[at : at + FRAME_HEAD.size]
    if len(head) < FRAME_HEAD.size:
        return None
    size, check = FRAME_HEAD.unpack(head)
    record = data[at + FRAME_HEAD.size : at + FRAME_HEAD.size + size]
    if size > RECORD_BYTES_MAX or len(record) != size or _check(record) != check:
        return None
    return record


def _check(record: bytes) -> bytes:
    return hashlib.blake2b(record, digest_size=8).digest()
