"""All links of this program: listens, keeps one main link to each peer, and hands out.

It knows no frame and no key: mesh/link/session.py and mesh/link/link.py make a link, and
mesh/link/dialling.py dials. Rules:
one main link to a peer (mesh/proto/crossing.py says which of two stays), bulk links beside it;
only active members of the register have links, and when the register changes, the links of
others close at once; every wait is bounded; nothing that a peer does ends ``run``.
"""

import os
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import trio

from mesh.errors import Refused, RemoteError, StoreBroken, Unreachable
from mesh.host.clock import Clock
from mesh.host.log import get_log
from mesh.link.carrier import Carrier
from mesh.link.dialling import Dialler
from mesh.link.flow import MessageStream
from mesh.link.keeper import Keeper, Wanted
from mesh.link.level import Level
from mesh.link.link import Link, RpcHandler, StreamHandler
from mesh.link.puncher import METHOD, Puncher
from mesh.link.relay import Relay, is_relayed
from mesh.link.session import (
    LinkIdentity,
    RegisterPort,
    Session,
    accept_session,
    learn,
    within,
)
from mesh.link.tcp import TcpCarrier, peer_address
from mesh.link.udp import UdpEndpoint
from mesh.link.udp_stream import UdpStreams
from mesh.link.ways import KnownAddresses, Way
from mesh.proto.crossing import newer_stays
from mesh.proto.frames import LinkKind, make_hello
from mesh.proto.key_age import is_expired
from mesh.proto.relay import STREAM
from mesh.proto.trust import KeyRecord

Service = Callable[[Link], Awaitable[None]]
Addresses = Callable[[], KnownAddresses]

HANDSHAKES_MAX: Final = 64
"""Connections that have not shown who they are; more are closed at once."""
BULK_MAX: Final = 4
"""Bulk links with one peer at once, in each direction."""

_LOG = get_log("peers")


@dataclass(frozen=True, slots=True)
class LinkInfo:
    """A live main link, for people and for choosing.

    ``path``: ``tcp``, ``websocket``, ``udp`` or ``relay NODE``; the bytes are those of its
    records.
    """

    since_ms: int
    kind: str
    address: str
    path: str
    dialled: bool
    round_trip_ms: float | None
    build: str
    bytes_in: int
    bytes_out: int


@dataclass(frozen=True, slots=True)
class LinkLimits:
    """What links may carry: bulk over relays (as a relay and as an end), megabits a second."""

    relay_bulk: bool = False
    mbit: int = 0
    """Of sync, streams and bulk on one link; 0: no cap. Register and heartbeats have none."""


@dataclass(frozen=True, slots=True)
class PeersStatistics:
    """Counters since the start; names are constant words."""

    links: int
    bulk_links: int
    handshakes: int
    counters: dict[str, int]


@dataclass(slots=True)
class _Main:
    """The main link to a peer."""

    link: Link
    since_ms: int
    since: float


class Peers:
    """The links of one program; pass it to whoever needs to talk to members."""

    def __init__(
        self,
        identity: LinkIdentity,
        register: RegisterPort,
        *,
        listen: tuple[str, int] | None,
        listen_udp: tuple[str, int] | None = None,
        hub_link: bool,
        services: Mapping[str, Service],
        rpc: Mapping[str, RpcHandler],
        streams: dict[str, StreamHandler] | None = None,
        addresses: Addresses,
        clock: Clock,
        build: str = "rackmesh",
        wanted: Wanted | None = None,
        renewal: Service | None = None,
        region: Callable[[], str] = lambda: "",
        limits: LinkLimits = LinkLimits(),
    ) -> None:
        """``hub_link``: keep a link to one hub; a hub itself keeps one to every other hub.

        ``listen_udp``: where to take datagrams; None: on the number of ``listen``.
        ``renewal``: the one service of a link whose peer shows an expired key (or whom ours
        has expired for): the register, so that a new key can be shown; without it, none.
        ``wanted``: whom else to keep a link with; None: everybody whose address is known.
        ``region``: of this node's site; a hub of it is liked best.
        """
        self.node_id = identity.node_id
        self.port = 0
        self._identity = identity
        self._register = register
        self._listen = listen
        self._listen_udp = listen_udp
        self._hub_link = hub_link
        self._services = services
        self._renewal = renewal
        self._rpc = rpc
        self._limits = limits
        self._addresses = addresses
        self._clock = clock
        self._build = build
        self._session = os.urandom(8)
        self._level = Level()
        self._links: dict[str, _Main] = {}
        self._bulk: set[Link] = set()
        self._counters: Counter[str] = Counter()
        self.udp = UdpEndpoint(self._counters)
        self.relay = Relay(self.node_id, register, self, self._counters, bulk=limits.relay_bulk)
        self._streams = streams if streams is not None else {}
        self._streams[STREAM] = self.relay.serve
        self._udp_streams = UdpStreams(self.udp, self.accept, self._counters)
        self._puncher = Puncher(self, self.udp, self._udp_streams, addresses, self._counters)
        self._handshakes = 0
        self._pending = 0  # connections that have not shown who they are
        self._dialler = Dialler(identity, register, addresses, self, self._late_ways)
        self._keeper = Keeper(
            self.node_id, register, addresses, wanted, self, self._dialler, self._counters,
            region,
        )  # fmt: skip
        self._nursery: trio.Nursery | None = None

    # -- for everyone ------------------------------------------------------------------------

    @property
    def version(self) -> int:
        """Grows whenever a main link comes or goes."""
        return self._level.version

    async def wait_past(self, version: int) -> int:
        """Wait for a change of the links."""
        return await self._level.wait_past(version)

    def connected(self) -> dict[str, LinkInfo]:
        """Return the live main links by node id."""
        return {node: _info(main) for node, main in self._links.items() if not main.link.closed}

    def links(self) -> list[Link]:
        """Return the live main links."""
        return [main.link for main in self._links.values() if not main.link.closed]

    async def connect(self, node_id: str, *, relayed: bool = True) -> Link:
        """Make the main link to a peer; ``relayed``: or over another member."""
        return await self._dialler.connect(node_id, relayed=relayed)

    async def open_direct(self, node_id: str, carrier: Carrier | None = None) -> Link:
        """Make a main link by the peer's own ways, or over a carrier; raise Unreachable."""
        if carrier is None:
            return await self._dialler.open(node_id, "main", relayed=False)
        return await self._dialler.open_over(node_id, carrier)

    def _late_ways(self, node_id: str, *, bulk: bool) -> list[Way]:
        """Return the ways that are tried when a peer's own addresses do not answer at once."""
        over_udp = self._udp_streams.ways(self.udp.path(node_id)) if bulk else []
        return [*over_udp, *self.relay.ways(node_id, bulk=bulk)]

    def look_again(self) -> None:
        """The addresses have changed: dial now and not at the next poll."""
        self._keeper.look_again()

    def renew(self, reason: str) -> None:
        """Close every link, so that it is made anew; the keeper dials those that are wanted."""
        for link in [*(main.link for main in self._links.values()), *self._bulk]:
            link.close(reason)

    def statistics(self) -> PeersStatistics:
        """Return what was counted."""
        live = self.links()
        total = sum((link.counters for link in [*live, *self._bulk]), Counter(self._counters))
        total += self.udp.counters()
        return PeersStatistics(len(live), len(self._bulk), self._handshakes, dict(total))

    async def rpc(self, node_id: str, method: str, body: Any, timeout_s: float) -> Any:
        """Call a peer over its main link, connecting when its address is known.

        Raises RemoteRefused with the peer's sentence, or Unreachable.
        """
        deadline = trio.current_time() + timeout_s
        link = await self._dialler.reach(node_id, timeout_s)
        return await link.rpc(method, body, max(0.001, deadline - trio.current_time()))

    @asynccontextmanager
    async def stream(
        self, node_id: str, name: str, body: Any, timeout_s: float = 15.0
    ) -> AsyncGenerator[MessageStream]:
        """Open a stream over the main link; ``timeout_s`` bounds the connecting alone."""
        link = await self._dialler.reach(node_id, timeout_s)
        async with link.stream(name, body) as stream:
            yield stream

    @asynccontextmanager
    async def bulk(self, node_id: str, timeout_s: float = 15.0) -> AsyncGenerator[Link]:
        """Open a bulk link of its own to a peer; closed at the end."""
        try:
            with trio.fail_after(timeout_s):
                link = await self._dialler.open(node_id, "bulk")
        except (RemoteError, trio.TooSlowError) as exc:
            raise Unreachable(f"no bulk link to {node_id}: {exc or 'no answer'}") from exc
        try:
            yield link
        finally:
            link.close("done")

    # -- the program of links ----------------------------------------------------------------

    async def run(
        self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Run all links until cancelled; started once it listens. Raises Refused for a port."""
        assert self._nursery is None, "Peers.run runs already"
        try:
            async with trio.open_nursery() as nursery:
                listeners = await self._open_listeners()
                if await self._open_udp():
                    nursery.start_soon(self.udp.run)
                    nursery.start_soon(self._udp_streams.run)
                self._nursery = nursery
                if listeners:
                    nursery.start_soon(trio.serve_listeners, self._serve_tcp, listeners)
                nursery.start_soon(self._watch_register)
                nursery.start_soon(self._keeper.run, self._hub_link)
                task_status.started()
                await trio.sleep_forever()
        finally:
            self._nursery = None

    async def accept(
        self, carrier: Carrier, first: tuple[int, memoryview] | None = None
    ) -> None:
        """Serve a connection that a peer made, to its end; closes it."""
        if self._pending >= HANDSHAKES_MAX:
            self._counters["handshakes_over_limit"] += 1
            await carrier.aclose()
            return
        self._pending += 1
        try:
            session = await within(
                accept_session(carrier, self._identity, self._register.register, first)
            )
        except RemoteError as exc:
            self._counters["handshakes_refused"] += 1
            _LOG.debug("handshake refused", address=carrier.address, error=str(exc))
            await carrier.aclose()
            return
        finally:
            self._pending -= 1
        await self._run_link(self._make(session, "main"))

    # -- within: accepting -------------------------------------------------------------------

    async def _open_listeners(self) -> list[trio.SocketListener]:
        if self._listen is None:
            return []
        host, port = self._listen
        try:
            listeners = await trio.open_tcp_listeners(port, host=host)
        except OSError as exc:
            raise Refused(
                f"the mesh cannot listen on {host} port {port} ({exc.strerror or exc}); stop"
                " the process that has it, or choose another with [mesh] port (--mesh-port)"
            ) from exc
        if port == 0:
            for other in listeners[1:]:  # each family would get another port
                await other.aclose()
            listeners = listeners[:1]
        self.port = int(listeners[0].socket.getsockname()[1])
        return listeners

    async def _open_udp(self) -> bool:
        where = self._listen_udp
        if where is None and self._listen is not None:
            where = (self._listen[0], self.port)
        if where is not None:
            await self.udp.bind(*where)
        return where is not None

    async def _serve_tcp(self, stream: trio.SocketStream) -> None:
        await self.accept(TcpCarrier(stream, peer_address(stream)))

    async def _watch_register(self) -> None:
        while True:
            version = self._register.version
            for link in [*(main.link for main in self._links.values()), *self._bulk]:
                if not self._register.register.active(link.peer):
                    self._counters["inactive_closed"] += 1
                    link.close("no longer an active member")
            await self._register.wait_past(version)
            self._keeper.look_again()

    # -- within: a link's life ---------------------------------------------------------------

    def _make(self, session: Session, kind: LinkKind) -> Link:
        self._handshakes += 1
        hello = make_hello(kind, self._build, self._session, self.udp.port)
        if self._is_expired(session.key):
            self._counters["expired_keys"] += 1
            return Link(session, hello, rpc={}, streams={}, counters=self._counters)
        rpc = {**self._rpc, METHOD: self._puncher.answer}
        return Link(
            session, hello, rpc=rpc, streams=self._streams, counters=self._counters,
            bytes_per_s=self._limits.mbit * 125_000,
        )  # fmt: skip

    def _is_expired(self, key: KeyRecord) -> bool:
        return is_expired(key.made_ms, self._clock.now_ms())

    async def _run_link(
        self, link: Link, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Run a link and its services to the end; started once it is admitted or over."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(link.run)
            admitted = await link.wait_ready() and self._admit(link)
            task_status.started()
            if admitted:
                try:
                    if link.kind == "main":
                        await self._run_services(link)
                    await link.wait_closed()
                finally:
                    self._dismiss(link)

    async def _run_services(self, link: Link) -> None:
        async with AsyncExitStack() as stack:
            nursery = await stack.enter_async_context(trio.open_nursery())
            services = self._services
            if self._is_expired(link.key):
                services = {"renewal": self._renewal} if self._renewal else {}
            else:
                stack.enter_context(self.udp.path_of(link.session, link.peer_hello.udp))
                nursery.start_soon(self._puncher.improve, link)
            for name, service in services.items():
                nursery.start_soon(self._run_service, name, service, link)
            await link.wait_closed()
            nursery.cancel_scope.cancel()

    async def _run_service(self, name: str, service: Service, link: Link) -> None:
        try:
            await service(link)
        except StoreBroken:
            raise
        except (RemoteError, Unreachable) as exc:
            link.close(f"{name}: {exc}")
        except Exception as exc:
            self._counters["services_failed"] += 1
            error = f"{type(exc).__name__}: {exc}"
            _LOG.error("link service failed", peer=link.peer, service=name, error=error)
            link.close(f"{name} failed here")

    def _admit(self, link: Link) -> bool:
        """Register a link whose HELLO is there; False and closed when it may not stay."""
        if not self._register.register.active(link.peer):
            link.close("not an active member")
            return False
        learn(self._register, link.key_record)
        if link.kind == "bulk":
            if is_relayed(link) and not self._limits.relay_bulk:
                self._counters["bulk_refused"] += 1
                link.close("no bulk links over a relay here")
                return False
            same = [one for one in self._bulk if one.peer == link.peer]
            if sum(one.dialled == link.dialled for one in same) >= BULK_MAX:
                self._counters["bulk_refused"] += 1
                link.close("too many bulk links")
                return False
            self._bulk.add(link)
            return True
        old = self._links.get(link.peer)
        if old is not None and not old.link.closed:
            self._counters["second_links"] += 1
            if not self._newer_stays(old, link):
                link.close("another link stays")
                return False
            old.link.close("a newer link stays")
        self._links[link.peer] = _Main(link, self._clock.now_ms(), trio.current_time())
        self._level.bump()
        _LOG.info("link up", peer=link.peer, address=link.address, kind=link.path)
        return True

    def _newer_stays(self, old: _Main, link: Link) -> bool:
        we_are_lower = self.node_id < link.peer
        return newer_stays(
            lower_dialled_old=old.link.dialled == we_are_lower,
            lower_dialled_new=link.dialled == we_are_lower,
            restarted=old.link.peer_hello.session != link.peer_hello.session,
            old_age_s=trio.current_time() - old.since,
            relayed_old=is_relayed(old.link),
            relayed_new=is_relayed(link),
        )

    def _dismiss(self, link: Link) -> None:
        self._bulk.discard(link)
        main = self._links.get(link.peer)
        if main is not None and main.link is link:
            del self._links[link.peer]
            lived_s = round(trio.current_time() - main.since, 3)
            _LOG.info(
                "link down", peer=link.peer, reason=link.close_reason or "stopped", s=lived_s
            )
            self._level.bump()

    # -- for the dialler and the keeper ------------------------------------------------------

    def live(self, node_id: str) -> Link | None:
        """Return the main link to a peer if there is one now."""
        main = self._links.get(node_id)
        return main.link if main is not None and not main.link.closed else None

    async def wait_live(self, node_id: str) -> Link:
        """Return the main link to a peer once there is one."""
        while True:
            version = self._level.version
            link = self.live(node_id)
            if link is not None:
                return link
            await self._level.wait_past(version)

    async def start_link(self, session: Session, kind: LinkKind) -> Link:
        """Make a link of a session and run it; returns once it is admitted or over."""
        link = self._make(session, kind)
        if self._nursery is None:
            await session.carrier.aclose()
            raise Unreachable("the links do not run")
        await self._nursery.start(self._run_link, link)
        return link


def _info(main: _Main) -> LinkInfo:
    link = main.link
    round_trip = link.round_trip_s
    return LinkInfo(
        since_ms=main.since_ms,
        kind=link.kind,
        address=link.address,
        path=link.path,
        dialled=link.dialled,
        round_trip_ms=None if round_trip is None else round(round_trip * 1000, 3),
        build=link.peer_hello.build,
        bytes_in=link.bytes_in,
        bytes_out=link.bytes_out,
    )
