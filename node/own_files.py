"""The running program's own files as one tar archive: what a site without a network installs.

It knows no bundle. Rule: equal files make equal bytes (names in order, no times, no owners).
Unpacked into a folder it runs as ``python rackmesh.py`` beside the packages that it needs,
which are not inside.
"""

import tarfile
from collections.abc import Iterator
from importlib.metadata import distribution
from importlib.resources import files
from importlib.resources.abc import Traversable
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from mesh.host.build import BUILD

ROOMS: Final = ("cache", "drivers", "hub", "mesh", "node")
LEFT_OUT: Final = "__pycache__"


def archive() -> Iterator[bytes]:
    """Yield the archive piece by piece, one file in memory at a time."""
    spec = find_spec("rackmesh")
    assert spec is not None
    assert spec.origin is not None
    said = distribution("rackmesh").read_text("METADATA") or ""
    yield from _member(f"rackmesh-{BUILD}.dist-info/METADATA", said.encode())
    yield from _member("rackmesh.py", Path(spec.origin).read_bytes())
    found = [pair for room in ROOMS for pair in _below(room, files(room))]
    for name, file in sorted(found, key=lambda pair: pair[0]):
        yield from _member(name, file.read_bytes())
    yield bytes(2 * tarfile.BLOCKSIZE)


def _member(name: str, data: bytes) -> Iterator[bytes]:
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(data), 0o644
    yield info.tobuf(tarfile.PAX_FORMAT)
    yield data + bytes(-len(data) % tarfile.BLOCKSIZE)


def _below(name: str, folder: Traversable) -> Iterator[tuple[str, Traversable]]:
    for entry in folder.iterdir():
        if entry.is_dir() and entry.name != LEFT_OUT:
            yield from _below(f"{name}/{entry.name}", entry)
        elif entry.is_file():
            yield f"{name}/{entry.name}", entry
