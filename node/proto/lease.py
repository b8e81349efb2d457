"""What DHCP answers: ``answer(snapshot, packet)``, a pure function.

It has no clock, no randomness and no address of the node that runs it. Rule: every node of a
site that holds the same snapshot answers a packet with the same bytes, so it does not matter
who answers, nor how many do; a REQUEST that names a member is acknowledged by all, one that
names a stranger by none, and firmware that boots is never refused (NAK), only left unanswered.

Options 54, siaddr and the boot URL name the rendezvous owner for the client among the members;
an acknowledgement repeats the server that the REQUEST named (clients compare).
"""

from ipaddress import IPv4Address

from node.proto import dhcp_options as opt
from node.proto import proxy_dhcp
from node.proto.dhcp import (
    ACK,
    DECLINE,
    DISCOVER,
    INFORM,
    NAK,
    OFFER,
    RELEASE,
    REQUEST,
    REQUEST_OP,
    ZERO,
    Packet,
)
from node.proto.dhcp_answer import EVERYONE, Answer, Claim, Outgoing, Seen, reply_to
from node.proto.dhcp_boot import architecture, boot, is_firmware, lacks_file
from node.proto.lease_rows import Member, Subnet
from node.proto.lease_snapshot import Snapshot
from node.proto.port_lock import trespass


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
    wrong = trespass(snapshot, packet)
    if wrong is not None:
        return Answer(kind=wrong.kind, trespass=wrong if wrong.told else None)
    result = _decide(snapshot, packet, subnet, owner)
    if result.reply is not None and not _may_go(snapshot, packet, result.reply):
        return Answer(kind="reply would leave our networks")
    return result


def answer_4011(snapshot: Snapshot, packet: Packet) -> Answer:
    """Decide about one packet on the port of PXE boot servers (4011)."""
    subnet = snapshot.subnet_of(packet.ciaddr) if packet.op == REQUEST_OP else None
    owner = snapshot.owner_of(packet.mac, subnet) if subnet is not None else None
    if owner is None or packet.relayed:
        return Answer(kind="4011: not from our networks")
    known = snapshot.known.get(packet.mac)
    if known is not None and known.port:  # nobody says on this port where it is plugged in
        return Answer(kind="past its relay")
    if known is not None and known.monitored:
        return Answer(kind="monitored")
    return proxy_dhcp.answer_4011(packet, owner)


def _decide(snapshot: Snapshot, packet: Packet, subnet: Subnet, owner: Member) -> Answer:
    if subnet.proxy:
        if _monitored(snapshot, packet) and packet.message_type != REQUEST:
            return Answer(kind="monitored")
        return proxy_dhcp.answer(packet, owner)
    if packet.message_type == DISCOVER:
        return _discover(snapshot, packet, subnet, owner)
    if packet.message_type == REQUEST:
        return _request(snapshot, packet, subnet, owner)
    if packet.message_type in {DECLINE, RELEASE}:
        return _give_back(snapshot, packet)
    if packet.message_type == INFORM:
        return _inform(snapshot, packet, subnet, owner)
    return Answer(kind="not a request")


def _may_go(snapshot: Snapshot, packet: Packet, reply: Outgoing) -> bool:
    """Tell whether a reply stays in our networks: else packets with an invented address would
    send our replies to anybody (reflection). Of a relay the shell knows whether it is one.
    """
    if packet.relayed or reply.address is EVERYONE:
        return True
    return snapshot.subnet_of(reply.address) is not None


def client_subnet(snapshot: Snapshot, packet: Packet) -> Subnet | None:
    """Return the subnet of the client: link selection, relay, own address, or our own wire."""
    if packet.relayed:
        link = packet.relay_options.get(opt.RELAY_LINK_SELECTION)
        chosen = link is not None and len(link) == 4
        return snapshot.subnet_of(IPv4Address(link) if chosen else packet.giaddr)
    if packet.has_address:
        return snapshot.subnet_of(packet.ciaddr) or snapshot.direct_subnet()
    return snapshot.direct_subnet()


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
    named = packet.options.get(opt.SERVER_ID)
    if named in snapshot.hosts:
        return True
    override = packet.server_override
    return override is not None and named == override.packed


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
    # a machine that was never acknowledged declines nothing: each invented one would be a row
    mine = snapshot.is_recorded(packet.mac) and any(
        address is not None and address == snapshot.address_of(packet.mac, subnet)
        for subnet in snapshot.subnets
    )
    return Answer(kind="decline", in_use=address if mine else None)


def _monitored(snapshot: Snapshot, packet: Packet) -> bool:
    known = snapshot.known.get(packet.mac)
    return known is not None and known.monitored


def _boot(
    snapshot: Snapshot, packet: Packet, owner: Member
) -> tuple[str, dict[int, bytes], IPv4Address]:
    """Return boot file, options and next server; a monitored server is given none of them."""
    if _monitored(snapshot, packet):
        return "", {}, ZERO
    return *boot(packet, owner), owner.host


def _inform(snapshot: Snapshot, packet: Packet, subnet: Subnet, owner: Member) -> Answer:
    """Configuration for a client that has its address: no lease, no yiaddr (4.3.5)."""
    server = packet.server_override or owner.host
    options = {opt.MESSAGE_TYPE: bytes((ACK,)), opt.SERVER_ID: server.packed}
    options |= subnet.network_options
    _add_broadcast(options, packet, subnet)
    file, more, siaddr = _boot(snapshot, packet, owner)
    reply = reply_to(packet, options | more, ciaddr=packet.ciaddr, siaddr=siaddr, file=file)
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
        **subnet.lease_options,
    }
    _add_broadcast(options, packet, subnet)
    file, more, siaddr = _boot(snapshot, packet, owner)
    options |= more
    known = snapshot.known.get(packet.mac)
    if known is not None and known.hostname and packet.wants(opt.HOSTNAME):
        options[opt.HOSTNAME] = known.hostname.encode()
    bound = snapshot.bound.get(packet.mac)
    durable = known is not None or (bound is not None and bound.ip == address)
    return Answer(
        kind=kind,
        reply=reply_to(
            packet,
            options,
            ciaddr=packet.ciaddr if message_type == ACK else ZERO,
            yiaddr=address,
            siaddr=siaddr,
            file=file,
        ),
        claim=None
        if durable or message_type != ACK
        else Claim(packet.mac, address, packet.machine_uuid),
        seen=Seen(
            packet.mac,
            address,
            architecture(packet),
            packet.machine_uuid,
            "ipxe" if packet.is_ipxe else "dhcp",
            packet.relay_port,
        ),
        unknown_arch=lacks_file(packet),
        boots_from=siaddr if kind == "ack" and file and is_firmware(packet) else None,
    )


def _add_broadcast(options: dict[int, bytes], packet: Packet, subnet: Subnet) -> None:
    if packet.wants(opt.BROADCAST_ADDRESS):
        options[opt.BROADCAST_ADDRESS] = subnet.network.broadcast_address.packed


def _refuse(packet: Packet, owner: Member) -> Answer:
    options = {
        opt.MESSAGE_TYPE: bytes((NAK,)),
        opt.SERVER_ID: (packet.server_override or owner.host).packed,
        opt.MESSAGE: b"this address is not yours here",
    }
    return Answer(kind="nak", reply=reply_to(packet, options))
