"""Port locks: a server's MAC counts only where the server is plugged in (option 82).

It knows no clock. Rules: what the port is only a relay says (giaddr set); a machine cannot, so
option 82 of a packet without a relay counts as none. A lock works both ways: a server's MACs
get answers from its port alone, and its port gives answers to its MACs alone. What breaks a
lock is left unanswered, never refused: an impersonator learns nothing.

A port from which somebody asked as another port's server is put in quarantine: none of its
machines is answered, whatever MAC they show, until it has been quiet for a while.
"""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from node.proto.dhcp import Packet
from node.proto.dhcp_answer import Trespass
from node.proto.lease_snapshot import Snapshot

QUARANTINE_S: Final = 600.0
"""A port stays in quarantine, and its alarm lasts, so long after the last attempt."""
TRACKED_MAX: Final = 1024
"""Trespasses remembered; the one longest quiet goes first."""
TOLD_MAX: Final = 3


def port_of(packet: Packet) -> str:
    """Return where a relay says that a machine is plugged in; "" when none does."""
    return packet.relay_port if packet.relayed else ""


def trespass(snapshot: Snapshot, packet: Packet) -> Trespass | None:
    """Return how a packet breaks a lock, None when it does not."""
    if not snapshot.reserved:
        return None
    mac, port = packet.mac, port_of(packet)
    known = snapshot.known.get(mac)
    if known is not None and known.port and known.port != port:
        # a renewal goes straight to the server, past the relay that would say the port; the
        # client asks again through the relay before its lease ends (rebinding)
        direct = not packet.relayed and packet.has_address
        kind = "past its relay" if direct else "wrong port"
        return Trespass(
            kind, mac, port, known.server, known.hostname, known.port, told=not direct
        )
    owner = snapshot.reserved.get(port) if port else None
    if owner is not None and (known is None or known.server != owner.server):
        return Trespass("reserved port", mac, port, owner.server, owner.hostname, owner.port)
    return None


@dataclass(slots=True)
class _Noted:
    trespass: Trespass
    at: float


class Quarantine:
    """Which ports are not answered for a while, and what people are told of it."""

    def __init__(self) -> None:
        self._noted: OrderedDict[tuple[str, str], _Noted] = OrderedDict()
        self._ports: OrderedDict[str, float] = OrderedDict()

    def note(self, snapshot: Snapshot, found: Trespass, now: float) -> bool:
        """Remember a trespass; tell whether it is a new one."""
        before = self._noted.pop((found.mac, found.port), None)
        self._noted[found.mac, found.port] = _Noted(found, now)
        while len(self._noted) > TRACKED_MAX:
            self._noted.popitem(last=False)
        if found.kind == "wrong port" and found.port and found.port not in snapshot.reserved:
            self._ports.pop(found.port, None)
            self._ports[found.port] = now
            while len(self._ports) > TRACKED_MAX:
                self._ports.popitem(last=False)
        return before is None or now - before.at > QUARANTINE_S

    def holds(self, snapshot: Snapshot, port: str, now: float) -> bool:
        """Whether a port is in quarantine; one that a server was locked to since is not."""
        at = self._ports.get(port)
        return at is not None and now - at <= QUARANTINE_S and port not in snapshot.reserved

    def problem(self, now: float) -> str | None:
        """Say for people who breaks locks, None when nobody does."""
        recent = [one for one in self._noted.values() if now - one.at <= QUARANTINE_S]
        if not recent:
            return None
        told = [_sentence(one.trespass) for one in recent[: -TOLD_MAX - 1 : -1]]
        more = f"; and {len(recent) - TOLD_MAX} more" if len(recent) > TOLD_MAX else ""
        return f"machines break port locks and are not answered: {'; '.join(told)}{more}"


def _sentence(found: Trespass) -> str:
    where = f"from port {found.port}" if found.port else "from a port that no relay names"
    server = found.name or found.server
    if found.kind == "reserved port":
        return f"{found.mac} asks {where}, which is locked to {server}"
    return f"{found.mac} asks {where} as {server}, which is locked to {found.locked}"
