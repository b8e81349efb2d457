"""A bundle: assets and the signed rows that name them, in one file that people carry.

    8 bytes magic, 20 bytes root fingerprint, the state (a whole file of ``courier.py``),
    of each asset: its chunks but those of zeros, its manifest core; the index, the seal,
    u32 length of the index, u32 length of the seal, 8 bytes magic

It knows no disk and no chunk. Rules: the index lies at the end, so a file that was cut short is
told at once; the parts lie one after the other with nothing between; the seal is a member's
signature over the index and says who made the file, never that a name is right: that the names'
own signatures say.
"""

import hashlib
import struct
from dataclasses import dataclass
from typing import Any, Final

from mesh.errors import CodecError
from mesh.proto import fields
from mesh.proto.codec import pack, unpack_map
from mesh.proto.ids import ASSET_PATTERN, NAME_PATTERN, ROOT_FINGERPRINT_BYTES, node_id
from mesh.proto.sign import Signer, open_record, sign_record

MAGIC: Final = b"rmbundl1"
END: Final = b"rmbundl."
TAIL: Final = struct.Struct(">II8s")
HEAD_BYTES: Final = len(MAGIC) + ROOT_FINGERPRINT_BYTES
SEAL: Final = "bundle"
DIGEST_BYTES: Final = 32
INDEX_BYTES_MAX: Final = 1 << 20
SEAL_BYTES_MAX: Final = 4096
ASSETS_MAX: Final = 256
NAMES_MAX: Final = 64
"""Names of one content."""
CORE_BYTES_MAX: Final = 16 << 20
CHUNKS_MAX: Final = 1 << 20
BYTES_MAX: Final = 1 << 48
CUT: Final = "the file is cut short or damaged; copy or create it again"


@dataclass(frozen=True, slots=True)
class Part:
    """One asset in a bundle: ``at`` is where its chunks begin, its core follows them."""

    asset: str
    names: tuple[str, ...]
    size: int  # of the asset, bytes
    chunks: int  # of the asset, those of zeros too
    at: int
    stored: int  # bytes of its chunks in the file
    core: int  # bytes of its manifest core


@dataclass(frozen=True, slots=True)
class Installer:
    """The program's own files, one tar archive at the end of the parts."""

    build: str
    at: int
    size: int
    digest: bytes


@dataclass(frozen=True, slots=True)
class Index:
    """What a bundle holds."""

    build: str
    state: int  # bytes of the state, which lies first
    state_digest: bytes
    parts: tuple[Part, ...]
    installer: Installer | None = None

    @property
    def end(self) -> int:
        """Return where the index begins."""
        last = self.parts[-1] if self.parts else None
        end = HEAD_BYTES + self.state if last is None else last.at + last.stored + last.core
        return end + (self.installer.size if self.installer else 0)

    def dump(self) -> bytes:
        """Return the index as it stands in a file."""
        tar = self.installer
        data = pack({
            "v": 1, "build": self.build, "state": self.state, "state_digest": self.state_digest,
            "parts": [
                {"asset": p.asset, "names": list(p.names), "size": p.size,
                 "chunks": p.chunks, "stored": p.stored, "core": p.core}
                for p in self.parts
            ],
            "installer": tar and {"build": tar.build, "size": tar.size, "digest": tar.digest},
        })  # fmt: skip
        assert len(data) <= INDEX_BYTES_MAX
        return data


@dataclass(frozen=True, slots=True)
class Seal:
    """Who made a bundle, and when (Unix ms of the maker's clock)."""

    node: str
    made_ms: int


def digest_of(data: bytes) -> bytes:
    """Return the digest of an index, as the seal covers it."""
    return hashlib.blake2b(data, digest_size=DIGEST_BYTES).digest()


def make_seal(signer: Signer, root_fp: bytes, digest: bytes, now_ms: int) -> bytes:
    """Return a member's signature over the digest of an index."""
    assert len(digest) == DIGEST_BYTES
    return sign_record(signer, SEAL, 1, root_fp, {"index": digest, "made_ms": now_ms})


def open_seal(seal: bytes, root_fp: bytes, index: bytes) -> Seal:
    """Return who signed an index; raises CodecError. Whether that is a member, others say."""
    body, public, _ = open_record(seal, SEAL, 1, root_fp)
    if fields.raw(body, "index", DIGEST_BYTES) != digest_of(index):
        raise CodecError("the signature of the bundle is of another list of contents")
    return Seal(node_id(public), fields.integer(body, "made_ms"))


def head(root_fp: bytes) -> bytes:
    """Return what a bundle begins with."""
    assert len(root_fp) == ROOT_FINGERPRINT_BYTES
    return MAGIC + root_fp


def read_head(data: bytes) -> bytes:
    """Return the root fingerprint; raise CodecError for what is no bundle."""
    if len(data) < HEAD_BYTES or not data.startswith(MAGIC):
        raise CodecError("this is no file of rackmesh bundle create")
    return data[len(MAGIC) : HEAD_BYTES]


def tail(index: bytes, seal: bytes) -> bytes:
    """Return what a bundle ends with, the index first."""
    return index + seal + TAIL.pack(len(index), len(seal), END)


def read_tail(data: bytes, file_bytes: int) -> tuple[int, int]:
    """Return the lengths of index and seal from the last TAIL.size bytes of a file."""
    if len(data) != TAIL.size:
        raise CodecError(CUT)
    index, seal, magic = TAIL.unpack(data)
    room = file_bytes - HEAD_BYTES - TAIL.size
    if magic != END or index > INDEX_BYTES_MAX or seal > SEAL_BYTES_MAX:
        raise CodecError(CUT)
    if index + seal > room:
        raise CodecError(CUT)
    return index, seal


def read_index(data: bytes, end: int) -> Index:
    """Return what an index says that begins at ``end`` of its file; raises CodecError."""
    try:
        found = _read(unpack_map(data, INDEX_BYTES_MAX))
    except CodecError as exc:
        raise CodecError(f"the list of contents cannot be read: {exc}") from exc
    if found.end != end:
        raise CodecError("the list of contents does not fit the file; create it again")
    return found


def _read(body: dict[str, Any]) -> Index:
    if body.get("v") != 1:
        raise CodecError("it is of another version of rackmesh")
    state = fields.integer(body, "state", least=1, most=BYTES_MAX)
    at, parts = HEAD_BYTES + state, list[Part]()
    for item in fields.items(body, "parts", count_max=ASSETS_MAX):
        part = _part(item, at)
        parts.append(part)
        at += part.stored + part.core
    if len({part.asset for part in parts}) != len(parts):
        raise CodecError("it lists an asset twice")
    return Index(
        build=fields.text(body, "build", chars_max=64),
        state=state,
        state_digest=fields.raw(body, "state_digest", DIGEST_BYTES),
        parts=tuple(parts),
        installer=_installer(body.get("installer"), at),
    )


def _part(item: Any, at: int) -> Part:
    if not isinstance(item, dict):
        raise CodecError("it lists something that is no asset")
    part = Part(
        asset=fields.text(item, "asset", chars_max=80),
        names=fields.texts(item, "names", count_max=NAMES_MAX, chars_max=63),
        size=fields.integer(item, "size", most=BYTES_MAX),
        chunks=fields.integer(item, "chunks", most=CHUNKS_MAX),
        at=at,
        stored=fields.integer(item, "stored", most=BYTES_MAX),
        core=fields.integer(item, "core", least=1, most=CORE_BYTES_MAX),
    )
    if not ASSET_PATTERN.match(part.asset) or part.stored > part.size:
        raise CodecError("it lists something that is no asset")
    if not part.names or not all(NAME_PATTERN.match(name) for name in part.names):
        raise CodecError("it lists an asset without a right name")
    return part


def _installer(item: Any, at: int) -> Installer | None:
    if item is None:
        return None
    if not isinstance(item, dict):
        raise CodecError("it lists something that is no installer")
    return Installer(
        build=fields.text(item, "build", chars_max=64),
        at=at,
        size=fields.integer(item, "size", least=1, most=BYTES_MAX),
        digest=fields.raw(item, "digest", DIGEST_BYTES),
    )
