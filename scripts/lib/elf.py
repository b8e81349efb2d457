"""What a 64-bit ELF file says about itself: the libraries it needs, a kernel module's facts.

It knows the format (System V ABI, chapters 4 and 5) as far as that, little-endian files only.
"""

import struct
from collections.abc import Iterator

DT_NULL, DT_NEEDED, DT_STRTAB = 0, 1, 5
PT_LOAD, PT_DYNAMIC = 1, 2


def is_elf(data: bytes) -> bool:
    """Tell whether this is an ELF file that the rest of this module reads."""
    return data[:6] == b"\x7fELF\x02\x01"


def needed(data: bytes) -> list[str]:
    """Return the names of the shared libraries that the file asks for; a .ko asks for none."""
    offset, size, count = _table(data, 32, 54)
    if not count:
        return []
    loads: list[tuple[int, int, int]] = []
    dynamic = b""
    for at in range(offset, offset + size * count, size):
        kind, _flags, begin, address, _phys, length = struct.unpack_from("<IIQQQQ", data, at)
        if kind == PT_LOAD:
            loads.append((address, begin, length))
        elif kind == PT_DYNAMIC:
            dynamic = data[begin : begin + length]
    names: list[int] = []
    strings = 0
    for tag, value in struct.iter_unpack("<qQ", dynamic):
        if tag == DT_NULL:
            break
        if tag == DT_NEEDED:
            names.append(value)
        elif tag == DT_STRTAB:
            strings = next(b + value - a for a, b, n in loads if a <= value < a + n)
    return [_string(data, strings + name) for name in names]


def module_facts(data: bytes) -> Iterator[tuple[str, str]]:
    """Yield the (key, value) pairs of a kernel module's .modinfo section."""
    for fact in _section(data, ".modinfo").split(b"\0"):
        key, equals, value = fact.partition(b"=")
        if equals:
            yield key.decode(), value.decode("utf-8", "replace")


def _section(data: bytes, wanted: str) -> bytes:
    offset, size, count = _table(data, 40, 58)
    (names_at,) = struct.unpack_from("<H", data, 62)
    heads = [
        struct.unpack_from("<IIQQQQ", data, at)
        for at in range(offset, offset + size * count, size)
    ]
    names = heads[names_at][4]
    for name, _kind, _flags, _address, begin, length in heads:
        if _string(data, names + name) == wanted:
            return data[begin : begin + length]
    return b""


def _table(data: bytes, offset_at: int, size_at: int) -> tuple[int, int, int]:
    (offset,) = struct.unpack_from("<Q", data, offset_at)
    size, count = struct.unpack_from("<HH", data, size_at)
    return offset, size, count


def _string(data: bytes, at: int) -> str:
    return data[at : data.index(b"\0", at)].decode()
