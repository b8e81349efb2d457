"""The ways to a peer: its own TCP addresses first, then, when it is a hub, its URLs.

It knows no link. Rule: at most ADDRESSES_MAX are tried; what is no good is left out by failing.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final

from mesh.link.carrier import Carrier
from mesh.link.session import MemberLookup
from mesh.link.tcp import dial_tcp
from mesh.link.ws import dial_websocket

ADDRESSES_MAX: Final = 8
"""Addresses of one peer that are tried."""

KnownAddresses = Mapping[str, Sequence[tuple[str, int]]]
Way = Callable[[], Awaitable[Carrier]]
"""Connects, or raises Unreachable or RemoteError."""


def ways(node_id: str, addresses: KnownAddresses, members: MemberLookup) -> list[Way]:
    """Return the ways to a peer, in the order in which to try them."""
    found = [_tcp(host, port) for host, port in addresses.get(node_id, ())]
    for hub in members.hubs():
        if hub.node_id == node_id:
            found += [_websocket(url) for url in hub.urls]
    return found[:ADDRESSES_MAX]


def _tcp(host: str, port: int) -> Way:
    async def dial() -> Carrier:
        return await dial_tcp(host, port)

    return dial


def _websocket(url: str) -> Way:
    async def dial() -> Carrier:
        return await dial_websocket(url)

    return dial
