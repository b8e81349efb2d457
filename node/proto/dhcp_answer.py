"""What is done about a DHCP packet, and the datagram that answers it.

It knows no leases. Rule (RFC 2131 section 4.1): a reply goes to the relay, else to the address
that the client has, else to everyone; what the client must get back is echoed.
"""

from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Final

from node.proto import dhcp_options as opt
from node.proto.dhcp import (
    BROADCAST_FLAG,
    MESSAGE_BYTES_MAX,
    NAK,
    REPLY_OP,
    ZERO,
    Packet,
    encode,
)

SERVER_PORT: Final = 67
CLIENT_PORT: Final = 68
PXE_PORT: Final = 4011
"""Of PXE boot servers (PXE 2.1 section 2.2.3)."""
EVERYONE: Final = IPv4Address("255.255.255.255")


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A datagram; port None is the port that the packet came from (RFC 8357)."""

    data: bytes
    address: IPv4Address
    port: int | None


@dataclass(frozen=True, slots=True)
class Claim:
    """A binding that must be durable before the reply leaves."""

    mac: str
    ip: IPv4Address
    uuid: str | None


@dataclass(frozen=True, slots=True)
class Seen:
    """What a packet tells of a machine; ``arch`` is empty when it does not say."""

    mac: str
    ip: IPv4Address
    arch: str
    uuid: str | None
    where: str  # "dhcp" | "ipxe"
    port: str = ""  # where it is plugged in, as the relay says


@dataclass(frozen=True, slots=True)
class Trespass:
    """A packet that breaks a port lock; ``told``: people shall hear of it."""

    kind: str  # "wrong port" | "reserved port" | "past its relay"
    mac: str
    port: str  # where it asks from, as the relay says; "": it says nothing
    server: str  # id of the server whose lock it is
    name: str  # the server's name, for people
    locked: str  # the port that the server is locked to
    told: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What to do about a packet; ``kind`` names it in counters and logs."""

    kind: str
    reply: Outgoing | None = None
    claim: Claim | None = None
    seen: Seen | None = None
    freed: IPv4Address | None = None  # RELEASE: the binding ends
    in_use: IPv4Address | None = None  # DECLINE: the client found it taken
    unknown_arch: bool = False
    trespass: Trespass | None = None  # an alarm: a port or a server's MAC that is not its own
    heard: IPv4Address | None = None  # another server's address for it (proxy DHCP)
    boots_from: IPv4Address | None = None  # the ACK of an offer sends firmware to this node


def pxe_port(dhcp_port: int) -> int:
    """Return the port of PXE boot servers beside one of DHCP; 0: any that is free.

    Only the usual ports go together, so that several nodes can be tried on one machine.
    """
    return PXE_PORT if dhcp_port == SERVER_PORT else 0


def reply_to(
    packet: Packet,
    options: dict[int, bytes],
    *,
    ciaddr: IPv4Address = ZERO,
    yiaddr: IPv4Address = ZERO,
    siaddr: IPv4Address = ZERO,
    file: str = "",
) -> Outgoing:
    """Build the datagram and find its way (RFC 2131 section 4.1, RFC 8357).

    A client without an address always gets a broadcast: a unicast would need its MAC in the ARP
    table, and every client takes a broadcast.
    """
    for code in (opt.CLIENT_ID, opt.MACHINE_UUID, opt.RELAY_AGENT):  # echoed (RFC 6842, 4578)
        if code in packet.options:
            options[code] = packet.options[code]
    refused = options[opt.MESSAGE_TYPE][0] == NAK
    relayed = packet.relayed
    message = Packet(
        op=REPLY_OP,
        xid=packet.xid,
        flags=packet.flags | (BROADCAST_FLAG if refused and relayed else 0),
        ciaddr=ciaddr,
        yiaddr=yiaddr,
        siaddr=siaddr,
        giaddr=packet.giaddr,
        chaddr=packet.chaddr,
        file=file.encode(),
        options=options,
    )
    data = encode(message, MESSAGE_BYTES_MAX if relayed else packet.bytes_max)
    if relayed:
        any_port = opt.RELAY_SOURCE_PORT in packet.relay_options
        return Outgoing(data, packet.giaddr, None if any_port else SERVER_PORT)
    if packet.has_address and not refused:
        return Outgoing(data, packet.ciaddr, CLIENT_PORT)
    return Outgoing(data, EVERYONE, CLIENT_PORT)
