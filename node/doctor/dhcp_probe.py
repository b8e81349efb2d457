"""A DISCOVER that only strangers answer: who else hands out addresses on this network?

The probe comes from a random, locally administered MAC and carries a mark in option 60 that
nodes leave unanswered (``DOCTOR_CLASS``). It takes no lease: nothing is ever requested. Rule:
what comes back is hostile; at most ``SERVERS_MAX`` servers are told of.
"""

import os
import socket
from typing import Final

import trio

from mesh.errors import LocalError
from node.doctor.facts import arp
from node.proto import dhcp_options as opt
from node.proto.dhcp import (
    BROADCAST_FLAG,
    DISCOVER,
    DOCTOR_CLASS,
    OFFER,
    Packet,
    decode,
    encode,
)
from node.proto.dhcp_answer import SERVER_PORT
from node.proto.doctor import Offer

CLIENT_PORT: Final = 68
TRIES: Final = 3
WAIT_S: Final = 1.5
SERVERS_MAX: Final = 16
DATAGRAM_BYTES_MAX: Final = 4096
DISCARD_PORT: Final = 9
ARP_S: Final = 0.3


async def strangers(interface: str) -> list[Offer]:
    """Return whoever answers on an interface; takes TRIES times WAIT_S.

    Raises LocalError with one sentence when it cannot be asked (no rights, no interface).
    """
    mac = b"\x02" + os.urandom(5)
    xid = int.from_bytes(os.urandom(4), "big")
    message = encode(Packet(
        xid=xid, flags=BROADCAST_FLAG, chaddr=mac,
        options={opt.MESSAGE_TYPE: bytes([DISCOVER]), opt.VENDOR_CLASS: DOCTOR_CLASS,
                 opt.PARAMETERS: bytes([opt.SUBNET_MASK, opt.ROUTER, opt.BOOT_FILE])},
    ))  # fmt: skip
    found: dict[str, str] = {}
    try:
        with _socket(interface) as sock:
            for _ in range(TRIES):
                sock.sendto(message, ("255.255.255.255", SERVER_PORT))
                with trio.move_on_after(WAIT_S):
                    while len(found) < SERVERS_MAX:
                        await trio.lowlevel.wait_readable(sock)
                        _take(sock, xid, mac, found)
            for server in found:
                _knock(sock, server)
    except OSError as exc:
        raise LocalError(
            f"UDP port {CLIENT_PORT} of {interface}: {exc.strerror or exc}"
        ) from exc
    await trio.sleep(ARP_S if found else 0)
    return [
        Offer(server=server, mac=arp(server), address=address)
        for server, address in sorted(found.items())
    ]


def _socket(interface: str) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # beside a DHCP client
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode() + b"\0")
        sock.bind(("", CLIENT_PORT))
    except OSError:
        sock.close()
        raise
    return sock


def _take(sock: socket.socket, xid: int, mac: bytes, found: dict[str, str]) -> None:
    try:
        data, source = sock.recvfrom(DATAGRAM_BYTES_MAX)
    except OSError:
        return
    packet = decode(data)
    if packet is None or packet.message_type != OFFER:
        return
    if packet.xid == xid and packet.chaddr == mac:
        found.setdefault(str(packet.server_id or source[0]), str(packet.yiaddr))


def _knock(sock: socket.socket, server: str) -> None:
    """Make the kernel learn the server's MAC address."""
    try:
        sock.sendto(b"", (server, DISCARD_PORT))
    except OSError:
        pass  # it lies in no network of ours; then its MAC stays unknown
