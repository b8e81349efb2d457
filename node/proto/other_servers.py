"""DHCP servers that are none of ours and that machines of our networks have chosen.

It knows no sockets and no rows. Rule: a client that takes another's offer says so to everybody
(RFC 2131 section 4.3.2, option 54 of its broadcast REQUEST), over relays too; nothing has to
listen on the client's port for that. A word of hostile clients raises an alarm, never more.
"""

from collections import OrderedDict
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Final

SERVERS_MAX: Final = 16
"""Servers that are remembered; the one longest unheard of goes first."""
RECENT_S: Final = 600.0
"""An alarm ends so long after the last client."""
TOLD_MAX: Final = 3


@dataclass(slots=True)
class _Other:
    mac: str
    at: float
    count: int


class OtherServers:
    """Which foreign servers were chosen lately, and by whom last."""

    def __init__(self) -> None:
        self._seen: OrderedDict[IPv4Address, _Other] = OrderedDict()

    def note(self, server: IPv4Address, mac: str, now: float) -> bool:
        """Remember a choice; tell whether the server is a new one."""
        found = self._seen.pop(server, None)
        new = found is None or now - found.at > RECENT_S
        count = 1 if found is None else found.count + 1
        self._seen[server] = _Other(mac, now, count)
        while len(self._seen) > SERVERS_MAX:
            self._seen.popitem(last=False)
        return new

    def problem(self, now: float) -> str | None:
        """Say for people who answers beside us, None when nobody does."""
        recent = {ip: one for ip, one in self._seen.items() if now - one.at <= RECENT_S}
        if not recent:
            return None
        told = [
            f"{ip} (last taken by {one.mac} {round(now - one.at)} s ago)"
            for ip, one in [*reversed(recent.items())][:TOLD_MAX]
        ]
        more = f" and {len(recent) - TOLD_MAX} more" if len(recent) > TOLD_MAX else ""
        return (
            f"another DHCP server answers on this network: {', '.join(told)}{more};"
            " machines may boot from it instead of from here: take it off the network"
        )
