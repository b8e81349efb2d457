"""Small files that must survive a power cut: written beside, fsynced, then renamed.

Rule: after ``write_file`` returned, the whole new content is on disk, before it the whole old
one, with the given mode from the first byte on.
"""

import json
import os
from pathlib import Path
from typing import Any


def write_file(path: Path, content: bytes | str, mode: int = 0o600) -> None:
    """Replace a file atomically and durably; raises OSError."""
    data = content.encode() if isinstance(content, str) else content
    beside = path.with_name(f".{path.name}.new")
    beside.unlink(missing_ok=True)
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(beside, path)
    sync_folder(path.parent)


def write_json(path: Path, value: Any, mode: int = 0o600) -> None:
    """Replace a JSON file atomically and durably."""
    write_file(path, json.dumps(value, indent=1, sort_keys=True) + "\n", mode)


def sync_folder(path: Path) -> None:
    """Make renames in a folder durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_private_folder(path: Path) -> Path:
    """Make a folder (and its parents) that only its owner can enter; return it."""
    path.mkdir(parents=True, exist_ok=True)
    path.chmod(0o700)
    return path


def put_aside(path: Path) -> None:
    """Move a damaged SQLite database, with its log, to NAME.damaged, over an older one."""
    for suffix in ("", "-wal", "-shm"):
        file = path.with_name(path.name + suffix)
        if file.exists():
            file.replace(path.with_name(f"{path.name}.damaged{suffix}"))


def act_as_owner(path: Path) -> None:
    """As root, become the user who owns a folder that exists, so that he can use what we make.

    For commands that prepare the folder of a service; there is no way back to root.
    """
    if os.geteuid() != 0 or not path.is_dir():
        return
    owner = path.stat()
    if owner.st_uid != 0:
        os.setgroups([])
        os.setgid(owner.st_gid)
        os.setuid(owner.st_uid)
