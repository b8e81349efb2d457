"""The UDP socket of a program: sealed datagrams with every peer that has a main link.

It knows no frame of a link. Rules: each link has a session of its own (keys from its Noise
handshake) and a view of the paths (mesh/proto/punch.py); what does not belong to a session is
dropped and counted before anything is decrypted; nothing here waits for a peer: a datagram goes
out now or not at all, and whoever needs more makes it himself.
"""

import math
import socket
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import contextmanager
from ipaddress import ip_address
from random import SystemRandom
from typing import Final

import trio

from mesh.errors import Refused
from mesh.host.log import get_log
from mesh.link.level import Level
from mesh.link.session import Session
from mesh.proto.datagram import (
    DATAGRAM_BYTES_MAX,
    PUNCH,
    STREAM,
    DatagramSession,
    peek_receiver,
)
from mesh.proto.punch import Address, Effect, PathCore, PathDown, PathUp, SeenAs, SendProbe

BUFFER_BYTES: Final = 1 << 20
"""Receive buffer asked of the kernel: 800 full datagrams while the loop is busy."""
BATCH_MAX: Final = 64
"""Datagrams taken from the socket before others have their turn."""

Handler = Callable[[str, bytes], None]
"""``handler(peer, payload)`` takes a datagram at once."""

_LOG = get_log("udp")
_RANDOM = SystemRandom()


class UdpPath:
    """The datagrams of one link: its session, and where they go."""

    def __init__(self, endpoint: "UdpEndpoint", peer: str, session: DatagramSession) -> None:
        self.peer = peer
        self.session = session
        self.core = PathCore(_RANDOM.getrandbits)
        self.seen_as: Address | None = None
        self.round_trip_s: float | None = None
        self.bytes_in = 0
        self.bytes_out = 0
        self.level = Level()  # bumped when the path comes up or goes down
        self.holders = 0
        self._endpoint = endpoint

    @property
    def usable(self) -> bool:
        """There is an address that has answered."""
        return self.core.address is not None

    def send(self, kind: int, payload: bytes) -> bool:
        """Send a datagram; False when there is no usable path."""
        address = self.core.address
        if address is None:
            return False
        now = trio.current_time()
        self.core.on_used(now)
        self._endpoint.planned(self)
        self.post(kind, payload, address, now)
        return True

    def post(self, kind: int, payload: bytes, address: Address, now: float) -> None:
        """Seal a datagram and send it to an address."""
        data = self.session.seal(kind, payload, now)
        self.bytes_out += len(data)
        self._endpoint.post(data, address)

    def hold(self) -> None:
        """Keep the session while a carrier lives on it, though its link may end."""
        self.holders += 1

    def release(self) -> None:
        """Hold it no longer."""
        self.holders -= 1
        if self.holders == 0:
            self._endpoint.forget(self)


class UdpEndpoint:
    """One socket, many peers."""

    def __init__(self, counters: Counter[str]) -> None:
        self.port = 0
        self._counters = counters
        self._socket: socket.socket | None = None
        self._family = socket.AF_INET
        self._by_receiver: dict[int, UdpPath] = {}
        self._current: dict[str, UdpPath] = {}
        self._handlers: dict[int, Handler] = {}
        self.on_stream: Callable[[UdpPath, bytes], None] | None = None
        self._plan = Level()
        self._wake_at = math.inf

    # -- for services ------------------------------------------------------------------------

    def send(self, peer: str, kind: int, payload: bytes) -> bool:
        """Send a datagram to a peer; False when there is no usable UDP path."""
        path = self._current.get(peer)
        return path is not None and path.send(kind, payload)

    def on_kind(self, kind: int, handler: Handler) -> None:
        """Give the datagrams of a kind to a handler."""
        assert kind not in self._handlers
        self._handlers[kind] = handler

    def path(self, peer: str) -> UdpPath | None:
        """Return the session of the main link with a peer."""
        return self._current.get(peer)

    def counters(self) -> Counter[str]:
        """Return what the live sessions have dropped."""
        live = (path.session.counters for path in self._by_receiver.values())
        return sum(live, Counter[str]())

    def seen_as(self) -> list[Address]:
        """Return the addresses that peers see our datagrams come from."""
        seen = (path.seen_as for path in self._current.values())
        return list(dict.fromkeys(address for address in seen if address is not None))

    # -- for Peers ---------------------------------------------------------------------------

    async def bind(self, host: str, port: int) -> None:
        """Take the port, or another one when somebody has it. Raises Refused."""
        try:
            found = await trio.socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
            self._family = found[0][0]
            try:
                self._socket = _bound(self._family, found[0][4])
            except OSError as exc:
                if port == 0:
                    raise
                _LOG.warning("udp port taken", port=port, error=exc.strerror)
                self._socket = _bound(self._family, (host, 0))
        except OSError as exc:
            raise Refused(
                f"the mesh cannot have a UDP port on {host} ({exc.strerror or exc}); choose"
                " another address with [mesh] listen (--mesh-listen)"
            ) from exc
        self.port = int(self._socket.getsockname()[1])

    async def run(self) -> None:
        """Serve the socket until cancelled."""
        assert self._socket is not None, "bind first"
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._receive, self._socket)
                nursery.start_soon(self._keep_time)
        finally:
            self._socket.close()
            self._socket = None

    @contextmanager
    def path_of(self, session: Session, port: int) -> Generator[UdpPath]:
        """Have the datagrams of a main link while it lives; the peer takes them on a port."""
        path = self._add(session, port)
        try:
            yield path
        finally:
            if self._current.get(path.peer) is path:
                del self._current[path.peer]
            path.release()

    def _add(self, session: Session, port: int) -> UdpPath:
        now = trio.current_time()
        datagrams = DatagramSession(session.udp_keys, now, dialled=session.dialled)
        path = UdpPath(self, session.peer, datagrams)
        path.hold()
        self._by_receiver[datagrams.receiver] = path
        self._current[session.peer] = path
        where = session.carrier.datagram_address(port)
        if self._socket is not None and where is not None:
            known = canonical(*where)
            self._carry_out(path, path.core.start([known] if known else [], now), now)
        return path

    def forget(self, path: UdpPath) -> None:
        """Nobody holds this session any more."""
        del self._by_receiver[path.session.receiver]
        self._counters.update(path.session.counters)

    def punch(self, path: UdpPath, addresses: list[Address]) -> None:
        """Probe addresses of a peer now, as it does with ours."""
        if self._socket is not None:
            now = trio.current_time()
            self._carry_out(path, path.core.punch(addresses, now), now)

    def ask(self, path: UdpPath) -> None:
        """Ask the peer of a usable path once more where it sees us; ``level`` grows then."""
        if path.core.address is not None:
            now = trio.current_time()
            self._carry_out(path, path.core.punch([path.core.address], now), now)

    def planned(self, path: UdpPath) -> None:
        """A core's deadline may have moved."""
        if path.core.deadline is not None and path.core.deadline < self._wake_at:
            self._plan.bump()

    def post(self, data: bytes, address: Address) -> None:
        """Put a datagram on the wire, or drop it."""
        host, port = address
        try:
            if self._socket is None or not port:
                raise OSError
            if self._family == socket.AF_INET6 and ":" not in host:
                host = f"::ffff:{host}"
            self._socket.sendto(data, (host, port))
            self._counters["udp_sent"] += 1
        except OSError:  # no route, a full buffer, a family that we do not have
            self._counters["udp_not_sent"] += 1

    # -- within ------------------------------------------------------------------------------

    async def _receive(self, sock: socket.socket) -> None:
        while True:
            await trio.lowlevel.wait_readable(sock)
            for _ in range(BATCH_MAX):
                try:
                    data, source = sock.recvfrom(DATAGRAM_BYTES_MAX + 1)
                except BlockingIOError:
                    break
                except OSError:
                    continue  # an error that an earlier datagram of ours met
                address = canonical(source[0], source[1])
                if address is not None:
                    self._on_datagram(data, address)
            await trio.lowlevel.checkpoint()

    def _on_datagram(self, data: bytes, source: Address) -> None:
        receiver = peek_receiver(data)
        path = self._by_receiver.get(receiver) if receiver is not None else None
        if path is None:
            self._counters["udp_unknown"] += 1
            return
        opened = path.session.open(data)
        if opened is None:
            return
        now = trio.current_time()
        path.bytes_in += len(data)
        core = path.core
        if opened.kind == PUNCH:
            effects = core.on_payload(opened.payload, source, opened.newest, now)
        else:
            effects = core.on_heard(source, opened.newest, now)
        self._carry_out(path, effects, now)
        self._hand_out(path, opened.kind, opened.payload)

    def _hand_out(self, path: UdpPath, kind: int, payload: bytes) -> None:
        handler = self._handlers.get(kind)
        try:
            if kind == STREAM and self.on_stream is not None:
                self.on_stream(path, payload)
            elif handler is not None:
                handler(path.peer, payload)
            elif kind != PUNCH:
                self._counters["udp_unknown_kind"] += 1
        except Exception as exc:
            self._counters["udp_handlers_failed"] += 1
            error = f"{type(exc).__name__}: {exc}"
            _LOG.error("udp handler failed", peer=path.peer, error=error)

    def _carry_out(self, path: UdpPath, effects: list[Effect], now: float) -> None:
        for effect in effects:
            match effect:
                case SendProbe(address, payload):
                    path.post(PUNCH, payload, address, now)
                case SeenAs(address):
                    path.seen_as = address
                    path.level.bump()
                case PathUp(address, round_trip_s):
                    path.round_trip_s = round_trip_s
                    _LOG.debug("udp path up", peer=path.peer, address=f"{address}")
                    path.level.bump()
                case PathDown():
                    self._counters["udp_paths_lost"] += 1
                    path.level.bump()
        self.planned(path)

    async def _keep_time(self) -> None:
        while True:
            version = self._plan.version
            deadlines = (path.core.deadline for path in self._by_receiver.values())
            self._wake_at = min((one for one in deadlines if one is not None), default=math.inf)
            with trio.move_on_at(self._wake_at):
                await self._plan.wait_past(version)
            now = trio.current_time()
            for path in list(self._by_receiver.values()):
                if path.core.deadline is not None and path.core.deadline <= now:
                    self._carry_out(path, path.core.on_timer(now), now)


def canonical(host: str, port: int) -> Address | None:
    """Return an address in its one spelling (IPv4 as such), or None for what we do not use."""
    try:
        address = ip_address(host)
    except ValueError:
        return None  # with a zone: only good on one interface
    mapped = address.ipv4_mapped if address.version == 6 else None
    return str(mapped or address), port


def _bound(family: int, where: tuple[object, ...]) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.bind(where)
    except BaseException:
        sock.close()
        raise
    return sock
