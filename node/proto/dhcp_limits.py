"""How much DHCP one relay and one port may ask for, so that none starves the others.

It knows no sockets and no rows. Rules: a port is what a relay says (option 82, remote and
circuit id, RFC 3046) behind its own address; every relay and every port has a token bucket, and
a port brings so many machines that nobody knows in an hour. What has no port (no relay, or one
that does not say) goes by its relay's bucket alone, and that counts only while somebody else
asks too: a relay that is alone takes nothing from anybody. All tables are capped, the longest
quiet goes first.
"""

from collections import OrderedDict
from typing import Final, Protocol, TypeVar

RELAY_EACH_S: Final = 4000.0
RELAY_BURST: Final = 8000.0
"""5,000 machines that start in one moment behind one relay are no flood."""
ALONE_S: Final = 1.0
"""A relay is alone when no other one has asked for so long."""
PORT_EACH_S: Final = 20.0
PORT_BURST: Final = 200.0
"""A rack behind a switch that says nothing looks like one port."""
STRANGERS_MAX: Final = 64
STRANGERS_S: Final = 3600.0
"""So many unknown machines may take an address by one port in this time."""
TRACKED_MAX: Final = 4096
"""Relays, ports and ports with strangers that are remembered, each."""

Port = tuple[bytes, str]
K = TypeVar("K")


class Asker(Protocol):
    """What is asked of a packet."""

    @property
    def mac(self) -> str: ...  # noqa: D102
    @property
    def relay_port(self) -> str: ...  # noqa: D102


class DhcpLimits:
    """The buckets of one node."""

    def __init__(self) -> None:
        self._last: bytes | None = None  # the relay that asked last
        self._last_at = self._other_at = float("-inf")  # when it, and when another one did
        self._relays: OrderedDict[bytes, tuple[float, float]] = OrderedDict()
        self._ports: OrderedDict[Port, tuple[float, float]] = OrderedDict()
        self._strangers: OrderedDict[Port, OrderedDict[str, float]] = OrderedDict()

    def refuses(self, relay: bytes, packet: Asker, now: float) -> str | None:
        """Return why a packet is dropped unanswered, None when it may be answered.

        ``relay``: giaddr as four bytes, zero on our own wire.
        """
        if relay != self._last:
            self._other_at, self._last, self._last_at = self._last_at, relay, now
        self._last_at = now
        taken = _take(self._relays, relay, RELAY_EACH_S, RELAY_BURST, now)
        if not taken and now - self._other_at <= ALONE_S:
            return "relay too quick"
        port = packet.relay_port
        if port and not _take(self._ports, (relay, port), PORT_EACH_S, PORT_BURST, now):
            return "port too quick"
        return None

    def refuses_stranger(self, relay: bytes, packet: Asker, now: float) -> str | None:
        """Return why a machine that nobody knows gets no new address, None when it may."""
        if not packet.relay_port:
            return None
        found = self._strangers.setdefault((relay, packet.relay_port), OrderedDict())
        self._strangers.move_to_end((relay, packet.relay_port))
        while len(self._strangers) > TRACKED_MAX:
            self._strangers.popitem(last=False)
        while found and next(iter(found.values())) <= now - STRANGERS_S:
            found.popitem(last=False)
        if packet.mac not in found and len(found) >= STRANGERS_MAX:
            return "too many unknown machines on a port"
        found[packet.mac] = now
        found.move_to_end(packet.mac)
        return None


def _take(
    buckets: OrderedDict[K, tuple[float, float]],
    key: K,
    each_s: float,
    burst: float,
    now: float,
) -> bool:
    """Take a token of a bucket (tokens, when), False when it is empty."""
    tokens, at = buckets.pop(key, (burst, now))
    tokens = min(burst, tokens + (now - at) * each_s)
    taken = tokens >= 1
    buckets[key] = (tokens - 1 if taken else tokens, now)
    while len(buckets) > TRACKED_MAX:
        buckets.popitem(last=False)
    return taken
