"""Where the nodes of a rack listen: their run/ports.json, read anew at every boot.

Knows nothing of what is said on those ports. Rule: a node that has just started, or is not
there, is no error; the server asks the others, or tries again later, as a real one does.
"""

import ipaddress
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from node.rack.config import is_loopback

DEFAULT_ADDRESS: Final = "127.0.0.1"
FILE_BYTES_MAX: Final = 64 << 10


@dataclass(frozen=True, slots=True)
class NodePorts:
    """One node's boot services."""

    address: str
    dhcp: int
    tftp: int
    relay: str | None
    """giaddr of the servers in this node's subnet, if the file says enough to know."""


def read_nodes(folders: Sequence[Path]) -> list[NodePorts]:
    """Return the nodes that have said where they listen, in the order of their folders."""
    found = [_read(folder / "run" / "ports.json") for folder in folders]
    return [node for node in found if node is not None]


def _read(path: Path) -> NodePorts | None:
    try:
        with path.open("rb") as file:
            value: Any = json.loads(file.read(FILE_BYTES_MAX))
    except (OSError, ValueError):
        return None
    if not isinstance(value, dict):
        return None
    dhcp, tftp = value.get("dhcp"), value.get("tftp")
    address = value.get("address", DEFAULT_ADDRESS)
    if not isinstance(dhcp, int) or not isinstance(tftp, int) or not isinstance(address, str):
        return None
    if not 0 < dhcp < 65536 or not 0 < tftp < 65536 or not is_loopback(address):
        return None
    return NodePorts(address, dhcp, tftp, _relay(value, address))


def relay_for(nodes: Sequence[NodePorts]) -> str:
    """Return the giaddr for requests that go to all these nodes of one site."""
    assert nodes, "there must be somebody to ask"
    return next((node.relay for node in nodes if node.relay), nodes[0].address)


def _relay(value: dict[str, Any], address: str) -> str | None:
    """Return an address of the servers' subnet that is in nobody's pool."""
    relay = value.get("relay")
    if isinstance(relay, str) and is_loopback(relay):
        return relay
    try:
        subnet = ipaddress.IPv4Network(value.get("subnet", ""))
    except (ValueError, TypeError):
        return None
    if ipaddress.IPv4Address(address) in subnet:
        return address
    ninth = str(subnet[min(9, subnet.num_addresses - 1)])  # a pool begins at the tenth
    return ninth if is_loopback(ninth) else None
