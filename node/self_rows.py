"""What a node says of itself: its addresses and services, and the subnet it proposes.

It knows rows and interfaces. Rules: a row is written only when it changes; the salt of the
candidate rule is a function of organisation, site and subnet, so that two nodes that have not
talked yet compute the same addresses.
"""

import hashlib
import ipaddress
import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final

import trio

from mesh.errors import LocalError, Refused, StoreFull
from mesh.proto.tables import FLEET, NODE, SUBNET, site_scope
from node.boot.sockets import interface_address
from node.config import Subnet

ADDRESSES_MAX: Final = 8
CHECK_S: Final = 10.0
"""How often our addresses are looked at."""


def own_addresses(listen: str, advertise: Sequence[str]) -> list[str]:
    """Return the addresses under which peers may find this node, best first."""
    if advertise:
        return list(advertise)[:ADDRESSES_MAX]
    if listen not in ("0.0.0.0", "::", ""):  # noqa: S104 - the wildcard is compared, not bound
        return [listen]
    found: list[str] = []
    for _, name in socket.if_nameindex():
        with suppress(LocalError):  # an interface without an address is none of ours
            found.append(interface_address(name))
    found.sort(key=lambda text: ipaddress.IPv4Address(text).is_loopback)
    return found[:ADDRESSES_MAX]


def subnet_row(subnet: Subnet, root_fp: bytes, site: str) -> dict[str, Any]:
    """Return the SUBNET body of the configured subnet; raises Refused when it is too small."""
    network = ipaddress.IPv4Network(subnet.cidr)
    if network.num_addresses < 16 and not (subnet.first and subnet.last):
        raise Refused(f"{subnet.cidr} is too small for a pool of its own: give first and last")
    salt = hashlib.blake2b(
        root_fp + site.encode() + b"\0" + subnet.cidr.encode(), digest_size=16,
        person=b"rackmesh/dhcp",
    )  # fmt: skip
    return {
        "cidr": subnet.cidr,
        "first": subnet.first or str(network[10]),
        "last": subnet.last or str(network[-2]),
        "router": subnet.router,
        "dns": list(subnet.dns),
        "lease_s": subnet.lease_s,
        "salt": salt.hexdigest(),
        "mode": subnet.mode,
        "beside": list(subnet.beside),
    }


async def publish(
    store: Any,
    node: str,
    site: str,
    rows: Callable[[], tuple[Mapping[str, Any], Mapping[str, Any] | None]],
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Keep our NODE row, and the site's SUBNET row where it differs, as ``rows`` gives them.

    As a task it has started when the rows are durable, or wait for room on a full disk. Our
    addresses may change at any time, without a word from the system.
    """
    written: object = None
    while True:
        now = rows()
        if now != written:
            write = partial(_put, node, site, *now)
            try:
                await store.write(write)
                task_status.started()
            except StoreFull:
                task_status.started()
                await store.write_when_room(write)
            task_status = trio.TASK_STATUS_IGNORED
            written = now
        await trio.sleep(CHECK_S)


def _put(
    node: str,
    site: str,
    node_row: Mapping[str, Any],
    subnet: Mapping[str, Any] | None,
    tx: Any,
) -> None:
    own = tx.own(FLEET, NODE, node)
    if own is None or dict(own.body) != dict(node_row):
        tx.put(FLEET, NODE, node, node_row)
    if subnet is not None:
        there = tx.get(site_scope(site), SUBNET, subnet["cidr"])
        if there is None or {k: there.body.get(k) for k in subnet} != dict(subnet):
            tx.put(site_scope(site), SUBNET, subnet["cidr"], subnet)
