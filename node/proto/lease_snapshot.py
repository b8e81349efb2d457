"""The merged rows that DHCP answers from, as one immutable value with an id.

It knows no packets, no clock and no address of the node it runs on. Rule: two nodes with the
same rows build the same snapshot, so ``id`` (BLAKE2b of the canonical rows) says whether they
answer alike. A row that does not parse is left out and counted, on every node alike.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from ipaddress import IPv4Address, IPv4Network
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

from mesh.errors import CodecError
from mesh.proto import codec, fields
from mesh.proto.ids import parse_mac
from mesh.proto.rendezvous import owner, ranked
from node.proto import dhcp_options as opt

CANDIDATES_MAX: Final = 8
DECLINED_MAX: Final = CANDIDATES_MAX
LEASE_S_LEAST: Final = 60
LEASE_S_MOST: Final = 30 * 86_400
DNS_MAX: Final = 4
PORT_CHARS_MAX: Final = 300
REMEMBERED_MAX: Final = 16_384
"""Machines of which a snapshot remembers what it worked out."""

K = TypeVar("K")
V = TypeVar("V")

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


@dataclass(frozen=True, slots=True)
class Bound:
    """The dynamic binding of a MAC; ``declined`` are addresses that it found in use."""

    ip: IPv4Address | None
    declined: tuple[IPv4Address, ...]


class _Memo:
    """What was worked out before, per machine and subnet; follows from the rows alone."""

    __slots__ = ("addresses", "owners", "subnets")

    def __init__(self) -> None:
        self.subnets: dict[IPv4Address, Subnet | None] = {}
        self.owners: dict[tuple[str, IPv4Address], Member | None] = {}
        self.addresses: dict[tuple[str, IPv4Address], IPv4Address | None] = {}


def _remember(known: dict[K, V], key: K, value: V) -> V:
    if len(known) >= REMEMBERED_MAX:
        known.clear()
    known[key] = value
    return value


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """Everything that ``node.proto.lease.answer`` knows."""

    id: str
    subnets: tuple[Subnet, ...]
    direct: IPv4Network | None  # subnet of clients that no relay stands before
    members: tuple[Member, ...]
    absent: frozenset[str]  # members that own nothing now, though their offers stand
    known: Mapping[str, Known]
    bound: Mapping[str, Bound]
    holders: Mapping[IPv4Address, frozenset[str]] = field(repr=False)  # address -> MACs
    reserved: Mapping[str, Known] = field(default_factory=dict[str, Known])
    """Ports that only one server may ask from, and whose they are."""
    rejected: int = 0  # rows left out
    _memo: _Memo = field(default_factory=_Memo, compare=False, repr=False)

    def subnet_of(self, address: IPv4Address) -> Subnet | None:
        """Return the subnet that an address lies in."""
        known = self._memo.subnets
        if address in known:
            return known[address]
        found = next((s for s in self.subnets if address in s.network), None)
        return _remember(known, address, found)

    def direct_subnet(self) -> Subnet | None:
        """Return the subnet of clients on our own wire."""
        return next((s for s in self.subnets if s.network == self.direct), None)

    def address_of(self, mac: str, subnet: Subnet) -> IPv4Address | None:
        """Return the address of a machine: fixed, bound, or its first free candidate."""
        key, memo = (mac, subnet.first), self._memo.addresses
        if key in memo:
            return memo[key]
        return _remember(memo, key, self._address_of(mac, subnet))

    def _address_of(self, mac: str, subnet: Subnet) -> IPv4Address | None:
        known = self.known.get(mac)
        if known is not None and known.ip is not None and known.ip in subnet.network:
            return known.ip
        bound = self.bound.get(mac)
        if bound is not None and bound.ip is not None and bound.ip in subnet.network:
            return bound.ip
        declined = bound.declined if bound is not None else ()
        return _free_candidate(subnet, mac, self.holders, declined)

    def script_address(self, mac: str) -> frozenset[IPv4Address]:
        """Return the addresses, one a subnet, from which a machine may ask for its script."""
        found = (self.address_of(mac, subnet) for subnet in self.subnets)
        return frozenset(address for address in found if address is not None)

    def is_recorded(self, mac: str) -> bool:
        """Whether the address of a machine stands in a row (known server or binding)."""
        bound = self.bound.get(mac)
        return mac in self.known or (bound is not None and bound.ip is not None)

    def owner_of(self, mac: str, subnet: Subnet) -> Member | None:
        """Return the member that replies name: the rendezvous owner in the client's subnet."""
        key, memo = (mac, subnet.first), self._memo.owners
        if key in memo:
            return memo[key]
        return _remember(memo, key, self._owner_of(mac, subnet))

    def _owner_of(self, mac: str, subnet: Subnet) -> Member | None:
        present = [m for m in self.members if m.node not in self.absent] or self.members
        near = [m for m in present if m.host in subnet.network] or present
        chosen = owner((member.node for member in near), mac)
        return next((member for member in near if member.node == chosen), None)

    def fallbacks(self, mac: str) -> tuple[str, ...]:
        """Return the URLs of all members, present ones first, in the client's own order."""
        urls = {member.node: member.url for member in self.members}
        order = ranked(urls, mac)
        order.sort(key=lambda node: node in self.absent)
        return tuple(urls[node] for node in order)


def build(
    *,
    subnets: Keyed,
    servers: Keyed,
    bindings: Keyed,
    nodes: Keyed,
    site: str,
    direct: IPv4Network | None,
    absent: frozenset[str] = frozenset(),
    locks: Keyed = (),
) -> Snapshot:
    """Build the snapshot of a site.

    ``nodes`` are NODE rows by the node id of their author, ``locks`` PORT_LOCK rows by server.
    """
    rejected = 0
    parsed_subnets: dict[IPv4Network, Subnet] = {}
    for key, body in subnets:
        try:
            subnet = _subnet(key, body)
            parsed_subnets[subnet.network] = subnet
        except (CodecError, ValueError):
            rejected += 1
    members: dict[str, Member] = {}
    for key, body in nodes:
        try:
            member = _member(key, body, site)
        except (CodecError, ValueError):
            rejected += 1
        else:
            if member is not None:
                members[key] = member
    ports, bad_locks = _locks(locks)
    known, server_rows, bad_servers = _servers(servers, ports)
    bound, binding_rows, bad_bindings = _bindings(bindings)
    all_subnets = tuple(parsed_subnets[network] for network in sorted(parsed_subnets))
    all_members = tuple(members[node] for node in sorted(members))
    if direct is None or direct not in parsed_subnets:
        direct = _default_direct(all_subnets, all_members)
    holders = _holders(all_subnets, all_members, known, bound)
    gone = frozenset(absent & members.keys())
    canonical = codec.pack(
        [
            [_subnet_row(subnet) for subnet in all_subnets],
            [[m.node, str(m.host), m.port] for m in all_members],
            sorted(gone),
            str(direct),
            server_rows,
            binding_rows,
            sorted(ports.items()),
        ]
    )
    return Snapshot(
        id=hashlib.blake2b(canonical, digest_size=16).hexdigest(),
        subnets=all_subnets,
        direct=direct,
        members=all_members,
        absent=gone,
        known=known,
        bound=bound,
        holders=holders,
        reserved={machine.port: machine for machine in known.values() if machine.port},
        rejected=rejected + bad_servers + bad_bindings + bad_locks,
    )


def candidate(subnet: Subnet, mac: str, index: int) -> IPv4Address:
    """Return c_i = pool[BLAKE2b(salt, mac||i)] (keyed hash; any node computes the same)."""
    assert 0 <= index < CANDIDATES_MAX
    size = int(subnet.last) - int(subnet.first) + 1
    data = bytes.fromhex(mac.replace(":", "")) + bytes((index,))
    digest = hashlib.blake2b(data, digest_size=8, key=subnet.salt).digest()
    return subnet.first + int.from_bytes(digest, "big") % size


def _free_candidate(
    subnet: Subnet,
    mac: str,
    holders: Mapping[IPv4Address, frozenset[str]],
    declined: tuple[IPv4Address, ...] = (),
) -> IPv4Address | None:
    for index in range(CANDIDATES_MAX):
        address = candidate(subnet, mac, index)
        macs = holders.get(address)
        if address not in declined and (macs is None or mac in macs):
            return address
    return None


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


def _subnet_row(subnet: Subnet) -> list[Any]:
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


def _locks(rows: Keyed) -> tuple[dict[str, str], int]:
    """Return the port that each server is locked to."""
    ports: dict[str, str] = {}
    rejected = 0
    for key, body in rows:
        try:
            ports[key] = fields.text(body, "port")[:PORT_CHARS_MAX]
        except CodecError:
            rejected += 1
    return {server: port for server, port in ports.items() if port}, rejected


def _servers(rows: Keyed, ports: Mapping[str, str]) -> tuple[dict[str, Known], list[Any], int]:
    ordered: list[tuple[int, str, list[str], IPv4Address | None, str]] = []
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
            ordered.append((accepted_ms, key, valid, ip, hostname[:63]))
    known: dict[str, Known] = {}
    ordered.sort(key=lambda row: row[:2])
    for _, key, macs_of, ip, hostname in ordered:
        for mac in macs_of:
            known.setdefault(mac, Known(key, ip, hostname, ports.get(key, "")))
    canonical = [[ms, key, macs, str(ip), name] for ms, key, macs, ip, name in ordered]
    return known, canonical, rejected


def _bindings(rows: Keyed) -> tuple[dict[str, Bound], list[Any], int]:
    ordered: list[tuple[int, str, IPv4Address | None, tuple[IPv4Address, ...]]] = []
    rejected = 0
    for key, body in rows:
        try:
            mac = parse_mac(key)
            if mac is None:
                raise ValueError("not a MAC address")
            claimed_ms = fields.integer(body, "claimed_ms", default=0)
            ip = IPv4Address(fields.text(body, "ip")) if body.get("ip") else None
            declined = fields.texts(body, "declined", default=[])[:DECLINED_MAX]
            ordered.append((claimed_ms, mac, ip, tuple(map(IPv4Address, declined))))
        except (CodecError, ValueError):
            rejected += 1
    ordered.sort(key=lambda row: row[:2])
    bound: dict[str, Bound] = {}
    taken: set[IPv4Address] = set()
    for _, mac, ip, declined_ips in ordered:
        mine = ip if ip is not None and ip not in taken and ip not in declined_ips else None
        if mine is not None:  # of two that were given one address apart, the earlier keeps it
            taken.add(mine)
        bound[mac] = Bound(mine, declined_ips)
    canonical = [[ms, mac, str(ip), [str(d) for d in away]] for ms, mac, ip, away in ordered]
    return bound, canonical, rejected


def _holders(
    subnets: tuple[Subnet, ...],
    members: tuple[Member, ...],
    known: Mapping[str, Known],
    bound: dict[str, Bound],
) -> dict[IPv4Address, frozenset[str]]:
    """Say who may have which address; takes bindings back that a fixed address overrides."""
    nobody: frozenset[str] = frozenset()
    holders = {member.host: nobody for member in members}
    for subnet in subnets:
        ours = subnet.network.network_address, subnet.network.broadcast_address, subnet.router
        holders.update(
            dict.fromkeys([a for a in (*ours, *subnet.dns) if a is not None], nobody)
        )
    for mac, machine in known.items():
        if machine.ip is not None:
            holders[machine.ip] = holders.get(machine.ip, nobody) | {mac}
    for mac, binding in bound.items():
        if binding.ip is None:
            continue
        if mac in holders.setdefault(binding.ip, frozenset({mac})):
            continue
        bound[mac] = Bound(None, binding.declined)
    for subnet in subnets:  # accepted servers without a row of their own keep their candidate
        for mac, machine in known.items():
            binding = bound.get(mac, Bound(None, ()))
            stands = (machine.ip, binding.ip)
            if any(ip is not None and ip in subnet.network for ip in stands):
                continue
            address = _free_candidate(subnet, mac, holders, binding.declined)
            if address is not None:
                holders[address] = frozenset({mac})
    return holders


def _default_direct(
    subnets: tuple[Subnet, ...], members: tuple[Member, ...]
) -> IPv4Network | None:
    """Return the first subnet that a member stands in, or the only one."""
    for subnet in subnets:
        if any(member.host in subnet.network for member in members):
            return subnet.network
    return subnets[0].network if len(subnets) == 1 else None
