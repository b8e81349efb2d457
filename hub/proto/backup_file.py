"""The form of a backup: a header in plain, then one sealed stream of a manifest and files.

    rackmesh-backup 1 <newline> {"memory-kib", "passes", "salt"} <newline>   (in plain)
    {"format": 1, "files": [{"name", "size", "sha256"}], ...} <newline>       (sealed)
    the files' bytes, one after another                                       (sealed)

It knows no disk. Rules: the header is covered by every sealed piece; names are from a fixed
list, so a file can only land where a hub keeps it; a format of another number is refused before
anything is written.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

from mesh.errors import CodecError

MAGIC: Final = b"rackmesh-backup 1\n"
FORMAT: Final = 1
CONTEXT: Final = b"rackmesh/backup/1\0"
HEADER_BYTES_MAX: Final = 1024
MANIFEST_BYTES_MAX: Final = 4 << 20
FILES_MAX: Final = 64
NAME: Final = re.compile(
    r"(?:keys|identity|tls)/[a-z][a-z0-9.-]{0,40}\Z|register\Z|api-token\Z|hub\.json\Z"
    r"|(?:state|hub)\.db\Z"
)
NEEDED: Final = frozenset({"keys/ring.key", "identity/identity.key", "register", "state.db"})


@dataclass(frozen=True, slots=True)
class Part:
    """One file of a backup."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What a backup holds, and of which hub."""

    node: str
    name: str
    region: str
    root_fingerprint: str
    build: str
    created_ms: int
    parts: tuple[Part, ...]
    assets: tuple[Mapping[str, Any], ...]
    """Uploaded content that is not inside: name, asset, size, sites that hold it."""

    def line(self) -> bytes:
        """Return the manifest's bytes."""
        value = {
            "format": FORMAT, "node": self.node, "name": self.name, "region": self.region,
            "root_fingerprint": self.root_fingerprint, "build": self.build,
            "created_ms": self.created_ms, "assets": [dict(asset) for asset in self.assets],
            "files": [
                {"name": part.name, "size": part.size, "sha256": part.sha256}
                for part in self.parts
            ],
        }  # fmt: skip
        return json.dumps(value, separators=(",", ":"), sort_keys=True).encode() + b"\n"


def header(lines: Mapping[str, str]) -> bytes:
    """Return the header of a backup whose key was made by these lines (mesh/proto/wrap.py)."""
    known = {name: lines[name] for name in ("memory-kib", "passes", "salt")}
    return MAGIC + json.dumps(known, sort_keys=True).encode() + b"\n"


def read_header(data: bytes) -> tuple[dict[str, str], int]:
    """Return the key's lines and the header's length; CodecError otherwise."""
    end = data.find(b"\n", len(MAGIC))
    if not data.startswith(MAGIC) or end < 0:
        raise CodecError("this is no backup of a hub, or one of a newer version")
    try:
        lines = json.loads(data[len(MAGIC) : end])
    except ValueError as exc:
        raise CodecError("the header of the backup is damaged") from exc
    if not isinstance(lines, dict) or not all(isinstance(v, str) for v in lines.values()):
        raise CodecError("the header of the backup is damaged")
    return cast(dict[str, str], lines), end + 1


def read_manifest(line: bytes) -> Manifest:
    """Return what a manifest says; CodecError when it cannot be restored by this program."""
    try:
        value = json.loads(line)
        if value["format"] != FORMAT:
            raise CodecError(f"the backup has format {value['format']}, this build reads 1")
        parts = tuple(
            Part(str(file["name"]), int(file["size"]), str(file["sha256"]))
            for file in value["files"]
        )
        manifest = Manifest(
            node=str(value["node"]), name=str(value["name"]), region=str(value["region"]),
            root_fingerprint=str(value["root_fingerprint"]), build=str(value["build"]),
            created_ms=int(value["created_ms"]), parts=parts,
            assets=tuple(dict(asset) for asset in value["assets"]),
        )  # fmt: skip
    except (ValueError, KeyError, TypeError) as exc:
        raise CodecError("the list of contents of the backup is damaged") from exc
    names = [part.name for part in parts]
    if len(names) > FILES_MAX or len(set(names)) != len(names):
        raise CodecError("the backup lists too many files, or one twice")
    wrong = [name for name in names if not NAME.match(name)]
    if wrong or any(part.size < 0 for part in parts):
        raise CodecError(f"the backup holds a file that no hub has: {wrong[:1]}")
    if NEEDED - set(names):
        raise CodecError(f"the backup lacks {sorted(NEEDED - set(names))[0]}")
    return manifest
