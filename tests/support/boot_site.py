"""Builders for a site that boots machines: rows, snapshots, client packets."""

from collections.abc import Iterable, Mapping
from ipaddress import IPv4Address, IPv4Network
from typing import Any

from node.proto import dhcp_options as opt
from node.proto.dhcp import REQUEST, Packet
from node.proto.lease_snapshot import Snapshot, build

CIDR = "10.77.0.0/24"
A, B, C = "10.77.0.1", "10.77.0.2", "10.77.0.3"
MAC = "52:54:00:77:00:01"
SUBNET: dict[str, Any] = {
    "cidr": CIDR,
    "first": "10.77.0.100",
    "last": "10.77.0.199",
    "router": "10.77.0.254",
    "dns": ["10.77.0.53"],
    "lease_s": 600,
    "salt": "5a17",
}


def node_row(host: str, port: int = 8470, site: str = "lab") -> dict[str, Any]:
    return {
        "site": site,
        "boot_url": f"http://{host}:{port}",
        "services": ["dhcp", "tftp", "http"],
    }


def snapshot(
    *,
    hosts: Iterable[str] = (A, B),
    subnets: Iterable[Mapping[str, Any]] = (SUBNET,),
    servers: Mapping[str, Mapping[str, Any]] | None = None,
    bindings: Mapping[str, Mapping[str, Any]] | None = None,
    absent: Iterable[str] = (),
    direct: str | None = None,
    locks: Mapping[str, str] | None = None,
) -> Snapshot:
    return build(
        subnets=[(row["cidr"], row) for row in subnets],
        servers=list((servers or {}).items()),
        bindings=list((bindings or {}).items()),
        nodes=[(f"node-{host}", node_row(host)) for host in hosts],
        site="lab",
        direct=None if direct is None else IPv4Network(direct),
        absent=frozenset(f"node-{host}" for host in absent),
        locks=[(server, {"port": port}) for server, port in (locks or {}).items()],
    )


def packet(
    message_type: int = 1,
    mac: str = MAC,
    options: Mapping[int, bytes] | None = None,
    **header: Any,
) -> Packet:
    addresses = {
        name: IPv4Address(value) if name.endswith("addr") and isinstance(value, str) else value
        for name, value in header.items()
    }
    return Packet(
        xid=0x1234,
        chaddr=bytes.fromhex(mac.replace(":", "")),
        options={opt.MESSAGE_TYPE: bytes((message_type,)), **(options or {})},
        **addresses,
    )


def request(address: str, server: str | None, **more: Any) -> Packet:
    options = {opt.REQUESTED_ADDRESS: IPv4Address(address).packed}
    if server is not None:
        options[opt.SERVER_ID] = IPv4Address(server).packed
    return packet(REQUEST, options=options | more.pop("options", {}), **more)


BIOS_ROM = {opt.VENDOR_CLASS: b"PXEClient:Arch:00000:UNDI:002001", opt.ARCHITECTURE: b"\0\0"}
UEFI_ROM = {opt.VENDOR_CLASS: b"PXEClient:Arch:00007:UNDI:003000", opt.ARCHITECTURE: b"\0\7"}
IPXE = {**BIOS_ROM, opt.USER_CLASS: b"iPXE", opt.IPXE: b"\x21\x01\x01"}
HTTP_ROM = {opt.VENDOR_CLASS: b"HTTPClient:Arch:00016:UNDI:003000", opt.ARCHITECTURE: b"\0\x10"}
