"""Versions that an IPMI BMC tells, of itself and of the product (FRU), without I/O.

Sources: IPMI 2.0 chapters 20.1 and 34; Platform Management FRU Information Storage 1.0. The
rule: an area that makes no sense is absent.
"""

from typing import Final

from drivers.proto.health import NAME_CHARS_MAX, Component, words
from drivers.proto.ipmi import Command, NotIpmi

AREA_BYTES_MAX: Final = 4096
FIRST_CHUNK_BYTES: Final = 32
FIELDS_MAX: Final = 32
_END_OF_FIELDS: Final = 0xC1

AREA_INFO: Final = Command("Get FRU Inventory Area Info", 0x0A, 0x10, b"\0")


def read(offset: int, count: int) -> Command:
    """Ask for bytes of the main FRU record (34.2)."""
    assert 0 <= offset < AREA_BYTES_MAX
    assert 0 < count <= 0xFF
    data = b"\0" + offset.to_bytes(2, "little") + bytes((count,))
    return Command("Read FRU Data", 0x0A, 0x11, data)


def parse_area_bytes(data: bytes) -> int:
    """Return how many bytes the record has that are read; 0 when it is in words (34.1)."""
    if len(data) < 3 or data[2] & 1:
        return 0
    return min(int.from_bytes(data[:2], "little"), AREA_BYTES_MAX)


def parse_piece(data: bytes, count: int) -> bytes:
    """Return the bytes of an answer to `read`, at most as many as were asked for."""
    return data[1 : 1 + min(data[0], count)] if data else b""


def bmc_version(data: bytes) -> Component:
    """Return the BMC's own version by Get Device ID (20.1)."""
    if len(data) < 5:
        raise NotIpmi(f"an answer of {len(data)} bytes, where 5 are due")
    minor = data[3]
    said = f"{data[2] & 0x7F}.{minor >> 4}{minor & 15}"
    aux = data[11:15]
    if len(aux) == 4 and any(aux):
        said += f" ({aux.hex()})"
    return Component(name="BMC", version=said)


def components(area: bytes) -> list[Component]:
    """Return what the product area says of its version."""
    found: list[Component] = []
    if len(area) < 8 or area[0] & 0x0F != 1:
        return found
    if at := area[4] * 8:  # product: after three bytes maker, name, part number, version
        texts = [*_fields(area[at:], 3), "", "", "", ""]
        if texts[3]:
            label = words(texts[1] or "product", NAME_CHARS_MAX)
            found.append(Component(name=label, version=words(texts[3], NAME_CHARS_MAX)))
    return found


def _fields(area: bytes, skip: int) -> list[str]:
    """Return the texts of an area of type/length fields; other codings count as empty."""
    found: list[str] = []
    at = skip
    while at < len(area) and area[at] != _END_OF_FIELDS and len(found) < FIELDS_MAX:
        length = area[at] & 0x3F
        raw = area[at + 1 : at + 1 + length]
        found.append(raw.decode("latin-1").strip("\0 ") if area[at] >> 6 == 3 else "")
        at += 1 + length
    return found
