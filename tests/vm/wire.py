"""Watches the wire of one machine and kills a node at a named moment.

    python -m tests.vm.wire '{"interface": "tap1", "moment": "offer", "server": "10.77.0.1",
                              "mac": "52:54:00:77:00:01", "kill": 4711, "bytes": 0,
                              "path": ""}'

It runs in the bridge's namespace. Moments: ``offer``, the server has offered the machine an
address over DHCP; ``tftp``, it has sent that many bytes of a file; ``http``, that many of the
answer to a GET of a path that begins so. It prints a line of JSON for each DHCP message of the
machine and one for the kill (the process's whole session, SIGKILL, before the next packet is
looked at), and goes on watching. Rule: it only listens, so what the machine does is its own.
"""

import json
import os
import signal
import socket
import struct
import sys
import time
from dataclasses import dataclass
from typing import Any

from node.proto import dhcp

ETH_ALL = 3
ETH_BYTES = 14
SO_RCVBUFFORCE = 33
IP = b"\x08\x00"
TCP, UDP = 6, 17
RECEIVE_BYTES = 1 << 17
BUFFER_BYTES = 1 << 22
DATA = 3
SHORT = 4
"""Bytes of a TFTP block's header."""


@dataclass(frozen=True)
class Seen:
    """One datagram or segment."""

    source: str
    target: str
    protocol: int
    ports: tuple[int, int]
    data: bytes


def read(frame: bytes) -> Seen | None:
    """Take an Ethernet frame apart; None when it is no whole TCP or UDP over IPv4."""
    packet = frame[ETH_BYTES:]
    if frame[12:14] != IP or len(packet) < 20 or packet[9] not in (TCP, UDP):
        return None
    length = struct.unpack_from(">H", packet, 2)[0] or len(packet)  # 0: larger than that
    rest = packet[(packet[0] & 15) * 4 : length]
    if len(rest) < 8:
        return None
    head = 8 if packet[9] == UDP else (rest[12] >> 4) * 4 if len(rest) > 12 else len(rest)
    source, target = (socket.inet_ntoa(packet[at : at + 4]) for at in (12, 16))
    ports = struct.unpack_from(">HH", rest)
    return Seen(source, target, packet[9], (ports[0], ports[1]), rest[head:])


class Watch:
    """Tells when the moment has come."""

    def __init__(self, config: dict[str, Any]) -> None:
        self._moment = config["moment"]
        self._server = config["server"]
        self._mac = config["mac"]
        self._path = f"GET {config.get('path', '/')}".encode()
        self._after_bytes = config.get("bytes", 0)
        self._client_port = 0
        self.bytes = 0
        """Of the file, or the answer, that is being looked at."""

    def due(self, seen: Seen) -> bool:
        """Look at one packet; true when the node must die now."""
        if self._moment == "offer":
            return seen.source == self._server and dhcp_kind(seen, self._mac) == dhcp.OFFER
        if self._moment == "tftp":
            return self._count(seen, seen.protocol == UDP and is_block(seen), SHORT)
        if seen.target == self._server and seen.data.startswith(self._path):
            self._client_port, self.bytes = seen.ports[0], 0
        return self._count(seen, seen.ports[1] == self._client_port, 0)

    def _count(self, seen: Seen, counts: bool, header: int) -> bool:
        if seen.source != self._server or not counts:
            return False
        self.bytes += len(seen.data) - header
        return self.bytes > self._after_bytes


def dhcp_kind(seen: Seen, mac: str) -> int | None:
    """Return the kind of a machine's DHCP message, None when it is none."""
    if seen.protocol != UDP or not set(seen.ports) <= {67, 68}:
        return None
    packet = dhcp.decode(seen.data)
    return packet.message_type if packet is not None and packet.mac == mac else None


def is_block(seen: Seen) -> bool:
    """Tell whether a datagram is a block of a file by TFTP."""
    kind = seen.data[1:2] == bytes((DATA,)) and seen.data[:1] == b"\0"
    return kind and 67 not in seen.ports


def main(config: dict[str, Any]) -> None:
    """Watch for ever."""
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_ALL))
    sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER_BYTES)
    sock.bind((config["interface"], 0))
    watch = Watch(config)
    tell(watching=config["interface"])
    killed = False
    while True:
        seen = read(sock.recv(RECEIVE_BYTES))
        if seen is None:
            continue
        if not killed and watch.due(seen):
            os.killpg(config["kill"], signal.SIGKILL)
            killed = True
            tell(killed=config["server"], bytes=watch.bytes)
        if (kind := dhcp_kind(seen, config["mac"])) is not None:
            tell(dhcp=kind, source=seen.source)


def tell(**fields: object) -> None:
    """Print one line."""
    print(json.dumps({"at": round(time.monotonic(), 3), **fields}), flush=True)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
