"""DHCP messages: bytes -> Packet or None, and Packet -> bytes (RFC 2131, 2132, 3396).

It knows nothing of leases, sockets or who answers. Rule: what is not a whole DHCP message of an
Ethernet client is None, never an exception; the caller drops and counts it.
"""

import struct
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import IPv4Address
from types import MappingProxyType
from typing import Final

from node.proto import dhcp_options as opt

REQUEST_OP: Final = 1
REPLY_OP: Final = 2
DISCOVER: Final = 1
OFFER: Final = 2
REQUEST: Final = 3
DECLINE: Final = 4
ACK: Final = 5
NAK: Final = 6
RELEASE: Final = 7
INFORM: Final = 8

BROADCAST_FLAG: Final = 0x8000
COOKIE: Final = b"\x63\x82\x53\x63"
HEADER_BYTES: Final = 236
MESSAGE_BYTES_MIN: Final = 300  # BOOTP: shorter ones are thrown away by old relays
MESSAGE_BYTES_MAX: Final = 1472  # one Ethernet frame
UDP_IP_BYTES: Final = 28  # counted in option 57
SIZE_LEAST: Final = 576
ZERO: Final = IPv4Address(0)
_HEADER: Final = struct.Struct(">BBBBIHH4s4s4s4s16s64s128s4s")
_FIXED: Final = struct.Struct(">BBBBIHH4s4s4s4s6s")
RELAY_ID_BYTES_MAX: Final = 64
"""Of each id of a relay that is shown to people."""
AREAS_REMEMBERED: Final = 2048
"""Relay agents' options whose reading is remembered: ports ask again and again."""
AREA_BYTES_MAX: Final = 255
"""Longer ones, which no relay sends, are read each time: what is remembered stays small."""
ADDRESSES_REMEMBERED: Final = 1024
NOTHING: Final[Mapping[int, bytes]] = MappingProxyType({})
DOCTOR_CLASS: Final = b"rackmesh-doctor"
"""Option 60 of a probe for strangers' servers: nodes do not answer it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Packet:
    """One DHCP message; ``options`` are joined and free of overload."""

    op: int = REQUEST_OP
    hops: int = 0
    xid: int = 0
    secs: int = 0
    flags: int = 0
    ciaddr: IPv4Address = ZERO
    yiaddr: IPv4Address = ZERO
    siaddr: IPv4Address = ZERO
    giaddr: IPv4Address = ZERO
    chaddr: bytes = bytes(6)
    sname: bytes = b""
    file: bytes = b""
    options: Mapping[int, bytes] = field(default_factory=dict[int, bytes])

    @property
    def mac(self) -> str:
        """The client's MAC address, lower case with colons."""
        return self.chaddr.hex(":")

    @property
    def relayed(self) -> bool:
        """Whether a relay passed it on (giaddr)."""
        return int(self.giaddr) != 0

    @property
    def has_address(self) -> bool:
        """Whether the client uses an address (ciaddr)."""
        return int(self.ciaddr) != 0

    @property
    def message_type(self) -> int | None:
        """Option 53, or None: BOOTP."""
        value = self.options.get(opt.MESSAGE_TYPE, b"")
        return value[0] if len(value) == 1 else None

    @property
    def requested_address(self) -> IPv4Address | None:
        """Option 50."""
        return self._address(opt.REQUESTED_ADDRESS)

    @property
    def server_id(self) -> IPv4Address | None:
        """Option 54."""
        return self._address(opt.SERVER_ID)

    @property
    def bytes_max(self) -> int:
        """Longest DHCP message that the client takes: option 57 less the IP and UDP headers."""
        value = self.options.get(opt.SIZE_MAX, b"")
        size = int.from_bytes(value, "big") if len(value) == 2 else SIZE_LEAST
        return min(max(size, SIZE_LEAST) - UDP_IP_BYTES, MESSAGE_BYTES_MAX)

    @property
    def vendor_class(self) -> bytes:
        """Option 60."""
        return self.options.get(opt.VENDOR_CLASS, b"")

    @property
    def architectures(self) -> tuple[int, ...]:
        """Option 93 (RFC 4578), or what option 60 says, most wanted first."""
        value = self.options.get(opt.ARCHITECTURE, b"")
        if value and len(value) % 2 == 0:
            return tuple(
                int.from_bytes(value[at : at + 2], "big") for at in range(0, len(value), 2)
            )
        parts = self.vendor_class.split(b":")
        if len(parts) >= 3 and parts[1] == b"Arch" and parts[2].isdigit():
            return (int(parts[2][:5]),)
        return ()

    @property
    def is_ipxe(self) -> bool:
        """Whether iPXE asks: its user class (with or without a length), or its own option."""
        user_class = self.options.get(opt.USER_CLASS, b"")
        return user_class in {b"iPXE", b"\x04iPXE"} or opt.IPXE in self.options

    @property
    def machine_uuid(self) -> str | None:
        """Option 97 as Linux shows product_uuid: the first three fields are little-endian."""
        value = self.options.get(opt.MACHINE_UUID, b"")
        if len(value) != 17 or value[0] != 0:
            return None
        return str(uuid.UUID(bytes_le=value[1:]))

    @property
    def relay_options(self) -> Mapping[int, bytes]:
        """Sub-options of option 82; empty when there are none or they do not parse."""
        area = self.options.get(opt.RELAY_AGENT)
        if area is None:
            return NOTHING
        return _sub_options(area) if len(area) <= AREA_BYTES_MAX else _walk(area)

    @property
    def server_override(self) -> IPv4Address | None:
        """What a relay wants to be named as the server, so that it sees renewals (RFC 5107)."""
        said = self.relay_options.get(opt.RELAY_SERVER_OVERRIDE)
        return IPv4Address(said) if said is not None and len(said) == 4 and any(said) else None

    @property
    def relay_port(self) -> str:
        """Where a relay says that the client is plugged in: remote id (the switch), circuit id.

        Switches write text or raw bytes into them (RFC 3046 section 3); raw bytes are shown in
        hexadecimal.
        """
        area = self.options.get(opt.RELAY_AGENT)
        if area is None:
            return ""
        return _relay_port(area) if len(area) <= AREA_BYTES_MAX else _where(_walk(area))

    def wants(self, code: int) -> bool:
        """Whether option 55 asks for an option."""
        return code in self.options.get(opt.PARAMETERS, b"")

    def _address(self, code: int) -> IPv4Address | None:
        value = self.options.get(code, b"")
        return IPv4Address(value) if len(value) == 4 else None


@lru_cache(AREAS_REMEMBERED)
def _sub_options(area: bytes) -> Mapping[int, bytes]:
    return _walk(area)


def _walk(area: bytes) -> Mapping[int, bytes]:
    found: dict[int, bytes] = {}
    at = 0
    while at + 2 <= len(area) and at + 2 + area[at + 1] <= len(area):
        found.setdefault(area[at], area[at + 2 : at + 2 + area[at + 1]])
        at += 2 + area[at + 1]
    return MappingProxyType(found) if at == len(area) else NOTHING


@lru_cache(AREAS_REMEMBERED)
def _relay_port(area: bytes) -> str:
    return _where(_sub_options(area))


def _where(relay: Mapping[int, bytes]) -> str:
    ids = (relay.get(opt.RELAY_REMOTE, b""), relay.get(opt.RELAY_CIRCUIT, b""))
    return " ".join(_readable(value[:RELAY_ID_BYTES_MAX]) for value in ids if value)


@lru_cache(ADDRESSES_REMEMBERED)
def _address(raw: bytes) -> IPv4Address:
    return IPv4Address(raw)


def _readable(value: bytes) -> str:
    text = value.decode("ascii", "replace")
    return text if text.isprintable() and "\ufffd" not in text else value.hex()


def decode(data: bytes) -> Packet | None:
    """Return the message, or None for anything that is not one of an Ethernet client."""
    if len(data) < HEADER_BYTES + len(COOKIE) or data[0] not in {REQUEST_OP, REPLY_OP}:
        return None
    if data[1] != 1 or data[2] != 6 or data[HEADER_BYTES : HEADER_BYTES + 4] != COOKIE:
        return None
    options: dict[int, bytes] = {}
    if not opt.read_into(options, data, HEADER_BYTES + 4):
        return None
    sname, file = data[44:108], data[108:236]
    overload = options.pop(opt.OVERLOAD, b"\0")
    if len(overload) != 1 or overload[0] > 3:
        return None
    for bit, area in ((1, file), (2, sname)):
        if overload[0] & bit and not opt.read_into(options, area, 0):
            return None
    if overload[0]:
        options.pop(opt.OVERLOAD, None)
    op, _, _, hops, xid, secs, flags, ciaddr, yiaddr, siaddr, giaddr, chaddr = (
        _FIXED.unpack_from(data)
    )
    return Packet(
        op=op,
        hops=hops,
        xid=xid,
        secs=secs,
        flags=flags,
        ciaddr=_address(ciaddr),
        yiaddr=_address(yiaddr),
        siaddr=_address(siaddr),
        giaddr=_address(giaddr),
        chaddr=chaddr,
        sname=b"" if overload[0] & 2 else sname.partition(b"\0")[0],
        file=b"" if overload[0] & 1 else file.partition(b"\0")[0],
        options=options,
    )


def encode(packet: Packet, bytes_max: int = MESSAGE_BYTES_MAX) -> bytes:
    """Return the message in at most ``bytes_max`` bytes; options come in their map's order.

    Options that do not fit go to file and sname where these are free, else are left out. The
    relay agent's option is always kept: it is taken off before the client sees the message.
    """
    assert bytes_max >= SIZE_LEAST - UDP_IP_BYTES
    assert len(packet.chaddr) == 6
    assert len(packet.file) < 128
    assert len(packet.sname) < 64
    relay = packet.options.get(opt.RELAY_AGENT)
    relay_bytes = 0 if relay is None else len(relay) + 2 * max(1, -(-len(relay) // 255))
    room = min(bytes_max - HEADER_BYTES - len(COOKIE) + relay_bytes, 65_000)
    area, file, sname = opt.lay_out(packet.options, room, not packet.file, not packet.sname)
    header = _HEADER.pack(
        packet.op, 1, 6, packet.hops, packet.xid, packet.secs, packet.flags,
        packet.ciaddr.packed, packet.yiaddr.packed, packet.siaddr.packed, packet.giaddr.packed,
        packet.chaddr, packet.sname or sname, packet.file or file, COOKIE,
    )  # fmt: skip
    return (header + area).ljust(MESSAGE_BYTES_MIN, b"\0")
