"""News: runs the tree broadcast between the store, the register and the links.

The decisions are ``mesh/proto/broadcast.py``'s; this shell carries them out. Rules: a peer's
deltas are taken over in the order in which it sent them, and before its next frames are read
when many wait, so a flood stops its own link only; register records go ahead of everything else
that waits for a link; nothing is passed on that is not durable.
"""

import hashlib
import math
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from typing import Any, Final, Protocol

import trio

from mesh.errors import Refused, RemoteError, StoreBroken, StoreFull, Unreachable
from mesh.host.log import get_log
from mesh.proto.broadcast import Broadcast
from mesh.proto.broadcast_ports import (
    DropPeer,
    Effect,
    MergeFrom,
    Place,
    PullFrom,
    Read,
    SendTo,
    Take,
)
from mesh.proto.broadcast_wire import Message, body_of
from mesh.proto.broadcast_wire import News as NewRecords
from mesh.proto.intake import Delta
from mesh.proto.serve import serve
from mesh.proto.sync_wire import RECORDS_BYTES, RECORDS_MAX, Known
from mesh.roster import RegisterRoster, RegisterStorePort
from mesh.store import MeshStore

__all__ = ["LinkPort", "News", "PlacePort"]

OUTBOX_MAX: Final = 1024
"""Frames that wait to be sent to one peer; one more and its link is closed."""
TAKES_MAX: Final = 256
"""Takes of one peer that wait; its frames are not read meanwhile."""
SURPLUS_S: Final = 60.0
"""How often links to other sites that nobody wants are looked for: what a call or a probe of
the overlay has left. The dialler closes them, so that both sides cannot disagree for long."""
ORIGINS_MAX: Final = 1024
"""Register records of which we remember who brought them."""

LINK_OVER: Final = (
    RemoteError,
    Unreachable,
    trio.BrokenResourceError,
    trio.ClosedResourceError,
)
_LOG = get_log("news")


class PlacePort(Place, Protocol):
    """Where this member stands, and when that changes (``mesh/topology.py``)."""

    @property
    def version(self) -> int:
        """Grows with every change."""
        ...

    async def wait_past(self, version: int) -> int:
        """Wait for a change."""
        ...


class LinkPort(Protocol):
    """The part of a link (``mesh/link/link.py``) that replication uses."""

    peer: str
    dialled: bool

    @property
    def in_use(self) -> bool:
        """Tell whether a call or a stream is under way."""
        ...

    async def send(self, frame_kind: str, body: Any) -> None:
        """Send a frame."""
        ...

    def receive(self, frame_kind: str) -> AsyncIterator[Any]:
        """Return the bodies of a kind of frame; ends with the link."""
        ...

    def close(self, reason: str) -> None:
        """Close the link."""
        ...


class News:
    """The tree broadcast of one member."""

    def __init__(
        self,
        store: MeshStore,
        register_store: RegisterStorePort,
        roster: Callable[[], RegisterRoster],
        place: PlacePort,
        pull: Callable[[str, Sequence[Known]], None],
        announce: Callable[[Collection[str]], None],
    ) -> None:
        """``pull`` lets the anti-entropy session with a peer fetch sets; ``announce`` lets the
        sessions with all peers but these say that the register has changed.
        """
        self._store, self._register_store = store, register_store
        self._roster, self._place = roster, place
        self._pull, self._announce = pull, announce
        self._core = Broadcast(store, roster(), place)
        self._links: dict[str, _Link] = {}
        self._origins: dict[bytes, str] = {}
        self._told_version = register_store.version
        self._kick = trio.Event()
        self._nursery: trio.Nursery | None = None

    @property
    def core(self) -> Broadcast:
        """The decisions."""
        return self._core

    def statistics(self) -> Mapping[str, int]:
        """Return what was counted."""
        return Counter(self._core.counters)

    async def run(
        self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Follow the store, the register and the topology until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            nursery.start_soon(self._watch_store, self._store.version)
            nursery.start_soon(self._watch_register)
            nursery.start_soon(self._watch_place)
            nursery.start_soon(self._keep_closing)
            task_status.started()
            await self._keep_time()

    async def service(self, link: LinkPort) -> None:
        """Serve the frames of kind ``broadcast`` of one link until it ends."""
        served = _Link(self, link)
        self._links[link.peer] = served
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(served.write, nursery.cancel_scope)
                nursery.start_soon(served.take)
                self.perform(self._core.on_link(link.peer, trio.current_time()))
                try:
                    async for body in link.receive("broadcast"):
                        now = trio.current_time()
                        self.perform(self._core.on_frame(link.peer, body, now))
                        await served.wait_takes()
                except LINK_OVER:
                    pass  # the link says why, in its own log line
                nursery.cancel_scope.cancel()
        finally:
            self._core.on_take_failed(served.untaken())
            if self._links.get(link.peer) is served:
                del self._links[link.peer]
                self.perform(self._core.on_link_lost(link.peer, trio.current_time()))

    def perform(self, effects: Sequence[Effect]) -> None:
        """Carry effects out."""
        for effect in effects:
            match effect:
                case SendTo(peer, message):
                    self._post(peer, message)
                case Take(peer, deltas):
                    if peer in self._links:
                        self._links[peer].queue(deltas)
                    else:
                        self._core.on_take_failed(deltas)
                case Read():
                    if self._nursery is not None:
                        self._nursery.start_soon(self._read, effect)
                case PullFrom(peer, heads):
                    self._pull(peer, heads)
                case MergeFrom(peer, records):
                    self._merge(peer, records)
                case DropPeer(peer, reason):
                    if peer in self._links:
                        self._links[peer].drop(reason)
        self._kick.set()

    def _post(self, peer: str, message: Message) -> None:
        if peer in self._links:
            self._links[peer].post(message)

    async def take(self, peer: str, deltas: tuple[Delta, ...]) -> None:
        """Take deltas over, durably, and go on with what comes of it."""
        try:
            outcomes = await self._store.take(deltas, self._roster(), peer)
        except StoreFull:
            self._core.on_take_failed(deltas)
        except (Refused, StoreBroken):
            self._core.on_take_failed(deltas)  # the store has ended, and the process with it
        else:
            now = trio.current_time()
            self.perform(self._core.on_taken(peer, deltas, outcomes, now))

    async def _read(self, effect: Read) -> None:
        roster = self._roster()
        asking = effect.peer or self._store.author
        parts = await self._store.serve(
            lambda reader: serve(reader, effect.wants, roster, asking)
        )
        now = trio.current_time()
        self.perform(self._core.on_read(effect.peer, parts, now))

    def _merge(self, peer: str, records: tuple[bytes, ...]) -> None:
        """Merge what a peer has sent; the watcher of the register passes on what is new."""
        for record in records:
            if len(self._origins) >= ORIGINS_MAX:
                del self._origins[next(iter(self._origins))]
            self._origins[_mark(record)] = peer
        try:
            self._register_store.merge_all(records)
        except StoreFull:
            pass  # they hold from now on and are written when there is room

    async def _watch_store(self, version: int) -> None:
        while True:
            seen, version = version, await self._store.wait_past(version)
            changed = self._store.changes_since(seen)
            if changed is None:
                changed = dict(self._store.heads)
            self.perform(self._core.on_change(changed, trio.current_time()))

    async def _watch_register(self) -> None:
        while True:
            await self._register_store.wait_past(self._told_version)
            self._told_version, told = self._register_store.version, self._told_version
            records = self._register_store.news_since(told)
            flooded: set[str] = set()
            if records is not None and _fit(records):
                by_origin: dict[str, list[bytes]] = {}
                for record in records:
                    by_origin.setdefault(self._origins.get(_mark(record), ""), []).append(
                        record
                    )
                for origin, some in by_origin.items():
                    effects = self._core.on_records(some, origin, trio.current_time())
                    flooded.add(origin)
                    flooded |= {effect.peer for effect in effects if isinstance(effect, SendTo)}
                    self.perform(effects)
            self._announce(flooded)

    async def _watch_place(self) -> None:
        while True:
            version = self._place.version
            self.perform(self._core.on_place(trio.current_time()))
            await self._place.wait_past(version)

    async def _keep_closing(self) -> None:
        while True:
            await trio.sleep(SURPLUS_S)
            self.close_surplus()

    def close_surplus(self) -> None:
        """Close links to other sites that we dialled and that were of no use last time too."""
        for peer, served in list(self._links.items()):
            served.close_if_surplus(unwanted=self._core.unwanted(peer))

    async def _keep_time(self) -> None:
        while True:
            self._kick = kick = trio.Event()
            deadline = self._core.deadline
            with trio.move_on_at(math.inf if deadline is None else deadline):
                await kick.wait()
            if not kick.is_set():
                self.perform(self._core.on_timer(trio.current_time()))


class _Link:
    """What waits for one link, and what came over it and waits for the store."""

    def __init__(self, news: News, link: LinkPort) -> None:
        self._news, self._link = news, link
        self._urgent: deque[Message] = deque()
        self._outbox: deque[Message] = deque()
        self._takes: deque[tuple[Delta, ...]] = deque()
        self._was_idle = False
        self._taking: tuple[Delta, ...] = ()
        self._posted, self._queued, self._taken = trio.Event(), trio.Event(), trio.Event()

    def post(self, message: Message) -> None:
        """Have a message sent; records first."""
        (self._urgent if isinstance(message, NewRecords) else self._outbox).append(message)
        self._posted.set()
        if len(self._urgent) + len(self._outbox) > OUTBOX_MAX:
            self.drop("the peer does not read")

    def drop(self, reason: str) -> None:
        """Close the link."""
        _LOG.warning("news ended", peer=self._link.peer, reason=reason)
        self._link.close(reason)

    def close_if_surplus(self, *, unwanted: bool) -> None:
        """Close the link when it is of no use for the second time in a row."""
        idle = unwanted and self._link.dialled and not self._link.in_use
        if idle and self._was_idle:
            self._link.close("no longer wanted")
        self._was_idle = idle

    async def write(self, scope: trio.CancelScope) -> None:
        """Send what is posted until the link ends."""
        try:
            while True:
                while self._urgent or self._outbox:
                    message = (self._urgent or self._outbox).popleft()
                    await self._link.send("broadcast", body_of(message))
                self._posted = trio.Event()
                await self._posted.wait()
        except LINK_OVER:
            scope.cancel()

    def queue(self, deltas: tuple[Delta, ...]) -> None:
        """Have deltas taken over after those that wait already."""
        self._takes.append(deltas)
        self._queued.set()

    async def take(self) -> None:
        """Take over what is queued, in order, many at once."""
        while True:
            while self._takes:
                deltas = tuple(delta for some in self._takes for delta in some)
                self._takes.clear()
                self._taken.set()
                self._taking = deltas
                await self._news.take(self._link.peer, deltas)
                self._taking = ()
            self._queued = trio.Event()
            await self._queued.wait()

    def untaken(self) -> list[Delta]:
        """Return what was not taken over when the link ended."""
        return [*self._taking, *(delta for some in self._takes for delta in some)]

    async def wait_takes(self) -> None:
        """Wait while too much of this peer waits for the store."""
        while len(self._takes) > TAKES_MAX:
            self._taken = trio.Event()
            await self._taken.wait()


def _fit(records: Sequence[bytes]) -> bool:
    return len(records) <= RECORDS_MAX and sum(map(len, records)) <= RECORDS_BYTES


def _mark(record: bytes) -> bytes:
    return hashlib.blake2b(record, digest_size=16).digest()
