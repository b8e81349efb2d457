"""Rows of the store as DHCP reads them: subnets, nodes, servers, port locks, bindings.

It knows no packets and makes no decision. Rule: a row that does not parse is left out and
counted, on every node alike; what is read of a row is all that the snapshot's id covers.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from ipaddress import IPv4Address, IPv4Network
from typing import Any, Final
from urllib.parse import urlsplit

from mesh.errors import CodecError
from mesh.proto import codec, fields
from mesh.proto.ids import parse_mac
from mesh.proto.lifecycle import monitored as is_monitored
from node.proto import dhcp_options as opt

CANDIDATES_MAX: Final = 8
DECLINED_MAX: Final = CANDIDATES_MAX
LEASE_S_LEAST: Final = 60
LEASE_S_MOST: Final = 30 * 86_400
DNS_MAX: Final = 4
WEIGHT_BYTES: Final = 32
PORT_CHARS_MAX: Final = 300

Keyed = Iterable[tuple[str, Mapping[str, Any]]]
"""Rows as (key, body)."""


@dataclass(frozen=True)
class Subnet:
    """A provisioning subnet; the pool is ``first`` to ``last``, both inclusive."""

    network: IPv4Network
    first: IPv4Address
    last: IPv4Address
    router: IPv4Address | None
    dns: tuple[IPv4Address, ...]
    lease_s: int
    salt: bytes
    proxy: bool = False  # another server gives the addresses, we say what to boot
    beside: tuple[IPv4Address, ...] = ()  # servers of others that are meant to be there

    @cached_property
    def network_options(self) -> dict[int, bytes]:
        """Options that say what the network is like."""
        options = {opt.SUBNET_MASK: self.network.netmask.packed}
        if self.router is not None:
            options[opt.ROUTER] = self.router.packed
        if self.dns:
            options[opt.DNS] = b"".join(address.packed for address in self.dns)
        return options

    @cached_property
    def lease_options(self) -> dict[int, bytes]:
        """Options that say how long a lease is, then those of the network."""
        times = (
            (opt.LEASE_TIME, self.lease_s),
            (opt.RENEWAL_TIME, self.lease_s // 2),
            (opt.REBINDING_TIME, self.lease_s * 7 // 8),
        )
        return {code: s.to_bytes(4, "big") for code, s in times} | self.network_options


@dataclass(frozen=True, slots=True)
class Member:
    """A node of the service set and where its boot listener is."""

    node: str
    host: IPv4Address
    port: int

    @property
    def url(self) -> str:
        """Base URL of the boot listener, without a slash at its end."""
        return f"http://{self.host}" + ("" if self.port == 80 else f":{self.port}")


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a MAC of an accepted server."""

    server: str
    ip: IPv4Address | None
    hostname: str
    port: str = ""  # it is locked to this one (option 82); "": to none
    monitored: bool = False  # it is given an address at most, never anything to boot


@dataclass(frozen=True, slots=True)
class Bound:
    """The dynamic binding of a MAC; ``declined`` are addresses that it found in use."""

    ip: IPv4Address | None
    declined: tuple[IPv4Address, ...]


@dataclass(frozen=True, slots=True)
class Binding:
    """A BINDING row as it was read; ``weight`` is its part of the snapshot's id."""

    claimed_ms: int
    ip: IPv4Address | None
    declined: tuple[IPv4Address, ...]
    weight: int


def _subnet(key: str, body: Mapping[str, Any]) -> Subnet:
    network = IPv4Network(fields.text(body, "cidr", default=key))
    if network.prefixlen > 30:
        raise ValueError("too small")
    usual_first = min(10, network.num_addresses // 2)
    first = IPv4Address(fields.text(body, "first", default="") or network[usual_first])
    last = IPv4Address(fields.text(body, "last", default="") or network[-2])
    if first not in network or last not in network or first > last:
        raise ValueError("the pool is not inside the subnet")
    router = body.get("router")
    dns = fields.texts(body, "dns", count_max=64, default=[])
    salt = bytes.fromhex(fields.text(body, "salt", default=""))[:64]
    return Subnet(
        network=network,
        first=first,
        last=last,
        router=IPv4Address(fields.text(body, "router")) if router else None,
        dns=tuple(map(IPv4Address, dns))[:DNS_MAX],
        lease_s=min(
            max(fields.integer(body, "lease_s", default=600), LEASE_S_LEAST), LEASE_S_MOST
        ),
        salt=salt,
        proxy=body.get("mode") == "proxy",
        beside=tuple(map(IPv4Address, fields.texts(body, "beside", count_max=16, default=[]))),
    )


def subnet_row(subnet: Subnet) -> list[Any]:
    """Return what counts of a subnet for the snapshot's id."""
    return [
        str(subnet.network),
        str(subnet.first),
        str(subnet.last),
        str(subnet.router),
        [str(server) for server in subnet.dns],
        subnet.lease_s,
        subnet.salt,
        subnet.proxy,
    ]


def _member(node: str, body: Mapping[str, Any], site: str) -> Member | None:
    if fields.text(body, "site", default="") != site:
        return None
    if "dhcp" not in fields.texts(body, "services", default=[]):
        return None
    url = urlsplit(fields.text(body, "boot_url", default=""))
    if url.scheme != "http" or url.hostname is None:
        raise ValueError("no boot address")
    return Member(node, IPv4Address(url.hostname), 80 if url.port is None else url.port)


def read_locks(rows: Keyed) -> tuple[dict[str, str], int]:
    """Return the port that each server is locked to."""
    ports: dict[str, str] = {}
    rejected = 0
    for key, body in rows:
        try:
            ports[key] = fields.text(body, "port")[:PORT_CHARS_MAX]
        except CodecError:
            rejected += 1
    return {server: port for server, port in ports.items() if port}, rejected


def read_servers(
    rows: Keyed, ports: Mapping[str, str]
) -> tuple[dict[str, Known], list[Any], int]:
    """Return servers by MAC (of two with one MAC the older), their rows, how many are out."""
    ordered: list[tuple[int, str, list[str], IPv4Address | None, str, bool]] = []
    rejected = 0
    for key, body in rows:
        try:
            accepted_ms = fields.integer(body, "accepted_ms", default=0)
            macs = [parse_mac(text) for text in fields.texts(body, "macs", default=[])]
            ip = IPv4Address(fields.text(body, "ip")) if body.get("ip") else None
            name = body.get("hostname") or body.get("name") or ""
            hostname = name if isinstance(name, str) and name.isascii() else ""
        except (CodecError, ValueError):
            rejected += 1
        else:
            valid = sorted({mac for mac in macs if mac is not None})
            ordered.append((accepted_ms, key, valid, ip, hostname[:63], is_monitored(body)))
    known: dict[str, Known] = {}
    ordered.sort(key=lambda row: row[:2])
    for _, key, macs_of, ip, hostname, only in ordered:
        for mac in macs_of:
            known.setdefault(mac, Known(key, ip, hostname, ports.get(key, ""), only))
    canonical = [
        [ms, key, macs, str(ip), name, *(["monitored"] if only else [])]
        for ms, key, macs, ip, name, only in ordered
    ]
    return known, canonical, rejected


def read_subnets(rows: Keyed) -> tuple[tuple[Subnet, ...], int]:
    """Return the subnets in order, and how many rows were left out."""
    found: dict[IPv4Network, Subnet] = {}
    rejected = 0
    for key, body in rows:
        try:
            subnet = _subnet(key, body)
            found[subnet.network] = subnet
        except (CodecError, ValueError):
            rejected += 1
    return tuple(found[network] for network in sorted(found)), rejected


def read_members(rows: Keyed, site: str) -> tuple[tuple[Member, ...], int]:
    """Return the service set of a site in order, and how many rows were left out."""
    found: dict[str, Member] = {}
    rejected = 0
    for key, body in rows:
        try:
            member = _member(key, body, site)
        except (CodecError, ValueError):
            rejected += 1
        else:
            if member is not None:
                found[key] = member
    return tuple(found[node] for node in sorted(found)), rejected


def read_binding(key: str, body: Mapping[str, Any]) -> tuple[str, Binding] | None:
    """Return the MAC and what its row says, None when it does not parse."""
    try:
        mac = parse_mac(key)
        if mac is None:
            return None
        claimed_ms = fields.integer(body, "claimed_ms", default=0)
        ip = IPv4Address(fields.text(body, "ip")) if body.get("ip") else None
        texts = (
            fields.texts(body, "declined", default=[])[:DECLINED_MAX]
            if body.get("declined")
            else []
        )
        declined = tuple(map(IPv4Address, texts))
    except (CodecError, ValueError):
        return None
    packed = codec.pack([claimed_ms, mac, str(ip), [str(away) for away in declined]])
    weight = int.from_bytes(hashlib.blake2b(packed, digest_size=WEIGHT_BYTES).digest(), "big")
    return mac, Binding(claimed_ms, ip, declined, weight)
