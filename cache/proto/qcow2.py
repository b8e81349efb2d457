"""What a qcow2 image says of itself, and whether a converter may be let at it at all.

The header of QEMU's ``docs/interop/qcow2.txt``, versions 2 and 3. It knows no file: the first
bytes and the length come in, the facts or a refusal come out. Rule: an image that names any
other file (backing file, external data file), that wants features which this does not know, or
whose tables lie where the file has no bytes is refused here, before any foreign program opens
it; garbage never raises anything but the refusal.
"""

import struct
from dataclasses import dataclass
from typing import Final

from cache.errors import ImageRefused

MAGIC: Final = b"QFI\xfb"
HEADER_BYTES: Final = 72
HEADER_3_BYTES: Final = 104
LOOK_BYTES: Final = 36 << 10
"""So many first bytes are looked at; header extensions must lie within them."""
VIRTUAL_BYTES_MAX: Final = 64 << 30
"""The largest disk that the ramdisk writes from one manifest (65,536 chunks of 1 MiB)."""
L1_BYTES_MAX: Final = 32 << 20
REFCOUNT_CLUSTERS_MAX: Final = 8 << 20
SNAPSHOTS_MAX: Final = 1024
EXTENSIONS_MAX: Final = 64

DIRTY, CORRUPT, DATA_FILE, COMPRESSION, EXTENDED_L2 = (1 << bit for bit in range(5))
_KNOWN: Final = DIRTY | COMPRESSION | EXTENDED_L2
_END, _BACKING_FORMAT, _DATA_FILE_NAME, _CRYPTO = 0, 0xE2792ACA, 0x44415441, 0x0537BE77
_FIXED: Final = struct.Struct(">4sIQIIQIIQQIIQ")
_MORE: Final = struct.Struct(">QQQII")


@dataclass(frozen=True, slots=True)
class Qcow2:
    """An image that a converter may be given."""

    version: int
    virtual_bytes: int
    cluster_bytes: int


def check_qcow2(head: bytes, file_bytes: int) -> Qcow2:
    """Return what the first bytes of an image of this length say; raises ImageRefused."""
    if len(head) < HEADER_BYTES or head[:4] != MAGIC:
        raise ImageRefused("it is no qcow2 image")
    (
        _, version, backing_at, backing_bytes, cluster_bits, size, crypt, l1_entries, l1_at,
        refcounts_at, refcount_clusters, snapshots, snapshots_at,
    ) = _FIXED.unpack_from(head)  # fmt: skip
    if version not in (2, 3):
        raise ImageRefused(f"it is qcow2 of version {version}; 2 and 3 are known")
    if backing_at or backing_bytes:
        raise ImageRefused("it rests on another file (backing file); flatten it first")
    if crypt:
        raise ImageRefused("it is encrypted")
    if not 9 <= cluster_bits <= 21:
        raise ImageRefused(f"it says clusters of 2^{cluster_bits} bytes; 2^9 to 2^21 are legal")
    cluster = 1 << cluster_bits
    if not 0 < size <= VIRTUAL_BYTES_MAX or size % 512:
        raise ImageRefused(
            f"its disk has {size} bytes; 512 to {VIRTUAL_BYTES_MAX} in whole sectors can be"
            " deployed"
        )
    extended = _features(head, version, cluster_bits, file_bytes)
    _table("L1 table", l1_at, l1_entries * 8, cluster, file_bytes)
    _table("refcount table", refcounts_at, refcount_clusters * cluster, cluster, file_bytes)
    per_entry = cluster * (cluster // (16 if extended else 8))
    if l1_entries * 8 > L1_BYTES_MAX or l1_entries < -(-size // per_entry):
        raise ImageRefused(f"its L1 table of {l1_entries} entries does not fit its disk")
    if not 0 < refcount_clusters <= REFCOUNT_CLUSTERS_MAX // cluster + 1:
        raise ImageRefused(f"its refcount table of {refcount_clusters} clusters is impossible")
    if snapshots > SNAPSHOTS_MAX or (snapshots and not 0 < snapshots_at < file_bytes):
        raise ImageRefused(f"its {snapshots} snapshots are not where it says")
    return Qcow2(version, size, cluster)


def _features(head: bytes, version: int, cluster_bits: int, file_bytes: int) -> bool:
    """Check what version 3 adds; return whether L2 entries are extended."""
    if version == 2:
        return False
    if len(head) < HEADER_3_BYTES:
        raise ImageRefused("its header ends too early")
    incompatible, _, _, refcount_order, header_bytes = _MORE.unpack_from(head, HEADER_BYTES)
    if incompatible & DATA_FILE:
        raise ImageRefused("its data lies in another file (external data file)")
    if incompatible & CORRUPT:
        raise ImageRefused("it says itself that it is damaged (corrupt bit)")
    if incompatible & ~_KNOWN:
        unknown = incompatible & ~_KNOWN
        raise ImageRefused(f"it needs features that are not known here (bits {unknown:#x})")
    if refcount_order > 6:
        raise ImageRefused(
            f"it says refcounts of 2^{refcount_order} bits; at most 2^6 is legal"
        )
    least = HEADER_3_BYTES + (8 if incompatible & COMPRESSION else 0)
    if header_bytes % 8 or not least <= header_bytes <= 1 << min(cluster_bits, 15):
        raise ImageRefused(f"it says a header of {header_bytes} bytes, which is impossible")
    if incompatible & COMPRESSION and head[HEADER_3_BYTES : HEADER_3_BYTES + 1] > b"\1":
        raise ImageRefused("its compression is not known here; zlib and zstd are")
    extended = bool(incompatible & EXTENDED_L2)
    if extended and cluster_bits < 14:
        raise ImageRefused("it says extended L2 entries with clusters below 16 KiB")
    _extensions(head, header_bytes, min(1 << cluster_bits, file_bytes))
    return extended


def _extensions(head: bytes, at: int, end: int) -> None:
    for _ in range(EXTENSIONS_MAX):
        if at + 8 > min(end, len(head)):
            return  # no end mark: the cluster ends the list
        kind, length = struct.unpack_from(">II", head, at)
        if kind == _END:
            return
        if length > end - at - 8:
            raise ImageRefused("a header extension of it is longer than its cluster")
        if kind in (_BACKING_FORMAT, _DATA_FILE_NAME):
            raise ImageRefused("a header extension of it names another file")
        if kind == _CRYPTO:
            raise ImageRefused("it is encrypted")
        at += 8 + -(-length // 8) * 8
    raise ImageRefused(f"it has over {EXTENSIONS_MAX} header extensions")


def _table(name: str, at: int, length: int, cluster: int, file_bytes: int) -> None:
    if at % cluster or not cluster <= at <= file_bytes or length > file_bytes - at:
        raise ImageRefused(f"its {name} is not where it says: it is cut off or damaged")
