"""Proxy DHCP: what to boot, for machines that get their addresses from somebody else (PXE 2.1).

It knows no sockets and no leases. Rules: an offer of ours has no address and no lease time, so
no client takes us for its DHCP server; an operating system is never answered; what a machine
was given by the other server is heard from its own broadcast REQUEST, or read from the address
it asks from on port 4011.
"""

from dataclasses import replace
from ipaddress import IPv4Address

from node.proto import dhcp_options as opt
from node.proto.dhcp import ACK, DISCOVER, INFORM, OFFER, REQUEST, ZERO, Packet
from node.proto.dhcp_answer import Answer, Seen, reply_to
from node.proto.dhcp_boot import architecture, boot, is_firmware, lacks_file
from node.proto.lease_rows import Member


def answer(packet: Packet, owner: Member) -> Answer:
    """Decide about a packet on port 67 in a subnet whose addresses somebody else gives."""
    if packet.message_type == DISCOVER and is_firmware(packet):
        return _told(packet, owner, OFFER, "proxy offer")
    if packet.message_type == REQUEST:
        address = packet.requested_address or packet.ciaddr
        if address == ZERO or packet.server_id == owner.host:
            return Answer(kind="proxy: not for us")
        return Answer(kind="proxy: heard", heard=address, seen=_seen(packet, address))
    if packet.message_type == INFORM and is_firmware(packet) and packet.ciaddr != ZERO:
        return _told(packet, owner, ACK, "proxy inform")
    return Answer(kind="proxy: not for us")


def answer_4011(packet: Packet, owner: Member) -> Answer:
    """Answer a boot server request (port 4011), to the address and port that it came from.

    In subnets whose addresses we give too: some ROMs ask there whatever the offer said.
    """
    asks = packet.message_type in {REQUEST, INFORM} and is_firmware(packet)
    if not asks or packet.ciaddr == ZERO:
        return Answer(kind="4011: not a boot request")
    told = _told(packet, owner, ACK, "4011: ack")
    return replace(told, reply=replace(told.reply, port=None)) if told.reply else told


def _told(packet: Packet, owner: Member, message_type: int, kind: str) -> Answer:
    file, more = boot(packet, owner)
    if not more and not file:
        return Answer(kind="proxy: no boot file", unknown_arch=lacks_file(packet))
    options = {opt.MESSAGE_TYPE: bytes((message_type,)), opt.SERVER_ID: owner.host.packed}
    options |= more
    ciaddr = packet.ciaddr if message_type == ACK else ZERO
    reply = reply_to(packet, options, ciaddr=ciaddr, siaddr=owner.host, file=file)
    known = ciaddr if ciaddr != ZERO else None
    seen = _seen(packet, ciaddr) if known is not None else None
    return Answer(kind=kind, reply=reply, seen=seen, heard=known)


def _seen(packet: Packet, address: IPv4Address) -> Seen:
    where = "ipxe" if packet.is_ipxe else "dhcp"
    arch, port = architecture(packet), packet.relay_port
    return Seen(packet.mac, address, arch, packet.machine_uuid, where, port)
