"""The files that machines boot from, by name: kernel, ramdisk and loaders.

It knows no protocol. Rule: a name is looked up in a table, never joined to a path, so no name
that a client invents reaches the file system. The table of a folder is read again when the
folder has changed, so that a ramdisk built later is served without a restart.
"""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from mesh.proto.ids import NAME_PATTERN

FILES_MAX: Final = 1000
"""Files of a folder that are served; the first ones by name."""


@dataclass(frozen=True, slots=True)
class BootFile:
    """One file: on disk (``path``) or in memory (``content``); ``etag`` names these bytes."""

    name: str
    size: int
    etag: str
    path: Path | None
    content: bytes = b""


def file_etag(stat: os.stat_result) -> str:
    """Return the entity tag of a file as it is now."""
    return f"{stat.st_size:x}-{stat.st_mtime_ns:x}-{stat.st_ino:x}"


class BootFiles:
    """The table of names: fixed entries first, then the regular files of one folder."""

    def __init__(
        self, folder: Path | None = None, entries: Mapping[str, Path | bytes] | None = None
    ) -> None:
        self._folder = folder
        self._entries = dict(entries or {})
        assert all(NAME_PATTERN.match(name) for name in self._entries)
        self._listed: dict[str, Path] = {}
        self._read_at: int | None = None

    def names(self) -> list[str]:
        """Return all names that are served now."""
        return sorted({*self._entries, *self._folder_table()})

    def get(self, name: str) -> BootFile | None:
        """Return the file of a name, or None; leading slashes of firmware are forgiven."""
        name = name.lstrip("/")
        found = self._entries.get(name, self._folder_table().get(name))
        if found is None:
            return None
        if isinstance(found, bytes):
            return BootFile(
                name,
                len(found),
                hashlib.blake2b(found, digest_size=12).hexdigest(),
                None,
                found,
            )
        try:
            stat = found.stat()
        except OSError:
            return None
        return BootFile(name, stat.st_size, file_etag(stat), found)

    def _folder_table(self) -> dict[str, Path]:
        if self._folder is None:
            return {}
        try:
            changed = self._folder.stat().st_mtime_ns
            if changed != self._read_at:
                with os.scandir(self._folder) as entries:
                    paths = [
                        Path(entry.path)
                        for entry in entries
                        if NAME_PATTERN.match(entry.name) and entry.is_file()
                    ]
                self._listed = {path.name: path for path in sorted(paths)[:FILES_MAX]}
                self._read_at = changed
        except OSError:
            self._listed, self._read_at = {}, None
        return self._listed
