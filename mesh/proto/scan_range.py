"""Which addresses a scan for BMCs asks: networks from texts, bounded.

It knows no socket. Rule: at most a /20 in all (4,096 addresses), private or not as the operator
says, and no address twice; network and broadcast addresses of a network are left out.
"""

from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address, IPv4Network
from typing import Final

ADDRESSES_MAX: Final = 4096
NETWORKS_MAX: Final = 16
PORTS_MAX: Final = 4
"""TCP ports of Redfish that are tried at each address."""
TEXT_CHARS_MAX: Final = 31


def read_networks(texts: Iterable[str]) -> tuple[IPv4Network, ...]:
    """Return networks (``10.0.0.0/24``) and single addresses; ValueError is one sentence."""
    found: dict[IPv4Network, None] = {}
    for text in texts:
        try:
            network = IPv4Network(text[:TEXT_CHARS_MAX], strict=False)
        except ValueError:
            raise ValueError(
                f"{text[:TEXT_CHARS_MAX]!r} is no IPv4 network: write 10.0.0.0/24"
            ) from None
        if network.is_multicast or network.network_address.is_unspecified:
            raise ValueError(f"{network} holds no addresses of BMCs")
        found[network] = None
    if len(found) > NETWORKS_MAX:
        raise ValueError(
            f"{len(found)} networks were given, at most {NETWORKS_MAX} are scanned"
        )
    count = sum(network.num_addresses for network in found)
    if count > ADDRESSES_MAX:
        raise ValueError(
            f"{count} addresses are too many for one scan: at most {ADDRESSES_MAX} (a /20)"
        )
    return tuple(found)


def addresses(networks: Iterable[IPv4Network]) -> Iterator[IPv4Address]:
    """Yield each address once."""
    seen: set[IPv4Address] = set()
    for network in networks:
        for address in network.hosts():
            if address not in seen:
                seen.add(address)
                yield address
