"""The DHCP service of one interface: receive, ask the core, make durable, send.

It decides nothing (node/proto/lease.py does). Rules: a new binding is durable before its ACK
leaves; port 67 of the interface is held alone; every answer that is not given is counted. On a
loopback address it runs without root and answers relays only. Firmware that is sent to another
node is acknowledged a moment later, by what is known then.
"""

import socket
import struct
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from functools import partial
from ipaddress import IPv4Address
from typing import Any, Final

import trio

from mesh.errors import Refused, StoreFull
from mesh.host.clock import Clock
from mesh.host.log import Log
from mesh.proto import tables
from mesh.store import MeshStore, Tx
from node.boot.aging import sweep_forever
from node.boot.dhcp_alarms import DhcpAlarms, Heard
from node.boot.sightings import Sightings
from node.boot.snapshot import SnapshotSource
from node.boot.sockets import udp_socket
from node.proto.dhcp import DOCTOR_CLASS, Packet, decode
from node.proto.dhcp_answer import SERVER_PORT, Answer, Claim, Outgoing
from node.proto.dhcp_limits import DhcpLimits
from node.proto.dhcp_responder import SECS_END, Known, Responder, with_xid
from node.proto.lease import answer, answer_4011
from node.proto.lease_rows import DECLINED_MAX
from node.proto.lease_snapshot import Snapshot
from node.proto.port_lock import port_of
from node.proto.reply_digests import digest

DRAIN_MAX: Final = 64
"""Datagrams taken in one wake-up before others have their turn."""
WRITES_MAX: Final = 512
"""Requests that wait for their binding to be written; one more is dropped and asks again."""
REST_S: Final = 0.01
"""No packets are taken while bindings are committed, so long at most: two threads that take
turns at the interpreter for each statement are slower than one after the other."""
GATHER_S: Final = 0.002
"""Bindings of one moment go into one commit."""
HELD_S: Final = 0.5
"""An ACK that sends firmware to another node waits so long: time enough to see that node's link
end. Firmware asks that one address and gives up, most of it for good; a node that lives has
acknowledged long before."""
HELD_MAX: Final = 1024
"""Requests that wait so; one more is answered at once."""
DATAGRAM_BYTES_MAX: Final = 4096
IP_PKTINFO: Final = 8
IN_QUARANTINE: Final = "port in quarantine"

Source = tuple[str, int]
Take = Callable[[bytes, Source, socket.socket, trio.Nursery], None]


class DhcpServer:
    """Answers DHCP on one socket; ``run`` returns only when it is cancelled."""

    def __init__(
        self,
        store: MeshStore,
        site: str,
        snapshots: SnapshotSource,
        clock: Clock,
        log: Log,
        *,
        address: str,
        port: int = SERVER_PORT,
        interface: str | None = None,
    ) -> None:
        self.counts: Counter[str] = Counter()
        self._store = store
        self._scope = tables.site_scope(site)
        self._snapshots = snapshots
        self._clock = clock
        self._log = log
        self._address = address
        self._port = port
        self._interface = interface
        self._writing: dict[str, IPv4Address] = {}  # MAC -> address being claimed
        self._claimed: set[IPv4Address | None] = set()  # the addresses in _writing
        self._settling: deque[tuple[int, str]] = deque()  # (store version, MAC) of the durable
        self._claims: deque[tuple[Claim, Answer, Source, socket.socket]] = deque()
        self._wake = trio.Event()
        self._committing: trio.Event | None = None
        self._writes = 0
        self._held = 0
        self._sightings = Sightings(store, self._scope, clock)
        self._limits = DhcpLimits()
        self.alarms = DhcpAlarms(store, log)
        self._heard = Heard()
        self._responder = Responder()
        self._control: list[tuple[int, int, bytes]] = []
        if interface is not None:  # from our own address, whatever else the interface has
            own = struct.pack("=I4s4x", 0, IPv4Address(address).packed)
            self._control = [(socket.IPPROTO_IP, IP_PKTINFO, own)]

    def arch_at(self, client_ip: str) -> str:
        """Return the kind of firmware that last got an address here, "" when it never did."""
        return self._sightings.arch_at(client_ip)

    def statistics(self) -> dict[str, int]:
        """Return counters: packets, each kind of answer, drops with their reason."""
        compared = {"replies compared": self.alarms.digests.compared}
        return {**self.counts, **self._sightings.counts, **compared}

    def is_heard_at(self, mac: str, client_ip: str) -> bool:
        """Whether another server gave an address to a machine, as it said itself (proxy)."""
        return self._heard.is_at(mac, client_ip)

    def open(self, port: int | None = None) -> socket.socket:
        """Bind our port, or another one (4011); raises LocalError when that cannot be."""
        host = "" if self._interface is not None else self._address
        number = self._port if port is None else port
        return udp_socket("DHCP", host, number, self._interface, broadcast=True)

    async def run(
        self,
        sock: socket.socket,
        pxe: socket.socket,
        *,
        task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serve for ever on what ``open`` returned (67 and 4011); reports the first port."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._sightings.run)
            nursery.start_soon(self._sweep)
            nursery.start_soon(self._bind_forever)
            nursery.start_soon(self._drain, pxe, self._on_pxe, nursery)
            task_status.started(int(sock.getsockname()[1]))
            await self._drain(sock, self._on_datagram, nursery)

    async def _drain(self, sock: socket.socket, take: Take, nursery: trio.Nursery) -> None:
        while True:
            await trio.lowlevel.wait_readable(sock)
            for _ in range(DRAIN_MAX):
                try:
                    data, source = sock.recvfrom(DATAGRAM_BYTES_MAX)
                except BlockingIOError:
                    break
                except OSError:  # an ICMP error of an earlier reply
                    continue
                take(data, source, sock, nursery)
            if self._committing is not None:
                with trio.move_on_after(REST_S):
                    await self._committing.wait()

    def _on_datagram(
        self, data: bytes, source: Source, sock: socket.socket, nursery: trio.Nursery
    ) -> None:
        snapshot = self._snapshots.current()
        known = self._responder.find(snapshot, data)
        if known is not None and known.source == source[0]:
            self._answer_again(known, data, source, sock, snapshot)
            return
        packet = self._admit(data, source, snapshot, direct=self._interface is not None)
        if packet is None:
            return
        result = answer(snapshot, packet)
        elsewhere = result.boots_from is not None and str(result.boots_from) != self._address
        if elsewhere and self._held < HELD_MAX:
            self._held += 1
            self.counts["held"] += 1
            nursery.start_soon(self._hold, packet, data, source, sock, nursery)
        else:
            self._respond(snapshot, packet, result, data, source, sock, nursery)

    async def _hold(
        self,
        packet: Packet,
        data: bytes,
        source: Source,
        sock: socket.socket,
        nursery: trio.Nursery,
    ) -> None:
        """Acknowledge what sends firmware to another node, unless that is gone by then."""
        await trio.sleep(HELD_S)
        self._held -= 1
        snapshot = self._snapshots.current()
        result = answer(snapshot, packet)
        self._respond(snapshot, packet, result, data, source, sock, nursery)

    def _respond(
        self,
        snapshot: Snapshot,
        packet: Packet,
        result: Answer,
        data: bytes,
        source: Source,
        sock: socket.socket,
        nursery: trio.Nursery,
    ) -> None:
        self._note(result, packet, snapshot)
        if result.freed is not None or result.in_use is not None:
            self._start_write(nursery, self._give_back, packet, result)
        elif result.claim is not None:
            now = trio.current_time()
            refused = self._limits.refuses_stranger(packet.giaddr.packed, packet, now)
            if refused is not None:
                self.counts[refused] += 1
                return
            self._claim(result.claim, result, source, sock)
        elif result.reply is not None:
            if result.boots_from is None or str(result.boots_from) == self._address:
                self._responder.keep(snapshot, data, source[0], packet, result)
            asked, said = digest(data[SECS_END:]), digest(result.reply.data[SECS_END:])
            self.alarms.digests.note(snapshot.id, asked, said, packet.mac)
            self._reply(result.reply, source, sock)

    def _answer_again(
        self,
        known: Known,
        data: bytes,
        source: Source,
        sock: socket.socket,
        snapshot: Snapshot,
    ) -> None:
        """The same packet at the same snapshot: the same answer, if it may have one now."""
        now, result = trio.current_time(), known.answer
        self.counts["packets"] += 1
        refused = self._limits.refuses(known.relay, known, now)
        if refused is None and self.alarms.quarantine.holds(snapshot, known.port, now):
            refused = IN_QUARANTINE
        self.counts[refused or result.kind] += 1
        if refused is not None or result.reply is None:
            return
        if result.unknown_arch:
            self.counts["unknown architecture"] += 1
        if result.seen is not None:
            self._sightings.note(result.seen)
        self._send(with_xid(result.reply.data, data), known.to, result.reply.port, source, sock)

    def _on_pxe(
        self, data: bytes, source: Source, sock: socket.socket, _nursery: trio.Nursery
    ) -> None:
        """Port 4011: only to the address that the machine says it has, which sent this."""
        snapshot = self._snapshots.current()
        packet = self._admit(data, source, snapshot, direct=True)
        if packet is None:
            return
        if source[0] != str(packet.ciaddr):
            self.counts["4011: not from its address"] += 1
            return
        result = answer_4011(snapshot, packet)
        self._note(result, packet, snapshot)
        if result.reply is not None:
            self._reply(result.reply, source, sock)

    def _admit(
        self, data: bytes, source: Source, snapshot: Snapshot, *, direct: bool
    ) -> Packet | None:
        """Return the packet, None (counted) when it is nothing to answer."""
        self.counts["packets"] += 1
        packet = decode(data)
        refused = self._refusal(packet, source, snapshot, direct)
        if refused is not None:
            self.counts[refused] += 1
            return None
        return packet

    def _refusal(
        self, packet: Packet | None, source: Source, snapshot: Snapshot, direct: bool
    ) -> str | None:
        if packet is None:
            return "malformed"
        if packet.vendor_class == DOCTOR_CLASS:
            return "doctor"
        if not direct and not packet.relayed:
            return "without relay"
        relay, now = packet.giaddr, trio.current_time()
        inside = not packet.relayed or snapshot.subnet_of(relay) is not None
        if not inside and str(relay) != source[0]:
            return "relay of nowhere"
        if self.alarms.quarantine.holds(snapshot, port_of(packet), now):
            return IN_QUARANTINE
        return self._limits.refuses(relay.packed, packet, now)

    def _note(self, result: Answer, packet: Packet, snapshot: Snapshot) -> None:
        """Count and remember what a packet told."""
        self.counts[result.kind] += 1
        if result.unknown_arch:
            self.counts["unknown architecture"] += 1
        if result.seen is not None:
            self._sightings.note(result.seen)
        if result.heard is not None:
            self._heard.note(packet.mac, result.heard)
        if result.kind in {"other server", "proxy: heard"}:
            self.alarms.note_other(snapshot, packet)
        if result.trespass is not None:
            self.alarms.note_trespass(snapshot, result.trespass)

    def problems(self) -> list[str]:
        """Say what is wrong on the network, for people."""
        return self.alarms.problems()

    def _claim(self, claim: Claim, result: Answer, source: Source, sock: socket.socket) -> None:
        while self._settling and self._settling[0][0] <= self._snapshots.version:
            ip = self._writing.pop(self._settling.popleft()[1], None)
            self._claimed.discard(ip)
        if claim.mac in self._writing:
            self.counts["repeated while writing"] += 1
        elif claim.ip in self._claimed:
            self.counts["address being claimed"] += 1
        elif len(self._claims) >= WRITES_MAX:
            self.counts["dropped busy"] += 1
        else:
            self._writing[claim.mac] = claim.ip
            self._claimed.add(claim.ip)
            self._claims.append((claim, result, source, sock))
            self._wake.set()

    async def _bind_forever(self) -> None:
        """Make the bindings of a moment durable together, then let their ACKs go."""
        while True:
            await self._wake.wait()
            await trio.sleep(GATHER_S)
            self._wake = trio.Event()
            batch = [self._claims.popleft() for _ in range(len(self._claims))]
            claims = [claim for claim, *_ in batch]
            self._committing = trio.Event()
            try:
                await self._store.write(partial(self._put_claims, claims))
            except (StoreFull, Refused) as exc:  # nothing is promised that is not durable
                self.counts["not durable"] += len(batch)
                if not isinstance(exc, StoreFull):  # of that the store has spoken
                    self._log.warning("dhcp answers withheld", error=exc, count=len(batch))
                for claim in claims:
                    self._claimed.discard(self._writing.pop(claim.mac))
                continue
            finally:
                self._committing.set()
                self._committing = None
            for claim, result, source, sock in batch:
                self._settling.append((self._store.version, claim.mac))
                self.counts["bindings"] += 1
                mac, ip = claim.mac, str(claim.ip)
                self._log.info("machine bound", mac=mac, ip=ip, iface=self._interface)
                assert result.reply is not None
                self._reply(result.reply, source, sock)

    def _put_claims(self, claims: list[Claim], tx: Tx) -> None:
        for claim in claims:
            row = tx.get(self._scope, tables.BINDING, claim.mac)
            body = dict(row.body) if row is not None else {}
            body |= {
                "mac": claim.mac, "ip": str(claim.ip), "uuid": claim.uuid,
                "claimed_ms": tx.now_ms,
            }  # fmt: skip
            tx.put(self._scope, tables.BINDING, claim.mac, body)

    def _start_write(
        self, nursery: trio.Nursery, function: Callable[..., Awaitable[None]], *args: Any
    ) -> bool:
        if self._writes >= WRITES_MAX:
            self.counts["dropped busy"] += 1
            return False
        self._writes += 1
        nursery.start_soon(self._write, function, args)
        return True

    async def _write(
        self, function: Callable[..., Awaitable[None]], args: tuple[Any, ...]
    ) -> None:
        try:
            await function(*args)
        except StoreFull:  # nothing is promised that is not durable; the store has said so
            self.counts["not durable"] += 1
        except Refused as exc:
            self.counts["not durable"] += 1
            self._log.warning("dhcp answer withheld", error=exc)
        finally:
            self._writes -= 1

    async def _sweep(self) -> None:
        await sweep_forever(self._store, self._scope, self._snapshots, self._clock, self._log)

    async def _give_back(self, packet: Packet, result: Answer) -> None:
        """End a binding (RELEASE), or remember that its address is in use (DECLINE)."""
        mac = packet.mac

        def release(tx: Tx) -> None:
            row = tx.get(self._scope, tables.BINDING, mac)
            if row is not None and row.body.get("ip") == str(result.freed):
                tx.delete(self._scope, tables.BINDING, mac)

        def decline(tx: Tx) -> None:
            row = tx.get(self._scope, tables.BINDING, mac)
            body = dict(row.body) if row is not None else {"mac": mac}
            away = [str(result.in_use), *body.get("declined", [])][:DECLINED_MAX]
            body |= {"ip": "", "declined": away, "claimed_ms": tx.now_ms}
            tx.put(self._scope, tables.BINDING, mac, body)

        if result.freed is not None:
            await self._store.write(release)
            self._log.info("machine released its address", mac=mac, ip=str(result.freed))
        else:
            await self._store.write(decline)
            self._log.warning("address is in use by another", mac=mac, ip=str(result.in_use))

    def _reply(self, reply: Outgoing, source: Source, sock: socket.socket) -> None:
        self._send(reply.data, str(reply.address), reply.port, source, sock)

    def _send(
        self, data: bytes, to: str, port: int | None, source: Source, sock: socket.socket
    ) -> None:
        try:
            sock.sendmsg((data,), self._control, 0, (to, source[1] if port is None else port))
        except OSError as exc:
            self.counts["send errors"] += 1
            self._log.warning("dhcp reply not sent", ip=to, error=exc.strerror)
        else:
            self.counts["replies"] += 1
