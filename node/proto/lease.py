"""What DHCP answers: ``answer(snapshot, packet)``, a pure function.

It has no clock, no randomness and no address of the node that runs it. Rule: every node of a
site that holds the same snapshot answers a packet with the same bytes, so it does not matter
who answers, nor how many do; a REQUEST that names a member is acknowledged by all, one that
names a stranger by none, and firmware that boots is never refused (NAK), only left unanswered.

Options 54, siaddr and the boot URL name the rendezvous owner for the client among the members;
an acknowledgement repeats the server that the REQUEST named (clients compare).
"""

from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Final

from node.proto import dhcp_options as opt
from node.proto.dhcp import (
    ACK,
    BROADCAST_FLAG,
    DECLINE,
    DISCOVER,
    INFORM,
    MESSAGE_BYTES_MAX,
    NAK,
    OFFER,
    RELEASE,
    REPLY_OP,
    REQUEST,
    REQUEST_OP,
    ZERO,
    Packet,
    encode,
)
from node.proto.lease_snapshot import Member, Snapshot, Subnet

SERVER_PORT: Final = 67
CLIENT_PORT: Final = 68
SCRIPT_PATH: Final = "/boot/v1/script"
FILE_PATH: Final = "/boot/v1/file/"
BIOS_FILE: Final = "undionly.kpxe"
EFI_FILE: Final = "snponly.efi"
FILE_BYTES: Final = 128  # of the header field, with its zero
EVERYONE: Final = IPv4Address("255.255.255.255")
# PXE discovery control, bit 3: take the boot file of this offer, ask nobody else (PXE 2.1)
PXE_VENDOR: Final = b"\x06\x01\x08\xff"
# iPXE's own option 0xb0 (no-pxedhcp): do not wait for a second DHCP server
IPXE_ALONE: Final = b"\xb0\x01\x01"

ARCHITECTURES: Final = {0: "bios-x64", 7: "uefi-x64", 9: "uefi-x64", 16: "uefi-x64-http"}
"""Architectures that we have boot files for (RFC 4578 and its registry)."""


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


def answer(snapshot: Snapshot, packet: Packet) -> Answer:
    """Decide about one packet from a client or relay."""
    if packet.op != REQUEST_OP or packet.message_type is None:
        return Answer(kind="not a request")
    if packet.chaddr[0] & 1 or packet.chaddr == bytes(6):
        return Answer(kind="no machine has this mac")
    subnet = client_subnet(snapshot, packet)
    if subnet is None:
        return Answer(kind="no subnet")
    owner = snapshot.owner_of(packet.mac, subnet)
    if owner is None:
        return Answer(kind="no service set")
    if packet.message_type == DISCOVER:
        return _discover(snapshot, packet, subnet, owner)
    if packet.message_type == REQUEST:
        return _request(snapshot, packet, subnet, owner)
    if packet.message_type in {DECLINE, RELEASE}:
        return _give_back(snapshot, packet)
    if packet.message_type == INFORM:
        return _inform(packet, subnet, owner)
    return Answer(kind="not a request")


def client_subnet(snapshot: Snapshot, packet: Packet) -> Subnet | None:
    """Return the subnet of the client: link selection, relay, own address, or our own wire."""
    if packet.giaddr != ZERO:
        link = packet.relay_options.get(opt.RELAY_LINK_SELECTION, b"")
        return snapshot.subnet_of(IPv4Address(link) if len(link) == 4 else packet.giaddr)
    if packet.ciaddr != ZERO:
        return snapshot.subnet_of(packet.ciaddr) or snapshot.direct_subnet()
    return snapshot.direct_subnet()


def architecture(packet: Packet) -> str:
    """Return the name of the client's architecture; empty when it does not say one."""
    for number in packet.architectures:
        if number in ARCHITECTURES:
            return ARCHITECTURES[number]
    return f"unknown-{packet.architectures[0]}" if packet.architectures else ""


def is_firmware(packet: Packet) -> bool:
    """Whether a boot ROM or iPXE asks, rather than an operating system."""
    return packet.is_ipxe or packet.vendor_class.startswith((b"PXEClient", b"HTTPClient"))


def _discover(snapshot: Snapshot, packet: Packet, subnet: Subnet, owner: Member) -> Answer:
    address = snapshot.address_of(packet.mac, subnet)
    if address is None:
        return Answer(kind="no free candidate")
    server = packet.server_override or owner.host
    return _lease(OFFER, "offer", snapshot, packet, subnet, owner, server, address)


def _request(snapshot: Snapshot, packet: Packet, subnet: Subnet, owner: Member) -> Answer:
    """RFC 2131 section 4.3.2: selecting, init-reboot, renewing and rebinding."""
    named = packet.server_id
    if named is not None and not _is_us(snapshot, packet):
        return Answer(kind="other server")
    if named is None and opt.SERVER_ID in packet.options:
        return Answer(kind="malformed")
    asked = packet.requested_address or packet.ciaddr
    if asked == ZERO:
        return Answer(kind="malformed")
    address = snapshot.address_of(packet.mac, subnet)
    if address is not None and asked == address:
        kind = "ack" if named is not None else "renew"
        server = packet.server_override or named or owner.host
        return _lease(ACK, kind, snapshot, packet, subnet, owner, server, address)
    if named is not None:  # another node offered this from rows that we do not have (yet)
        return Answer(kind="other address")
    if is_firmware(packet):
        return Answer(kind="firmware asked for another address")
    if asked in subnet.network and not snapshot.is_recorded(packet.mac):
        return Answer(kind="no record")
    return _refuse(packet, owner)


def _is_us(snapshot: Snapshot, packet: Packet) -> bool:
    """Tell whether a client means one of us, by our address or as its relay calls us."""
    named = packet.server_id
    if named is not None and named == packet.server_override:
        return True
    return any(named == member.host for member in snapshot.members)


def _give_back(snapshot: Snapshot, packet: Packet) -> Answer:
    """DECLINE and RELEASE get no reply (RFC 2131 sections 4.3.3 and 4.3.4)."""
    if not _is_us(snapshot, packet):
        return Answer(kind="other server")
    bound = snapshot.bound.get(packet.mac)
    if packet.message_type == RELEASE:
        freed = packet.ciaddr if bound is not None and bound.ip == packet.ciaddr else None
        return Answer(kind="release", freed=freed)
    assert packet.message_type == DECLINE
    address = packet.requested_address
    mine = any(
        address is not None and address == snapshot.address_of(packet.mac, subnet)
        for subnet in snapshot.subnets
    )
    return Answer(kind="decline", in_use=address if mine else None)


def _inform(packet: Packet, subnet: Subnet, owner: Member) -> Answer:
    """Configuration for a client that has its address: no lease, no yiaddr (4.3.5)."""
    server = packet.server_override or owner.host
    options = {opt.MESSAGE_TYPE: bytes((ACK,)), opt.SERVER_ID: server.packed}
    options |= _network(packet, subnet)
    file, boot = _boot(packet, owner)
    reply = _reply(packet, options | boot, ciaddr=packet.ciaddr, siaddr=owner.host, file=file)
    return Answer(kind="inform", reply=reply)


def _lease(
    message_type: int,
    kind: str,
    snapshot: Snapshot,
    packet: Packet,
    subnet: Subnet,
    owner: Member,
    server: IPv4Address,
    address: IPv4Address,
) -> Answer:
    options = {
        opt.MESSAGE_TYPE: bytes((message_type,)),
        opt.SERVER_ID: server.packed,
        opt.LEASE_TIME: subnet.lease_s.to_bytes(4, "big"),
        opt.RENEWAL_TIME: (subnet.lease_s // 2).to_bytes(4, "big"),
        opt.REBINDING_TIME: (subnet.lease_s * 7 // 8).to_bytes(4, "big"),
    }
    options |= _network(packet, subnet)
    file, boot = _boot(packet, owner)
    options |= boot
    known = snapshot.known.get(packet.mac)
    if known is not None and known.hostname and packet.wants(opt.HOSTNAME):
        options[opt.HOSTNAME] = known.hostname.encode()
    bound = snapshot.bound.get(packet.mac)
    durable = known is not None or (bound is not None and bound.ip == address)
    arch = architecture(packet)
    return Answer(
        kind=kind,
        reply=_reply(
            packet,
            options,
            ciaddr=packet.ciaddr if message_type == ACK else ZERO,
            yiaddr=address,
            siaddr=owner.host,
            file=file,
        ),
        claim=None
        if durable or message_type != ACK
        else Claim(packet.mac, address, packet.machine_uuid),
        seen=Seen(
            packet.mac,
            address,
            arch,
            packet.machine_uuid,
            "ipxe" if packet.is_ipxe else "dhcp",
            packet.relay_port,
        ),
        unknown_arch=is_firmware(packet) and arch not in ARCHITECTURES.values(),
    )


def _network(packet: Packet, subnet: Subnet) -> dict[int, bytes]:
    options = {opt.SUBNET_MASK: subnet.network.netmask.packed}
    if subnet.router is not None:
        options[opt.ROUTER] = subnet.router.packed
    if subnet.dns:
        options[opt.DNS] = b"".join(address.packed for address in subnet.dns)
    if packet.wants(opt.BROADCAST_ADDRESS):
        options[opt.BROADCAST_ADDRESS] = subnet.network.broadcast_address.packed
    return options


def _boot(packet: Packet, owner: Member) -> tuple[str, dict[int, bytes]]:
    """Return boot file and options for firmware; nothing for anyone else."""
    if not is_firmware(packet):
        return "", {}
    options: dict[int, bytes] = {}
    arch = architecture(packet)
    if packet.is_ipxe:
        file = f"{owner.url}{SCRIPT_PATH}?mac={packet.mac}"
        options[opt.IPXE] = IPXE_ALONE
    elif packet.vendor_class.startswith(b"HTTPClient"):
        file = owner.url + FILE_PATH + EFI_FILE if arch == ARCHITECTURES[16] else ""
    else:
        file = {"bios-x64": BIOS_FILE, "uefi-x64": EFI_FILE}.get(arch, "")
    if not file or arch.startswith("unknown-"):
        return "", {}
    if packet.vendor_class.startswith(b"HTTPClient"):
        options[opt.VENDOR_CLASS] = b"HTTPClient"
    elif packet.vendor_class:
        options[opt.VENDOR_CLASS] = b"PXEClient"
        if not packet.is_ipxe:
            options[opt.VENDOR] = PXE_VENDOR
    if packet.wants(opt.BOOT_FILE) or len(file) >= FILE_BYTES:
        options[opt.BOOT_FILE] = file.encode()
    return file if len(file) < FILE_BYTES else "", options


def _refuse(packet: Packet, owner: Member) -> Answer:
    options = {
        opt.MESSAGE_TYPE: bytes((NAK,)),
        opt.SERVER_ID: (packet.server_override or owner.host).packed,
        opt.MESSAGE: b"this address is not yours here",
    }
    return Answer(kind="nak", reply=_reply(packet, options))


def _reply(
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
    refused = options[opt.MESSAGE_TYPE] == bytes((NAK,))
    relayed = packet.giaddr != ZERO
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
    if packet.ciaddr != ZERO and not refused:
        return Outgoing(data, packet.ciaddr, CLIENT_PORT)
    return Outgoing(data, EVERYONE, CLIENT_PORT)
