"""What boot services are asked, as bytes: DHCP, TFTP and HTTP to be changed by a seed."""

from collections.abc import Iterable
from ipaddress import IPv4Address
from typing import Final

from node.proto import dhcp, tftp
from node.proto import dhcp_options as opt
from node.proto.dhcp import Packet, encode
from node.proto.lease_snapshot import Snapshot
from tests.support.boot_site import (
    BIOS_ROM,
    HTTP_ROM,
    IPXE,
    MAC,
    SUBNET,
    UEFI_ROM,
    A,
    packet,
    request,
    snapshot,
)
from tests.support.pcap import datagrams

RELAY: Final = "10.77.0.250"
BOUND, STRANGER = "52:54:00:77:00:03", "52:54:00:77:00:66"
AREA: Final = b"\x01\x04eth7\x02\x03sw1\x05\x04\x0a\x4d\0\0\x0b\x04\x0a\x4d\0\xfa\x13\0"
"""Relay agent's option: circuit, remote, link selection, server override, source port."""
OPTIONS_AT: Final = 240
CAPTURES: Final = (
    "bios-rom-virtio-net-pci.pcap",
    "uefi-norom-virtio-net-pci.pcap",
    "uefi-http-dhcp.pcap",
)


def full_site() -> Snapshot:
    """Return a site with all that a packet can meet: locks, bindings, a proxy's subnet."""
    beside = {"cidr": "10.88.0.0/24", "first": "10.88.0.10", "last": "10.88.0.99"}
    return snapshot(
        subnets=[SUBNET, {**SUBNET, **beside, "mode": "proxy"}],
        servers={
            "s1": {"macs": [MAC], "ip": "10.77.0.20", "name": "web-1", "accepted_ms": 5},
            "s2": {"macs": ["52:54:00:77:00:02"], "ip": "10.77.0.21", "accepted_ms": 6},
        },
        bindings={BOUND: {"ip": "10.77.0.101", "claimed_ms": 4}},
        locks={"s2": "sw1 eth9"},
    )


def bare(options: bytes, sname: bytes = b"", file: bytes = b"", mac: str = MAC) -> bytes:
    """Return a message with these very bytes behind the cookie, and in sname and file."""
    head = bytearray(encode(packet(mac=mac))[:OPTIONS_AT])
    head[44 : 44 + len(sname)] = sname
    head[108 : 108 + len(file)] = file
    return bytes(head) + options


def dhcp_requests() -> list[bytes]:
    """Return requests of every kind, without the padding that changes would be lost in."""
    found = [encode(one).rstrip(b"\0") + b"\0" for one in _packets()]
    for name in CAPTURES:
        asked = (one.data for one in datagrams(name) if one.target_port == 67)
        found += sorted({data.rstrip(b"\0") for data in asked})
    end = bytes((opt.END,))
    kind = b"\x35\x01\x01"
    found += [
        bare(kind + b"\x34\x01\x03" + end, b"\x4d\x02iP" + end, b"\x4d\x02XE" + end),
        bare(kind + b"\x34\x01\x03", b"\x34\x01\x03" + end, b"\x34\x01\x01\x35\x01\x03" + end),
        bare(b"\0\0" + kind + b"\x3c\x02PX\x3c\x07EClient\x32\0\x36\0\x37\0\x52\0" + end),
        bare(kind + (b"\x52\xff" + bytes(255)) * 3 + end),
    ]
    return found


def _packets() -> Iterable[Packet]:
    relayed = {"giaddr": RELAY, "options": {opt.RELAY_AGENT: AREA}}
    named = {opt.SERVER_ID: IPv4Address(A).packed}
    for rom in (BIOS_ROM, UEFI_ROM, IPXE, HTTP_ROM):
        everything = {
            **rom, opt.PARAMETERS: bytes(range(1, 80)), opt.CLIENT_ID: b"\1abcdef",
            opt.MACHINE_UUID: bytes(17), opt.SIZE_MAX: b"\x05\xc0",
        }  # fmt: skip
        yield packet(options=everything)
        yield packet(giaddr=RELAY, options={**everything, opt.RELAY_AGENT: AREA})
        yield packet(dhcp.INFORM, ciaddr="10.88.0.20", options=everything)
        yield packet(dhcp.REQUEST, ciaddr="10.77.0.20", options=everything)
    for mac, address in ((MAC, "10.77.0.20"), (BOUND, "10.77.0.101"), (STRANGER, "10.9.0.1")):
        yield packet(mac=mac, **relayed)
        yield request(address, A, mac=mac, **relayed)
        yield request(address, None, mac=mac)
        yield request(address, "10.77.0.66", mac=mac, giaddr="10.88.0.1")
        yield packet(dhcp.RELEASE, mac=mac, ciaddr=address, options=named)
        wanted = {**named, opt.REQUESTED_ADDRESS: IPv4Address(address).packed}
        yield packet(dhcp.DECLINE, mac=mac, options=wanted)


def rrq(*words: str, opcode: int = tftp.RRQ) -> bytes:
    """Return a request of words."""
    return bytes((0, opcode)) + b"".join(word.encode() + b"\0" for word in words)


TFTP_REQUESTS: Final = [
    rrq("undionly.kpxe", "octet"),
    rrq("/initrd", "OCTET", "blksize", "1468", "tsize", "0", "windowsize", "16"),
    rrq("snponly.efi", "octet", "timeout", "5", "blksize", "8", "multicast", ""),
    rrq("../../etc/passwd", "octet", "blksize", "999999"),
    rrq("a", "netascii"),
    rrq("undionly.kpxe", "octet", opcode=tftp.WRQ),
    rrq("undionly.kpxe", "octet", *(["tsize", "0"] * 20)),
]
TFTP_ANSWERS: Final = [
    *(bytes((0, tftp.ACK)) + block.to_bytes(2, "big") for block in (0, 1, 2, 4, 7, 65535)),
    tftp.error(8, "User aborted the transfer"),
    tftp.data_header(1) + b"not for a server",
    b"\0\6tsize\x000\0",
]
