"""The failure detector of a running node: which nodes of its site cannot be reached.

The decisions are mesh/proto/detector.py's; this shell brings it members, messages and the time,
and carries out what it says. Rules: nothing here waits for a peer (a full outbox drops what is
newest and counts it; the core asks again); a link that ends is no verdict, but the address is
knocked at, and when it refuses, the core hears of it; what ``unreachable`` says is an
observation, nobody loses its membership by it.
"""

import math
import random
import socket
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from ipaddress import ip_address
from typing import Any, Final, Protocol

import trio

from mesh.errors import RemoteError, Unreachable
from mesh.host.clock import Clock
from mesh.host.log import get_log
from mesh.link.level import Level
from mesh.proto.datagram import HEARTBEAT
from mesh.proto.detector import Detector
from mesh.proto.detector_effects import Changed, Effect, Send

__all__ = ["Detection"]

OUTBOX_MAX: Final = 512
"""Messages that wait for one link."""
KNOCK_AT_S: Final = (0.05, 0.5)
"""After a link has ended, its peer's address is knocked at so much later."""
KNOCK_S: Final = 1.0
KNOCKED_MAX: Final = 4
"""Addresses of one peer that are knocked at."""

LINK_OVER: Final = (
    RemoteError,
    Unreachable,
    trio.BrokenResourceError,
    trio.ClosedResourceError,
)
_RANDOM = random.SystemRandom()
_LOG = get_log("detection")


class LinkPort(Protocol):
    """The part of a link (``mesh/link/link.py``) that is used."""

    peer: str

    async def send(self, frame_kind: str, body: Any) -> None: ...
    def receive(self, frame_kind: str) -> AsyncIterator[Any]: ...


class UdpPort(Protocol):
    """The part of ``mesh/link/udp.py`` that is used."""

    def send(self, peer: str, kind: int, payload: bytes) -> bool: ...
    def on_kind(self, kind: int, handler: Callable[[str, bytes], None]) -> None: ...


class RegisterStorePort(Protocol):
    """The part of ``mesh/register_store.py`` that is used."""

    @property
    def version(self) -> int: ...
    async def wait_past(self, version: int) -> int: ...


class Detection:
    """See the module. Made before the links, of which it is the service ``detect``."""

    def __init__(
        self,
        me: str,
        ring_key: bytes,
        register: RegisterStorePort,
        members: Callable[[], Collection[str]],
        addresses: Callable[[], Mapping[str, Sequence[tuple[str, int]]]],
        clock: Clock,
    ) -> None:
        """``ring_key``: the site's, at most 64 bytes; ``members``: its active nodes."""
        self._core = Detector(me, ring_key, _RANDOM.random)
        self._register, self._members = register, members
        self._addresses, self._clock = addresses, clock
        self._counters: Counter[str] = Counter()
        self._since_ms: dict[str, int] = {}
        self._outboxes: dict[str, trio.MemorySendChannel[bytes]] = {}
        self._udp: UdpPort | None = None
        self._level = Level()
        self._known: set[str] = set()
        self._planned = math.inf
        self._kick = trio.Event()
        self._nursery: trio.Nursery | None = None

    # -- for everyone ------------------------------------------------------------------------

    def unreachable(self) -> Mapping[str, int]:
        """Return the nodes of the site that cannot be reached, and since when (Unix ms)."""
        return self._since_ms

    @property
    def version(self) -> int:
        """Grows whenever ``unreachable`` changes."""
        return self._level.version

    async def wait_past(self, version: int) -> int:
        """Wait for a change."""
        return await self._level.wait_past(version)

    def statistics(self) -> Counter[str]:
        """Return what was counted; names are constant words."""
        return self._counters + self._core.counters

    # -- the program -------------------------------------------------------------------------

    def use_udp(self, udp: UdpPort) -> None:
        """Send heartbeats over UDP wherever there is a path."""
        self._udp = udp
        udp.on_kind(HEARTBEAT, self._on_datagram)

    async def run(
        self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Watch the site until cancelled; start it before the links, to miss none."""
        self._apply(self._core.start(trio.current_time()))
        self._look_at_members()
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            try:
                nursery.start_soon(self._follow_register)
                task_status.started()
                while True:
                    self._kick, self._planned = trio.Event(), self._core.deadline or math.inf
                    with trio.move_on_at(self._planned):
                        await self._kick.wait()
                    self._apply(self._core.on_timer(trio.current_time()))
            finally:
                self._nursery = None  # before it closes: links that end now start nothing in it

    async def service(self, link: LinkPort) -> None:
        """Serve the frames of kind ``detect`` of one link until it ends."""
        send, waiting = trio.open_memory_channel[bytes](OUTBOX_MAX)
        self._outboxes[link.peer] = send
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._send_all, link, waiting)
                if self._nursery is not None:
                    self._look_at_members()
                    self._apply(self._core.on_link_up(link.peer, trio.current_time()))
                async for body in link.receive("detect"):
                    if self._nursery is not None:
                        self._apply(self._core.on_frame(link.peer, body, trio.current_time()))
                nursery.cancel_scope.cancel()
        finally:
            if self._outboxes.get(link.peer) is send:
                del self._outboxes[link.peer]
                if self._nursery is not None:
                    self._nursery.start_soon(self._knock, link.peer)

    # -- within ------------------------------------------------------------------------------

    async def _send_all(
        self, link: LinkPort, waiting: trio.MemoryReceiveChannel[bytes]
    ) -> None:
        try:
            async for data in waiting:
                await link.send("detect", data)
        except LINK_OVER:
            pass

    async def _follow_register(self) -> None:
        while True:
            version = self._register.version
            self._look_at_members()
            await self._register.wait_past(version)

    def _look_at_members(self) -> None:
        members = set(self._members())
        if members != self._known:
            self._known = members
            self._apply(self._core.set_members(members, trio.current_time()))

    def _on_datagram(self, peer: str, payload: bytes) -> None:
        if self._nursery is not None:
            self._apply(self._core.on_datagram(peer, payload, trio.current_time()))

    def _apply(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case Send():
                    self._send(effect)
                case Changed(down, up):
                    self._changed(down, up)
        if self._core.deadline is not None and self._core.deadline < self._planned:
            self._kick.set()

    def _send(self, effect: Send) -> None:
        for peer in effect.peers:
            sent = effect.way != "link" and self._udp is not None
            if sent and self._udp is not None:
                sent = self._udp.send(peer, HEARTBEAT, effect.data)
            if effect.way != "cheap" or not sent:
                outbox = self._outboxes.get(peer)
                if outbox is None:
                    continue
                try:
                    outbox.send_nowait(effect.data)
                except trio.WouldBlock:
                    self._counters["outbox_full"] += 1
                except trio.BrokenResourceError:
                    pass  # that link is over

    def _changed(self, down: Collection[str], up: Collection[str]) -> None:
        since = dict(self._since_ms)
        for peer in down:
            since[peer] = self._clock.now_ms()
            _LOG.warning("node unreachable", peer=peer)
        for peer in up:
            since.pop(peer, None)
            _LOG.info("node reachable again", peer=peer)
        self._since_ms = since
        self._level.bump()

    async def _knock(self, peer: str) -> None:
        """A link has ended: does its peer's address still take connections?"""
        for wait_s in KNOCK_AT_S:
            await trio.sleep(wait_s)
            if peer in self._outboxes or peer not in self._members():
                return
            if await self._refuses(list(self._addresses().get(peer, ()))[:KNOCKED_MAX]):
                self._counters["refused"] += 1
                self._apply(self._core.on_refused(peer, trio.current_time()))
                return

    async def _refuses(self, places: Sequence[tuple[str, int]]) -> bool:
        """Tell whether one of these places refuses connections, and none takes them."""
        refused = False
        for host, port in places:
            try:
                family = socket.AF_INET6 if ip_address(host).version == 6 else socket.AF_INET
                with trio.socket.socket(family, socket.SOCK_STREAM) as sock:
                    with trio.move_on_after(KNOCK_S) as scope:
                        await sock.connect((host, port))
                        return False
                    if scope.cancelled_caught:
                        continue
            except ConnectionRefusedError:
                refused = True
            except (OSError, ValueError):
                continue
        return refused
