"""What DHCP has to tell people: foreign servers, broken port locks, nodes that differ.

It decides nothing (node/proto does) and sends nothing. Rule: a new finding is one line in the
log; as long as it lasts it stands in the node's status.
"""

from ipaddress import IPv4Address
from typing import Any, Final
from urllib.parse import urlsplit

import trio

from mesh.host.log import Log
from mesh.proto import tables
from mesh.store import MeshStore
from node.proto.dhcp import Packet
from node.proto.dhcp_answer import Trespass
from node.proto.lease import client_subnet
from node.proto.lease_snapshot import Snapshot
from node.proto.other_servers import OtherServers
from node.proto.port_lock import Quarantine
from node.proto.reply_digests import ReplyDigests

NOTE_EACH_S: Final = 0.05
"""Foreign servers are looked at so often: a flood of invented ones costs no more."""


class DhcpAlarms:
    """The findings of one node."""

    def __init__(self, store: MeshStore, log: Log) -> None:
        self.quarantine = Quarantine()
        self.digests = ReplyDigests()
        self._store = store
        self._log = log
        self._others = OtherServers()
        self._note_at = 0.0

    def problems(self) -> list[str]:
        """Say what is wrong on the network, for people."""
        now = trio.current_time()
        found = (self._others, self.quarantine, self.digests)
        return [*filter(None, (one.problem(now) for one in found))]

    def compare(self, peer: str, body: Any) -> None:
        """Take what a node of our site says of its replies."""
        mac = self.digests.on_message(peer, body, trio.current_time())
        if mac is not None:
            self._log.error("another node answers otherwise", node=peer, mac=mac)

    def note_trespass(self, snapshot: Snapshot, found: Trespass) -> None:
        """A machine asked from a port that is not its own."""
        if self.quarantine.note(snapshot, found, trio.current_time()):
            self._log.warning(
                "port lock broken", mac=found.mac, port=found.port, reason=found.kind
            )

    def note_other(self, snapshot: Snapshot, packet: Packet) -> None:
        """A machine has chosen a server that does not count now: is it one of ours at all?"""
        now, server = trio.current_time(), packet.server_id
        if server is None or now < self._note_at:
            return
        self._note_at = now + NOTE_EACH_S
        subnet = client_subnet(snapshot, packet)
        meant = subnet.beside if subnet is not None else ()
        unnamed = subnet is not None and subnet.proxy and not meant
        if server in meant or unnamed or str(server) in self._ours():
            return
        if self._others.note(server, packet.mac, now):
            self._log.warning(
                "another DHCP server answers here", ip=str(server), mac=packet.mac
            )

    def _ours(self) -> set[str]:
        """Return every address that members of the roster have said of themselves."""
        rows = self._store.authored(tables.FLEET, tables.NODE)
        hosts = {str(host) for row in rows for host, *_ in row.body.get("addresses", ())}
        urls = (urlsplit(str(row.body.get("boot_url") or "")) for row in rows)
        return hosts | {url.hostname or "" for url in urls}


class Heard:
    """Addresses that another server gave to machines, as these said themselves (proxy DHCP)."""

    MACHINES_MAX: Final = 16_384

    def __init__(self) -> None:
        self._ips: dict[str, IPv4Address] = {}

    def note(self, mac: str, address: IPv4Address) -> None:
        """Remember a machine's address; the machine longest unheard of goes first."""
        self._ips.pop(mac, None)
        self._ips[mac] = address
        while len(self._ips) > self.MACHINES_MAX:
            del self._ips[next(iter(self._ips))]

    def is_at(self, mac: str, address: str) -> bool:
        """Whether a machine was last heard of at an address."""
        return mac in self._ips and str(self._ips[mac]) == address
