"""Content that is not kept as it came: a qcow2 image becomes the raw disk that it stands for.

It knows files, not names. Rules: what came is looked at here before any converter sees it
(cache/proto/qcow2.py); the converter runs fenced in (mesh/host/child.py), in a folder of its
own, on a file that it may only read; what it made is hashed here, byte by byte, and the folder
is gone afterwards, whatever happened.
"""

import os
import shutil
import stat
from pathlib import Path
from typing import Final

import trio

from cache.errors import ImageRefused, NoConverter
from cache.intake import Intake
from cache.proto.manifest import Manifest
from cache.proto.qcow2 import LOOK_BYTES, check_qcow2
from mesh.host.child import ChildFailed, ChildLimits, nobody, run_child, sees_no_network
from mesh.host.log import get_log
from mesh.proto.content import HEAD_BYTES, QCOW2, why_not

CONVERTER: Final = "qemu-img"
WORK_SUFFIX: Final = ".work"
"""Of a folder beside the file that is converted; what a killed process left is swept."""
MEMORY_BYTES: Final = 2 << 30
"""Of address space: qemu-img's threads reserve stacks that they hardly use."""
CPU_S: Final = 3600
NOT_YET_BYTES: Final = 1 << 62
"""Stands for the length of a file that still grows."""
TIME_S: Final = 2 * 3600.0
log = get_log("cache")


def why_no_converter() -> str | None:
    """Say what is missing to convert images here, or None."""
    if shutil.which(CONVERTER):
        return None
    return (
        f"{CONVERTER} is missing, so qcow2 images cannot be converted: apt install qemu-utils"
    )


def check_converter(kind: str) -> None:
    """Raise NoConverter when content of this kind cannot be made here."""
    missing = why_no_converter() if kind == QCOW2 else None
    if missing is not None:
        raise NoConverter(missing)


def wrong_kind(path: Path, kind: str) -> str | None:
    """Say why a file cannot be of a kind, by its first bytes; None: it can."""
    with path.open("rb") as file:
        return why_not(kind, file.read(HEAD_BYTES))


def virtual_bytes(path: Path, whole: bool) -> int:
    """Return the size of the disk in a qcow2 file; raises ImageRefused.

    Of a file that is not ``whole`` yet it is not asked where its tables are.
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size if whole else NOT_YET_BYTES
        return check_qcow2(file.read(LOOK_BYTES), size).virtual_bytes


def _argv(converter: str) -> list[str]:
    words = ["convert", "-f", "qcow2", "-O", "raw", "-S", "64k", "source", "raw"]
    return [os.path.realpath(converter), *words]


async def make_raw(source: Path, size: int, work: Path) -> Path:
    """Convert a checked qcow2 file into a raw disk of ``size`` bytes; return its path.

    It lies in ``work``, which is made anew and which the caller removes. Raises ImageRefused or
    NoConverter.
    """
    converter = shutil.which(CONVERTER)
    if converter is None:
        check_converter(QCOW2)
        raise AssertionError
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(mode=0o700)
    os.link(source, work / "source")
    user = nobody()
    if user is not None:
        os.chown(work, *user)
        source.chmod(0o444)  # the child reads it through its own folder, and cannot write it
    limits = ChildLimits(memory_bytes=MEMORY_BYTES, cpu_s=CPU_S, file_bytes=size, time_s=TIME_S)
    argv = _argv(converter)
    if not await sees_no_network(work):
        log.warning("the kernel gives no network namespace: the converter keeps ours")
    try:
        await run_child(argv, work, limits)
    except ChildFailed as exc:
        raise ImageRefused(f"it could not be converted: {exc}") from exc
    finally:
        source.chmod(0o600)
    return _checked(work / "raw", size)


def _checked(raw: Path, size: int) -> Path:
    """Return what the converter left, if it is one plain file of the right size."""
    found = raw.lstat() if raw.is_file() and not raw.is_symlink() else None
    if found is None or not stat.S_ISREG(found.st_mode) or found.st_nlink != 1:
        raise ImageRefused("the converter left no disk")
    if found.st_size != size:
        raise ImageRefused(f"the converter left {found.st_size} of {size} bytes")
    os.chown(raw, os.geteuid(), os.getegid(), follow_symlinks=False)
    raw.chmod(0o600)
    return raw


async def hash_file(path: Path, limiter: trio.CapacityLimiter) -> Manifest:
    """Return the manifest of a finished file; all of it is read, and durable."""
    intake = Intake(path)
    try:
        while not await trio.to_thread.run_sync(intake.scan, limiter=limiter):
            pass
        return await trio.to_thread.run_sync(intake.finish, limiter=limiter)
    finally:
        intake.close()
