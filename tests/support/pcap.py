"""Reads UDP datagrams out of a classic little-endian Ethernet capture."""

import struct
from dataclasses import dataclass
from pathlib import Path

GOLDEN = Path(__file__).parents[1] / "golden" / "pcap"


@dataclass(frozen=True)
class Datagram:
    source: str
    target: str
    source_port: int
    target_port: int
    data: bytes


def datagrams(name: str) -> list[Datagram]:
    raw = (GOLDEN / name).read_bytes()
    assert raw[:4] == bytes.fromhex("d4c3b2a1")
    found = []
    at = 24
    while at < len(raw):
        (length,) = struct.unpack_from("<8xI", raw, at)
        frame = raw[at + 16 : at + 16 + length]
        at += 16 + length
        if frame[12:14] != b"\x08\x00" or frame[23] != 17:
            continue
        udp = 14 + (frame[14] & 15) * 4
        source_port, target_port, size = struct.unpack_from("!HHH", frame, udp)
        source, target = (".".join(map(str, frame[n : n + 4])) for n in (26, 30))
        found.append(
            Datagram(source, target, source_port, target_port, frame[udp + 8 : udp + size])
        )
    return found
