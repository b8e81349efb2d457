"""Three nodes of one site on loopback, each a process: do they answer alike, and in a storm?

``differing``: every packet goes to all three; whatever bytes of their replies differ are
counted. ``storm``: machines that start within some seconds and go from DISCOVER to ACK at one
node, asking again as RFC 2131 4.1 says (4 s, then doubled). All machines are accepted servers.
"""

import heapq
import json
import random
import select
import socket
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, Final

from demo_processes import wait_for
from dhcp_servers import mac_of, write_servers

from node.proto import dhcp_options as opt
from node.proto.dhcp import (
    ACK,
    DISCOVER,
    INFORM,
    OFFER,
    REQUEST,
    Packet,
    decode,
    encode,
)
from tests.support.fleet import Fleet

SITE: Final = "alike"
SUBNET: Final = "127.96.0.0/12"
RELAYS: Final = tuple(f"127.96.0.{number}" for number in (9, 10, 11))
FIXED: Final = int(IPv4Address("127.97.0.0"))
NODES: Final = ("node-a", "node-b", "node-c")
ARCHITECTURES: Final = (0, 7, 9, 11, 16, 19)
PORTS: Final = 2048
MARK: Final = (1 << 32) - 1
"""Transaction id of the packet that ends a batch."""
TRIES: Final = 3
WINDOW: Final = 32
"""Packets that are under way to each node at once."""
REPLY_S: Final = 1.0
RETRY_S: Final = 4.0
BUFFER_BYTES: Final = 8 << 20


class Site:
    """Some nodes of one site, with servers whose rows all of them have."""

    def __init__(
        self, stack: ExitStack, folder: Path, known: int, names: Sequence[str] = NODES
    ) -> None:
        self.fleet = Fleet(folder, servers=0, image_mib=1)
        stack.callback(self.fleet.processes.stop_all)
        self.known = known
        self._stack = stack
        self.data = [folder / name for name in names]
        self.fleet.start_hub()
        for data in self.data:
            self.fleet.join(SITE, data)
        write_servers(self.data[0], SITE, known, FIXED)
        for number in range(len(self.data)):
            self.start(number)
        wait_for("all know all servers", self.settled, 180, self.fleet.processes)
        self.nodes = [self._address(data) for data in self.data]

    def start(self, number: int) -> None:
        """Start a node that does not run, on the ports that it had before."""
        data = self.data[number]
        self.fleet.run_node(data, "--subnet", SUBNET, "--no-mdns", "--log-level", "warning")
        self.fleet.wait_linked(data)

    def settled(self) -> bool:
        """Tell whether all of them hold the same."""
        said = [self.fleet.get(data, "/holdings") for data in self.data]
        return all(said) and all(one["scopes"] == said[0]["scopes"] for one in said)

    def _address(self, data: Path) -> tuple[str, int]:
        ports = json.loads((data / "run" / "ports.json").read_text())
        return str(ports["address"]), int(ports["dhcp"])

    def relay(self, address: str) -> socket.socket:
        """Return the socket of a relay at an address of the site's network."""
        sock = self._stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)
        sock.bind((address, 0))
        sock.setblocking(False)
        return sock


def request(xid: int, number: int, kind: int, relay: str, **options: bytes) -> bytes:
    """Return a packet of the machine of a number, as its relay passes it on."""
    circuit = bytes((opt.RELAY_CIRCUIT, 4)) + (number % PORTS).to_bytes(4, "big")
    port = circuit + bytes((opt.RELAY_SOURCE_PORT, 0))  # answers come to our port: RFC 8357
    chaddr = bytes.fromhex(mac_of(number).replace(":", ""))
    more = {getattr(opt, name): value for name, value in options.items()}
    return encode(Packet(
        xid=xid, giaddr=IPv4Address(relay), chaddr=chaddr,
        options={opt.MESSAGE_TYPE: bytes([kind]), **more, opt.RELAY_AGENT: port},
    ))  # fmt: skip


def any_packet(rng: random.Random, xid: int, known: int, relay: str) -> bytes:
    """Return one of the packets that machines send and that bind nothing."""
    arch = rng.choice(ARCHITECTURES)
    vendor = b"HTTPClient" if arch in (16, 19) else b"PXEClient"
    more: dict[str, bytes] = {}
    if rng.random() < 0.8:
        more["VENDOR_CLASS"] = vendor + b":Arch:%05d:UNDI:003016" % arch
        more["ARCHITECTURE"] = arch.to_bytes(2, "big")
    if rng.random() < 0.3:
        more["USER_CLASS"] = b"iPXE"
    if rng.random() < 0.5:
        more["MACHINE_UUID"] = b"\0" + rng.randbytes(16)
    if rng.random() < 0.5:
        more["PARAMETERS"] = bytes(rng.sample((1, 3, 6, 12, 15, 43, 60, 66, 67, 97), 6))
    unknown = rng.random() < 0.1
    number = rng.randrange(known) + (1 << 23 if unknown else 0)
    kind = DISCOVER if unknown else rng.choice((DISCOVER, DISCOVER, REQUEST, INFORM))
    if kind == REQUEST:
        right = rng.random() < 0.8  # else a NAK
        at = FIXED + number if right else rng.randrange(1 << 32)
        more["REQUESTED_ADDRESS"] = at.to_bytes(4, "big")
    return request(xid, number, kind, relay, **more)


@dataclass
class Compared:
    """What three nodes said to the same packets."""

    packets: int = 0
    answered: int = 0
    """Packets that all three answered."""
    differing_bytes: int = 0
    partly: int = 0
    """Packets that only some answered, after three tries."""


def differing(site: Site, packets: int, seed: int) -> Compared:
    """Compare replies byte by byte."""
    rng, found = random.Random(seed), Compared()
    relays = [site.relay(address) for address in RELAYS]
    while found.packets < packets:
        which = found.packets // WINDOW % len(RELAYS)
        batch = {
            xid: any_packet(rng, xid, site.known, RELAYS[which])
            for xid in range(found.packets + 1, found.packets + WINDOW)
        }
        said: Said = {}
        ask = batch
        for _ in range(TRIES):
            said |= _ask(relays[which], RELAYS[which], site.nodes, ask)
            answers = {xid: sum((xid, n) in said for n in site.nodes) for xid in batch}
            ask = {xid: batch[xid] for xid, n in answers.items() if 0 < n < len(site.nodes)}
            if not ask:
                break
        _judge(found, batch, said, site.nodes)
        found.packets += len(batch)
    return found


Said = dict[tuple[int, tuple[str, int]], bytes]


def _ask(
    relay: socket.socket, address: str, nodes: list[tuple[str, int]], batch: dict[int, bytes]
) -> Said:
    """Send a batch to all nodes; return the reply of each to each.

    Nodes answer in order, and the last packet is one that they always answer.
    """
    said: Said = {}
    last = request(MARK, 0, DISCOVER, address)
    for data in (*batch.values(), last):
        for node in nodes:
            relay.sendto(data, node)
    done: set[tuple[str, int]] = set()
    end = time.monotonic() + REPLY_S
    while len(done) < len(nodes) and time.monotonic() < end:
        if not select.select([relay], [], [], 0.05)[0]:
            continue
        data, node = relay.recvfrom(4096)
        xid = int.from_bytes(data[4:8], "big")
        if xid == MARK:
            done.add(node)
        elif xid in batch:
            said[xid, node] = data
    return said


def _judge(
    found: Compared, batch: dict[int, bytes], said: Said, nodes: list[tuple[str, int]]
) -> None:
    for xid in batch:
        replies = [said[xid, node] for node in nodes if (xid, node) in said]
        if replies and len(replies) < len(nodes):
            found.partly += 1
            continue
        found.answered += bool(replies)
        for other in replies[1:]:
            found.differing_bytes += abs(len(other) - len(replies[0]))
            found.differing_bytes += sum(
                a != b for a, b in zip(replies[0], other, strict=False)
            )


class Storm:
    """Machines that all start within some seconds, at one node."""

    def __init__(self, site: Site, machines: int, span_s: float) -> None:
        self._relay, self._node = site.relay(RELAYS[0]), site.nodes[0]
        self._machines = machines
        self._due = [(n * span_s / machines, n) for n in range(machines)]
        self._tries = [0] * machines
        self._offered: dict[int, Packet] = {}
        self.took: dict[int, float] = {}
        self._span_s = span_s

    def run(self) -> dict[str, Any]:
        """Return how long the machines took from their first DISCOVER to the ACK."""
        heapq.heapify(self._due)
        began, end = time.monotonic(), self._span_s + 30
        while len(self.took) < self._machines and (now := time.monotonic() - began) < end:
            while self._due and self._due[0][0] <= now:
                self._send(heapq.heappop(self._due)[1], now)
            wait_s = min(0.05, max(0.0, self._due[0][0] - now)) if self._due else 0.05
            if select.select([self._relay], [], [], wait_s)[0]:
                self._take(began)
        took = sorted(self.took.values())
        at = [took[min(len(took) - 1, int(len(took) * share))] for share in (0.5, 0.99)]
        return {
            "storm_p50_s": round(at[0], 4), "storm_p99_s": round(at[1], 4),
            "storm_max_s": round(took[-1], 3), "storm_machines": self._machines,
            "storm_unanswered": self._machines - len(took),
            "storm_asked_again": sum(tries > 1 for tries in self._tries),
        }  # fmt: skip

    def _send(self, number: int, now: float) -> None:
        if number in self.took:
            return
        self._tries[number] += 1
        heapq.heappush(self._due, (now + RETRY_S * 2 ** (self._tries[number] - 1), number))
        offer = self._offered.get(number)
        if offer is None:
            data = request(number + 1, number, DISCOVER, RELAYS[0])
        else:
            assert offer.server_id is not None
            data = request(
                number + 1, number, REQUEST, RELAYS[0], SERVER_ID=offer.server_id.packed,
                REQUESTED_ADDRESS=offer.yiaddr.packed,
            )  # fmt: skip
        self._relay.sendto(data, self._node)

    def _take(self, began: float) -> None:
        while True:
            try:
                packet = decode(self._relay.recv(4096))
            except BlockingIOError:
                return
            now = time.monotonic() - began
            number = packet.xid - 1 if packet else -1
            if packet is None or not 0 <= number < self._machines or number in self.took:
                continue
            if packet.message_type == OFFER and number not in self._offered:
                self._offered[number] = packet
                self._tries[number] -= 1
                self._send(number, now)
            elif packet.message_type == ACK:
                self.took[number] = now - number * self._span_s / self._machines
