"""First-boot data on the disk: a NoCloud volume labelled CIDATA behind the image.

It knows where such a volume belongs and how it is sealed on its way here, not what is in it.
Rule: nothing of the image is overwritten but the partition table, whose backup is written
before its primary copy, so that a machine switched off in between still finds one whole table.
"""

import base64
import binascii
import json
from dataclasses import dataclass
from typing import Any, Final

from blake3 import blake3
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

from node.ramdisk import mbr
from node.ramdisk.disk import ALIGN, DiskHandle
from node.ramdisk.errors import StepFailed
from node.ramdisk.fat import FILES_BYTES_MAX, VOLUME_BYTES, fat_volume
from node.ramdisk.gpt import (
    BASIC_DATA,
    Partition,
    Table,
    encode_table,
    grown_protective_mbr,
    place_at_end,
    read_table,
    with_partition,
)

LABEL: Final = "CIDATA"
SEAL_CONTEXT: Final = b"rackmesh/first-boot/1\0"
FILES: Final = {
    "user_data": "user-data",
    "meta_data": "meta-data",
    "network_config": "network-config",
    "vendor_data": "vendor-data",
}
"""Key in the sealed JSON -> file that cloud-init looks for; the first two are always there."""
CHECK_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Placed:
    """Where the volume is: ``kind`` is ``partition`` or ``raw``, ``offset`` in bytes."""

    kind: str
    offset: int


def open_first_boot(sealed: str, session: str, key: X25519PrivateKey) -> dict[str, bytes]:
    """Return file name -> bytes from the sealed answer of the node; StepFailed otherwise."""
    suite = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
    try:
        blob = base64.b64decode(sealed, validate=True)
        plain = suite.decrypt(blob, key, info=SEAL_CONTEXT + session.encode())
        value = json.loads(plain)
    except (InvalidTag, ValueError, TypeError, binascii.Error) as exc:
        raise StepFailed("the first-boot data is not sealed to this session") from exc
    if not isinstance(value, dict) or not {"user_data", "meta_data"} <= value.keys():
        raise StepFailed("the first-boot data lacks user_data or meta_data")
    files: dict[str, bytes] = {}
    for key_name, file_name in FILES.items():
        text: Any = value.get(key_name)
        if isinstance(text, str):
            files[file_name] = text.encode()
    if sum(map(len, files.values())) > FILES_BYTES_MAX:
        raise StepFailed(f"the first-boot data exceeds {FILES_BYTES_MAX} bytes")
    return files


def write_cidata(disk: DiskHandle, image_bytes: int, files: dict[str, bytes]) -> Placed:
    """Put the files behind the image: as a partition of its table, or raw at the disk's end."""
    if disk.size < image_bytes + VOLUME_BYTES:
        raise StepFailed(
            f"the disk has {disk.size} bytes: no room behind {image_bytes} for {VOLUME_BYTES}"
        )
    table = read_table(disk.read, disk.size, disk.sector_bytes)
    if table is not None:
        return _write_partition(disk, table, files)
    offset = disk.size - VOLUME_BYTES
    offset -= offset % ALIGN if offset - offset % ALIGN >= image_bytes else 0
    offset -= offset % disk.sector_bytes
    if offset < image_bytes:
        raise StepFailed("there is no whole sector between the image and the volume")
    sector0, disk_sectors = disk.read(0, disk.sector_bytes), disk.size // disk.sector_bytes
    if mbr.spans(sector0, disk_sectors) is None:
        _put(disk, offset, files, 0)
        return Placed("raw", offset)
    first = offset // disk.sector_bytes
    sectors = VOLUME_BYTES // disk.sector_bytes
    changed = mbr.with_partition(sector0, disk_sectors, first, sectors)
    _put(disk, offset, files, first)
    disk.write(0, changed)
    disk.sync()
    if disk.read(0, disk.sector_bytes) != changed:
        raise StepFailed("the partition table reads back differently: the disk lost it")
    disk.reread_partitions()
    return Placed("partition", offset)


def _write_partition(disk: DiskHandle, table: Table, files: dict[str, bytes]) -> Placed:
    sector = disk.sector_bytes
    disk_sectors = disk.size // sector
    sectors = VOLUME_BYTES // sector
    guid = _guid(table.disk_guid)
    ours = next((part for part in table.partitions if part.guid == guid), None)
    if ours is None:
        first = place_at_end(table, disk_sectors, sectors)
        ours = Partition(0, BASIC_DATA, guid, first, first + sectors - 1, 0, LABEL)
        table = with_partition(table, ours)
    elif ours.last - ours.first + 1 != sectors:
        raise StepFailed("the first-boot partition that is there has another size")
    _put(disk, ours.first * sector, files, ours.first)
    backup, primary = encode_table(table, disk_sectors)
    for writes in (backup, primary):
        for offset, data in writes:
            disk.write(offset, data)
        disk.sync()
    disk.write(0, grown_protective_mbr(disk.read(0, sector), disk_sectors))
    disk.sync()
    if read_table(disk.read, disk.size, sector) != table:
        raise StepFailed("the partition table reads back differently: the disk lost it")
    disk.reread_partitions()
    return Placed("partition", ours.first * sector)


def _guid(disk_guid: bytes) -> bytes:
    """Return a random-looking GUID (version 4) that is the same at every try."""
    raw = bytearray(blake3(b"rackmesh cidata" + disk_guid).digest()[:16])
    raw[7] = raw[7] & 0x0F | 0x40  # the version stands in the third, little-endian field
    raw[8] = raw[8] & 0x3F | 0x80
    return bytes(raw)


def _put(disk: DiskHandle, offset: int, files: dict[str, bytes], first_sector: int) -> None:
    volume = fat_volume(
        LABEL, files, sector_bytes=disk.sector_bytes, hidden_sectors=first_sector
    )
    disk.write(offset, volume)
    disk.sync()
    for at in range(0, VOLUME_BYTES, CHECK_BYTES):
        if disk.read(offset + at, CHECK_BYTES) != volume[at : at + CHECK_BYTES]:
            raise StepFailed("the first-boot volume reads back differently")
