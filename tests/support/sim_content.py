"""Content for simulated servers: a kernel that is a live system, an ISO that boots."""

import json
import struct
from typing import Any

SECTOR = 2048
MAGIC = b"RACKMESH-SIM-IMAGE\n"


def sim_system(**about: Any) -> bytes:
    """Return the first bytes of something that simulated servers can start."""
    return MAGIC + json.dumps(about).encode() + b"\0"


def sim_iso(total_bytes: int = 256 << 10, **about: Any) -> bytes:
    """Return a small ISO 9660 image with an El Torito boot image of ours."""
    disc = bytearray(max(total_bytes, 24 * SECTOR))

    def put(sector: int, data: bytes) -> None:
        disc[sector * SECTOR : sector * SECTOR + len(data)] = data

    put(16, b"\1CD001\1\0" + b"RACKMESH".ljust(32) + b"TEST".ljust(32))
    put(17, b"\0CD001\1EL TORITO SPECIFICATION".ljust(71, b"\0") + struct.pack("<I", 19))
    put(18, b"\xffCD001\1")
    validation = bytearray(struct.pack("<BBH24sHBB", 1, 0, 0, b"RACKMESH", 0, 0x55, 0xAA))
    total = sum(struct.unpack("<16H", bytes(validation))) & 0xFFFF
    validation[28:30] = struct.pack("<H", (0x10000 - total) & 0xFFFF)
    put(19, bytes(validation) + struct.pack("<BBHBBHI", 0x88, 0, 0, 0, 0, 4, 20))
    put(20, sim_system(**about))
    return bytes(disc)
