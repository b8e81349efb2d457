"""A DHCP client behind a relay of its own (RFC 2131, 3046, 8357): ROM, iPXE or system.

Knows no socket. A simulated server has no wire to broadcast on, so its requests arrive as a
relay's would: giaddr says which subnet, sub-option 19 of option 82 says that answers come back
to the port we send from. Rule: an answer counts only when it is ours (xid, MAC and giaddr).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Final, Literal
from uuid import UUID

from node.proto import dhcp_options as opt
from node.proto.dhcp import (
    ACK,
    DISCOVER,
    NAK,
    OFFER,
    REPLY_OP,
    REQUEST,
    REQUEST_OP,
    ZERO,
    Packet,
    decode,
    encode,
)

TRIES_MAX: Final = 4
RETRY_S: Final = 1.0
URL_CHARS_MAX: Final = 1024

ROM_CLASS: Final = b"PXEClient:Arch:00000:UNDI:002001"
PARAMETERS: Final = bytes((opt.SUBNET_MASK, opt.ROUTER, opt.DNS, opt.HOSTNAME, opt.BOOT_FILE))
CIRCUIT: Final = 1

Address = tuple[str, int]
Role = Literal["rom", "ipxe", "os"]


@dataclass(frozen=True, slots=True)
class Machine:
    """Who asks."""

    name: str
    mac: str
    uuid: str


@dataclass(frozen=True, slots=True)
class Send:
    """Send a datagram to a node's DHCP port."""

    datagram: bytes
    to: Address


@dataclass(frozen=True, slots=True)
class Bound:
    """An address, and what to boot: ``file`` is a TFTP name, a URL or empty."""

    address: str
    server_id: str
    next_server: str
    file: str
    lease_s: int
    source: Address


@dataclass(frozen=True, slots=True)
class NoAnswer:
    """No lease, and why."""

    reason: str


Effect = Send | Bound | NoAnswer


class DhcpClient:
    """One exchange DISCOVER, OFFER, REQUEST, ACK with whichever node answers."""

    def __init__(
        self,
        machine: Machine,
        role: Role,
        relay: str,
        servers: Sequence[Address],
        rng: Callable[[int], bytes],
    ) -> None:
        assert servers, "somebody must be asked"
        self.deadline: float | None = None
        self.dropped = 0
        self._machine = machine
        self._role: Role = role
        self._relay = IPv4Address(relay)
        self._servers = list(servers)
        self._rng = rng
        self._xid = 0
        self._tries = 0
        self._began = 0.0
        self._offer: Packet | None = None

    def start(self, now: float) -> list[Effect]:
        """Send the first DISCOVER."""
        self._began = now
        return self._discover(now)

    def on_timer(self, now: float) -> list[Effect]:
        """Ask again, from the beginning, or give up."""
        if self.deadline is None or now < self.deadline:
            return []
        if self._tries >= TRIES_MAX:
            self.deadline = None
            what = "nobody offered an address" if self._offer is None else "no acknowledgement"
            return [NoAnswer(f"{what} after {TRIES_MAX} tries")]
        return self._discover(now)

    def on_datagram(self, data: bytes, source: Address, now: float) -> list[Effect]:
        """Take one answer."""
        packet = decode(data)
        if self.deadline is None or packet is None or not self._ours(packet):
            self.dropped += 1
            return []
        match packet.message_type, self._offer:
            case 2, None if packet.yiaddr != ZERO and packet.server_id is not None:
                self._offer = packet
                self.deadline = now + RETRY_S * self._tries
                return self._send(self._request(packet, now))
            case 5, Packet() if packet.yiaddr != ZERO and packet.server_id is not None:
                self.deadline = None
                return [_bound(packet, source)]
            case 6, Packet():
                return self._discover(now) if self._tries < TRIES_MAX else []
            case _:
                self.dropped += 1
                return []

    def _ours(self, packet: Packet) -> bool:
        return (
            packet.op == REPLY_OP
            and packet.xid == self._xid
            and packet.mac == self._machine.mac
            and packet.giaddr == self._relay
        )

    def _discover(self, now: float) -> list[Effect]:
        self._tries += 1
        self._offer = None
        self._xid = int.from_bytes(self._rng(4), "big")
        self.deadline = now + RETRY_S * self._tries
        return self._send(self._packet(DISCOVER, {}, now))

    def _request(self, offer: Packet, now: float) -> Packet:
        assert offer.server_id is not None
        chosen = {
            opt.REQUESTED_ADDRESS: offer.yiaddr.packed,
            opt.SERVER_ID: offer.server_id.packed,
        }
        return self._packet(REQUEST, chosen, now)

    def _send(self, packet: Packet) -> list[Effect]:
        data = encode(packet)
        return [Send(data, server) for server in self._servers]

    def _packet(self, message_type: int, chosen: dict[int, bytes], now: float) -> Packet:
        mac = bytes.fromhex(self._machine.mac.replace(":", ""))
        options = {opt.MESSAGE_TYPE: bytes((message_type,)), **chosen}
        options[opt.SIZE_MAX] = (1472).to_bytes(2, "big")
        options[opt.PARAMETERS] = PARAMETERS
        options[opt.CLIENT_ID] = b"\x01" + mac
        if self._role != "os":
            options[opt.VENDOR_CLASS] = ROM_CLASS
            options[opt.ARCHITECTURE] = b"\0\0"
            options[opt.NETWORK_INTERFACE] = bytes((1, 2, 1))
            options[opt.MACHINE_UUID] = b"\0" + UUID(self._machine.uuid).bytes_le
        if self._role == "ipxe":
            options[opt.USER_CLASS] = b"iPXE"
            options[opt.IPXE] = b"\xb1\x05\x01\x80\x86\x10\x0e"  # bus id, as on a PCI card
        circuit = f"rack/{self._machine.name}".encode()
        options[opt.RELAY_AGENT] = bytes((CIRCUIT, len(circuit))) + circuit
        options[opt.RELAY_AGENT] += bytes((opt.RELAY_SOURCE_PORT, 0))
        return Packet(
            op=REQUEST_OP,
            hops=1,
            xid=self._xid,
            secs=min(int(now - self._began), 0xFFFF),
            giaddr=self._relay,
            chaddr=mac,
            options=options,
        )


def _bound(packet: Packet, source: Address) -> Bound:
    file = packet.options.get(opt.BOOT_FILE, b"").rstrip(b"\0") or packet.file
    lease = packet.options.get(opt.LEASE_TIME, b"")
    return Bound(
        address=str(packet.yiaddr),
        server_id=str(packet.server_id),
        next_server=str(packet.siaddr if packet.siaddr != ZERO else packet.server_id),
        file=file.decode("utf-8", "replace")[:URL_CHARS_MAX],
        lease_s=int.from_bytes(lease, "big") if len(lease) == 4 else 0,
        source=source,
    )


assert (OFFER, ACK, NAK) == (2, 5, 6), "the numbers in on_datagram's patterns"
