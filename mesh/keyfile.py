"""Private files of keys: 0600 in a 0700 folder, whole or not there, durable on return.

It knows nothing of what the keys are for. Rules: a key file is written beside its place,
fsynced and then linked there, so that it is never half there and never overwritten by accident;
a file that other users can read is refused, not repaired, since the key may have leaked
already. Key files are short lines of text that end in a checksum that tells damage.
"""

import contextlib
import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from mesh.errors import Refused
from mesh.host.files import make_private_folder, sync_folder

FILE_BYTES_MAX: Final = 1 << 16
CHECK_BYTES: Final = 8


class KeyFileDamaged(Exception):
    """The text of a key file is not what was written; the file stays as it is."""


def read_private(path: Path, bytes_max: int = FILE_BYTES_MAX) -> bytes | None:
    """Return the bytes of a private file, None when there is none; raise Refused otherwise."""
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_mode & 0o077:
                raise Refused(f"other users can read {path}; run: chmod 600 {path}")
            data = file.read(bytes_max + 1)
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise Refused(f"cannot read {path}: {exc.strerror}") from exc
    if len(data) > bytes_max:
        raise Refused(f"{path} is longer than {bytes_max} bytes; this is not our file")
    return data


def write_new(path: Path, data: bytes) -> bool:
    """Make a private file durably; return False, and change nothing, when it already exists."""
    make_private_folder(path.parent)
    draft = path.with_name(f".{path.name}.{os.getpid()}.new")
    with contextlib.suppress(FileNotFoundError):
        draft.unlink()  # left behind by a process that had our id and died here
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.link(draft, path)
    except FileExistsError:
        return False
    finally:
        draft.unlink()
    sync_folder(path.parent)
    return True


def render_lines(kind: str, lines: Mapping[str, str]) -> bytes:
    """Return the text of a key file: its kind, ``name value`` lines, a checksum line."""
    assert all(" " not in name and "\n" not in value for name, value in lines.items())
    body = "".join(f"{name} {value}\n" for name, value in lines.items())
    text = f"{kind}\n{body}".encode()
    return text + f"check {_check(text)}\n".encode()


def parse_lines(kind: str, data: bytes) -> dict[str, str]:
    """Return the lines of a key file by name; raise KeyFileDamaged for anything else."""
    head, mark, check = data.rpartition(b"check ")
    if not mark or check != f"{_check(head)}\n".encode():
        raise KeyFileDamaged("the checksum does not hold")
    first, *rest = head.decode().splitlines()
    if first != kind:
        raise KeyFileDamaged(f"this is {first!r}, not {kind!r}")
    pairs = (line.partition(" ") for line in rest)
    return {name: value for name, _, value in pairs}


def _check(text: bytes) -> str:
    return hashlib.blake2b(text, digest_size=CHECK_BYTES).hexdigest()
