"""The merged rows that DHCP answers from, as one immutable value with an id.

It knows no packets, no clock and no address of the node it runs on. Rule: two nodes with the
same rows build the same snapshot, so ``id`` (BLAKE2b of the canonical rows) says whether they
answer alike. A row that does not parse is left out and counted, on every node alike.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv4Network
from typing import Final, TypeVar

from mesh.proto import codec
from mesh.proto.rendezvous import owner, ranked
from node.proto.layers import Layers
from node.proto.lease_rows import (
    CANDIDATES_MAX,
    WEIGHT_BYTES,
    Binding,
    Bound,
    Keyed,
    Known,
    Member,
    Subnet,
    read_binding,
    read_locks,
    read_members,
    read_servers,
    read_subnets,
    subnet_row,
)

WEIGHT_END: Final = 1 << 8 * WEIGHT_BYTES
REMEMBERED_MAX: Final = 16_384
"""Machines of which a snapshot remembers what it worked out."""

K = TypeVar("K")
V = TypeVar("V")


class _Memo:
    """What was worked out before, per machine and subnet; follows from the rows alone."""

    __slots__ = ("addresses", "id", "owners", "subnets")

    def __init__(
        self,
        subnets: dict[IPv4Address, Subnet | None],
        owners: dict[tuple[str, IPv4Address], Member | None],
    ) -> None:
        self.subnets = subnets
        self.owners = owners
        self.id = ""
        self.addresses: dict[tuple[str, IPv4Address], IPv4Address | None] = {}


def _remember(known: dict[K, V], key: K, value: V) -> V:
    if len(known) >= REMEMBERED_MAX:
        known.clear()
    known[key] = value
    return value


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """Everything that ``node.proto.lease.answer`` knows."""

    fixed: bytes  # digest of all rows but the bindings
    weight: int  # sum of the bindings' digests
    subnets: tuple[Subnet, ...]
    direct: IPv4Network | None  # subnet of clients that no relay stands before
    members: tuple[Member, ...]
    absent: frozenset[str]  # members that own nothing now, though their offers stand
    known: Mapping[str, Known]
    hosts: frozenset[bytes]  # addresses of the members, packed
    rows: Layers[str, Binding] = field(repr=False)  # by MAC
    bound: Layers[str, Bound]
    holders: Layers[IPv4Address, frozenset[str]] = field(repr=False)  # address -> MACs
    reserved: Mapping[str, Known] = field(default_factory=dict[str, Known])
    """Ports that only one server may ask from, and whose they are."""
    rejected: int = 0  # rows left out
    memo: _Memo = field(default_factory=lambda: _Memo({}, {}), compare=False, repr=False)

    @property
    def id(self) -> str:
        """Equal where the rows are equal; bindings count in any order."""
        if not self.memo.id:
            data = self.fixed + self.weight.to_bytes(WEIGHT_BYTES, "big")
            self.memo.id = hashlib.blake2b(data, digest_size=16).hexdigest()
        return self.memo.id

    def subnet_of(self, address: IPv4Address) -> Subnet | None:
        """Return the subnet that an address lies in."""
        known = self.memo.subnets
        if address in known:
            return known[address]
        found = next((s for s in self.subnets if address in s.network), None)
        return _remember(known, address, found)

    def direct_subnet(self) -> Subnet | None:
        """Return the subnet of clients on our own wire."""
        return next((s for s in self.subnets if s.network == self.direct), None)

    def address_of(self, mac: str, subnet: Subnet) -> IPv4Address | None:
        """Return the address of a machine: fixed, bound, or its first free candidate."""
        key, memo = (mac, subnet.first), self.memo.addresses
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
        key, memo = (mac, subnet.first), self.memo.owners
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
    all_subnets, bad_subnets = read_subnets(subnets)
    members, bad_members = read_members(nodes, site)
    ports, bad_locks = read_locks(locks)
    known, server_rows, bad_servers = read_servers(servers, ports)
    read = [read_binding(key, body) for key, body in bindings]
    rows = dict(binding for binding in read if binding is not None)
    bound = _bound(rows)
    if direct is None or all(direct != subnet.network for subnet in all_subnets):
        direct = _default_direct(all_subnets, members)
    holders = _holders(all_subnets, members, known, bound)
    gone = frozenset(absent & {member.node for member in members})
    fixed = codec.pack(
        [
            [subnet_row(subnet) for subnet in all_subnets],
            [[m.node, str(m.host), m.port] for m in members],
            sorted(gone),
            str(direct),
            server_rows,
            sorted(ports.items()),
        ]
    )
    return Snapshot(
        fixed=hashlib.blake2b(fixed, digest_size=WEIGHT_BYTES).digest(),
        weight=sum(row.weight for row in rows.values()) % WEIGHT_END,
        subnets=all_subnets,
        direct=direct,
        members=members,
        absent=gone,
        known=known,
        hosts=frozenset(member.host.packed for member in members),
        rows=Layers(rows),
        bound=Layers(bound),
        holders=Layers(holders),
        reserved={machine.port: machine for machine in known.values() if machine.port},
        rejected=bad_subnets + bad_members + bad_servers + bad_locks + read.count(None),
    )


def with_bindings(snapshot: Snapshot, changed: Keyed) -> Snapshot | None:
    """Return the snapshot with further BINDING rows, None when it must be built anew.

    It is what ``build`` would return, in a time that goes by what has changed: only machines
    that had no row, each with an address that nobody has or could be given.
    """
    rows: dict[str, Binding] = {}
    bound: dict[str, Bound] = {}
    holders: dict[IPv4Address, frozenset[str]] = {}
    weight = snapshot.weight
    for key, body in changed:
        read = read_binding(key, body)
        if read is None:
            return None
        mac, row = read
        if row.ip is None or row.declined or mac in rows or mac in snapshot.rows:
            return None
        if row.ip in holders or row.ip in snapshot.holders or mac in snapshot.known:
            return None
        rows[mac], bound[mac], holders[row.ip] = row, Bound(row.ip, ()), frozenset({mac})
        weight += row.weight
    return replace(
        snapshot,
        rows=snapshot.rows.with_items(rows),
        bound=snapshot.bound.with_items(bound),
        holders=snapshot.holders.with_items(holders),
        weight=weight % WEIGHT_END,
        memo=_Memo(snapshot.memo.subnets, snapshot.memo.owners),
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


def _bound(rows: Mapping[str, Binding]) -> dict[str, Bound]:
    """Return who has which address; of two given one apart, the earlier claim keeps it."""
    bound: dict[str, Bound] = {}
    taken: set[IPv4Address] = set()
    for mac, row in sorted(rows.items(), key=lambda item: (item[1].claimed_ms, item[0])):
        free = row.ip is not None and row.ip not in taken and row.ip not in row.declined
        mine = row.ip if free else None
        if mine is not None:
            taken.add(mine)
        bound[mac] = Bound(mine, row.declined)
    return bound


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
