"""What a simulated server finds on its disk: a boot sector, and first-boot data (NoCloud).

Knows bytes, no files. Rule: a disk is hostile; what does not parse is not there.

The "operating system" of simulated servers is an image whose first sector begins with MAGIC
and goes on with a JSON object (its name and version), up to the first NUL byte.
"""

import json
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Interface
from typing import Any, Final

MAGIC: Final = b"RACKMESH-SIM-IMAGE\n"
SECTOR_BYTES: Final = 512
VOLUME_BYTES: Final = 8 << 20
LABEL: Final = "CIDATA"
FILE_BYTES_MAX: Final = 1 << 20
FILES_MAX: Final = 16
URLS_MAX: Final = 8

_LONG_NAME, _VOLUME_LABEL, _DIRECTORY = 0x0F, 0x08, 0x10
_LINE = re.compile(r"^([A-Za-z0-9_-]{1,64}):[ \t]+(.{1,4096})$", re.MULTILINE)
_URL_LINE = re.compile(r"^[ \t]+url:[ \t]+(.{1,4096})$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class FirstBoot:
    """What an installed system learns from its cidata volume."""

    instance_id: str
    hostname: str
    urls: tuple[str, ...]
    address: str | None = None
    """The address that its network-config gives it; None: it asks by DHCP."""


def boot_record(sector: bytes) -> dict[str, Any] | None:
    """Return what a bootable simulated image says of itself, or None for any other disk."""
    if not sector.startswith(MAGIC):
        return None
    text = sector[len(MAGIC) :].partition(b"\0")[0]
    try:
        value = json.loads(text or b"{}")
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def read_volume(volume: bytes) -> dict[str, bytes] | None:
    """Return the files in the root of a FAT12 or FAT16 volume labelled CIDATA, else None."""
    if len(volume) < 62 or volume[510:512] != b"\x55\xaa":
        return None
    sector, per_cluster, reserved, copies, entries, small = struct.unpack_from(
        "<HBHBHH", volume, 11
    )
    fat_sectors = struct.unpack_from("<H", volume, 22)[0]
    total = small or struct.unpack_from("<I", volume, 32)[0]
    if sector not in (512, 1024, 2048, 4096) or not per_cluster or not fat_sectors:
        return None
    fat_at = reserved * sector
    root_at = fat_at + copies * fat_sectors * sector
    data_at = root_at + -(-entries * 32 // sector) * sector
    if data_at >= len(volume) or total * sector > len(volume):
        return None
    cluster = sector * per_cluster
    clusters = (total * sector - data_at) // cluster
    fat = volume[fat_at : fat_at + fat_sectors * sector]
    label, found = _directory(volume[root_at : root_at + entries * 32])
    if label != LABEL:
        return None
    files: dict[str, bytes] = {}
    for name, first, size in found[:FILES_MAX]:
        content = _content(volume, fat, clusters, data_at, cluster, first, size)
        if content is not None:
            files[name] = content
    return files


def first_boot(files: Mapping[str, bytes]) -> FirstBoot | None:
    """Return what to phone in with, from the files that our nodes write, or None."""
    meta = dict(_LINE.findall(files.get("meta-data", b"").decode("utf-8", "replace")))
    user = files.get("user-data", b"").decode("utf-8", "replace")
    urls = _value(meta.get("rackmesh-phone-in", ""))
    found = [url for url in urls if isinstance(url, str)] if isinstance(urls, list) else []
    if "phone_home:" in user and (line := _URL_LINE.search(user)) is not None:
        url = _value(line[1])
        if isinstance(url, str) and url not in found:
            found.append(url)
    instance, hostname = (
        _value(meta.get("instance-id", "")),
        _value(meta.get("local-hostname", "")),
    )
    if not isinstance(instance, str) or not instance:
        return None
    address = _own_address(files.get("network-config", b""))
    return FirstBoot(instance, str(hostname), tuple(found[:URLS_MAX]), address)


def _own_address(text: bytes) -> str | None:
    """Return the first address of a network-config as our nodes write it (JSON, version 2)."""
    try:
        ports = json.loads(text)["ethernets"].values()
        found = [address for port in ports for address in port["addresses"]]
        return str(IPv4Interface(found[0]).ip)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError):
        return None


def _value(text: str) -> Any:
    """Read a YAML scalar or list as our nodes write it: JSON, or bare words."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text.strip()


def _directory(area: bytes) -> tuple[str, list[tuple[str, int, int]]]:
    """Return the volume's label and its files: name, first cluster, size."""
    label = ""
    found: list[tuple[str, int, int]] = []
    long_name: dict[int, bytes] = {}
    for at in range(0, len(area) - 31, 32):
        entry = area[at : at + 32]
        if entry[0] == 0:
            break
        attributes = entry[11]
        if entry[0] == 0xE5:
            long_name.clear()
        elif attributes & 0x3F == _LONG_NAME:
            long_name[entry[0] & 0x1F] = entry[1:11] + entry[14:26] + entry[28:32]
        elif attributes & _VOLUME_LABEL:
            label = entry[:11].decode("ascii", "replace").strip()
        else:
            if not attributes & _DIRECTORY:
                first, size = struct.unpack_from("<HI", entry, 26)
                found.append((_name(entry[:11], long_name), first, size))
            long_name.clear()
    return label, found


def _name(short: bytes, long_name: dict[int, bytes]) -> str:
    if long_name:
        raw = b"".join(long_name[index] for index in sorted(long_name))
        text = raw.decode("utf-16-le", "replace").partition("\0")[0]
        return text.rstrip("￿")
    base, extension = short[:8].decode("ascii", "replace"), short[8:].decode("ascii", "replace")
    name = base.rstrip().lower()
    return f"{name}.{extension.rstrip().lower()}" if extension.strip() else name


def _content(
    volume: bytes, fat: bytes, clusters: int, data_at: int, cluster: int, first: int, size: int
) -> bytes | None:
    if size > FILE_BYTES_MAX:
        return None
    parts: list[bytes] = []
    for _ in range(-(-size // cluster)):
        if not 2 <= first < clusters + 2:
            return None
        at = data_at + (first - 2) * cluster
        parts.append(volume[at : at + cluster])
        first = _next_cluster(fat, first, clusters)
    content = b"".join(parts)[:size]
    return content if len(content) == size else None


def _next_cluster(fat: bytes, number: int, clusters: int) -> int:
    if clusters >= 4085:  # FAT16, by the count of clusters alone
        return int.from_bytes(fat[number * 2 : number * 2 + 2], "little")
    at = number + number // 2
    pair = int.from_bytes(fat[at : at + 2], "little")
    return pair >> 4 if number % 2 else pair & 0xFFF
