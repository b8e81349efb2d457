"""Replication: runs one anti-entropy session a link, between the store and the peers.

The decisions are ``mesh/proto/sync.py``'s; this shell carries them out: frames in and out,
store and register, timers. Rules: nothing is announced or acknowledged before it is durable; a
peer that does not read loses its link, never holds up another; whatever a peer sends ends at
worst in its own link being closed.
"""

import math
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Any, Final

import trio

from mesh.errors import Refused, StoreBroken, StoreFull
from mesh.host.log import get_log
from mesh.news import LINK_OVER, LinkPort, News, PlacePort
from mesh.proto.evidence import Proof
from mesh.proto.heads_digest import HeadsDigest
from mesh.proto.intake import Outcome, Roster, uncovered
from mesh.proto.receipts import Receipts
from mesh.proto.serve import serve
from mesh.proto.sets import SetId, SignedHead
from mesh.proto.sync import EXCHANGE_S, JITTER, SyncSession
from mesh.proto.sync_ports import (
    Apply,
    Claims,
    Convict,
    Drop,
    Effect,
    Merge,
    Send,
    SendReceipt,
    Serve,
)
from mesh.proto.sync_wire import Known
from mesh.roster import RegisterOnly, RegisterRoster, RegisterStorePort
from mesh.store import MeshStore

__all__ = ["LinkPort", "Replication"]

OUTBOX_MAX: Final = 256
"""Frames that wait to be sent to one peer; one more and its link is closed."""

_RANDOM = random.SystemRandom()
_LOG = get_log("sync")


class Replication:
    """Anti-entropy of one store with all linked peers."""

    def __init__(
        self,
        store: MeshStore,
        register_store: RegisterStorePort,
        *,
        carries: Callable[[str], bool] | None = None,
        jitter: Callable[[], float] = _RANDOM.random,
        place: PlacePort | None = None,
    ) -> None:
        """``carries`` narrows the scopes that we keep below what the register gives us.

        ``place``: where we stand in the topology; without it nothing is pushed, all is
        announced and pulled.
        """
        self.counters: Counter[str] = Counter()
        self._store, self._register_store = store, register_store
        self._roster = RegisterRoster(register_store.register, store.author, carries)
        self._roster_version = register_store.version
        self._jitter = jitter
        self._claims = Claims()
        self._digest = HeadsDigest(store, self._roster, register_store.register)
        self.met_peers: set[str] = set()
        """Peers with which an exchange was completed since the start."""
        self._sessions: dict[str, _LinkSync] = {}
        self._compared_ms: dict[str, int] = {}
        self.news: News | None = None
        if place is not None:
            told = (self._pull, self._announce)
            self.news = News(store, register_store, lambda: self.roster, place, *told)
        self._receipts = Receipts(store.author)
        self._receipt_news = trio.Event()

    # -- link services ---------------------------------------------------------------------

    def services(self) -> dict[str, Callable[[LinkPort], Awaitable[None]]]:
        """Return what serves the kinds of frames that are replication's."""
        served: dict[str, Callable[[LinkPort], Awaitable[None]]] = {
            "sync": self.service,
            "receipt": self.receipt_service,
        }
        return served if self.news is None else {**served, "broadcast": self.news.service}

    async def service(self, link: LinkPort) -> None:
        """Serve the frames of kind ``sync`` of one link until it ends."""
        self.refresh()
        await self._exchange(link, self._roster)

    async def renewal(self, link: LinkPort) -> None:
        """Exchange the register alone with a peer that has to show a new key first."""
        self.refresh()
        register = self._register_store.register
        await self._exchange(link, RegisterOnly(register, self._store.author), meets=False)

    async def _exchange(self, link: LinkPort, roster: Roster, *, meets: bool = True) -> None:
        session = SyncSession(
            link.peer,
            self._store,
            roster,
            self._register_store.register,
            self._claims,
            self._jitter,
            self._digest if meets else None,
            lambda set_id, point: self._pushed(link.peer, set_id, point),
        )
        served = _LinkSync(self, link, session, meets=meets)
        if meets:
            self._sessions[link.peer] = served
        try:
            await served.run()
        finally:
            session.close()
            if self._sessions.get(link.peer) is served:
                del self._sessions[link.peer]
            self.counters.update(session.counters)

    def _pushed(self, peer: str, set_id: SetId, point: tuple[int, int]) -> bool:
        """Tell whether the tree brings a peer the news of a set, so that we do not announce."""
        core = self.news.core if self.news is not None else None
        return core is not None and core.takes_part(peer) and core.carries(set_id, point)

    def _pull(self, peer: str, heads: Sequence[Known]) -> None:
        if peer in self._sessions:
            self._sessions[peer].told(heads)

    def _announce(self, flooded: Collection[str]) -> None:
        """The register has changed: say so to the peers that did not get the records."""
        self.refresh()
        for peer, served in self._sessions.items():
            if peer not in flooded:
                served.register_changed()

    def compared(self, peer: str) -> None:
        """A comparison of digests with a peer was completed."""
        self.met_peers.add(peer)
        self._compared_ms[peer] = self._store.now_ms()

    def ages(self) -> Mapping[str, int]:
        """Return when (Unix milliseconds) digests were last compared with each peer."""
        return dict(self._compared_ms)

    async def receipt_service(self, link: LinkPort) -> None:
        """Take the frames of kind ``receipt`` of one link until it ends."""
        try:
            async for body in link.receive("receipt"):
                if self._receipts.on_frame(link.peer, body, self._store.heads):
                    self._receipt_news.set()
                    self._receipt_news = trio.Event()
        except LINK_OVER:
            pass

    async def wait_receipt(
        self, scope: str, epoch: int, seq: int, timeout_s: float
    ) -> str | None:
        """Wait until another node (no hub) has our own set in a scope durably up to a point.

        Returns its node id, or None when the time is over. Take the point from
        ``store.head(scope)`` after the write.
        """
        with trio.move_on_after(timeout_s):
            while True:
                self.refresh()
                found = self._receipts.holder(
                    scope, (epoch, seq), lambda node: self._roster.vouches(node, scope)
                )
                if found is not None:
                    return found
                await self._receipt_news.wait()
        return None

    async def run(
        self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Spread news, and let go of rows that nobody needs once a minute, until cancelled."""
        async with trio.open_nursery() as nursery:
            if self.news is not None:
                await nursery.start(self.news.run)
            task_status.started()
            await self._keep_collecting()

    async def _keep_collecting(self) -> None:
        while True:
            await trio.sleep(EXCHANGE_S * (1 + JITTER * (2 * self._jitter() - 1)))
            try:
                self._register_store.merge_all(())  # what a full disk had left unwritten
                await self.collect()
            except StoreFull:
                pass  # the store has said so; the next round does it

    async def collect(self) -> int:
        """Do one round of letting go; return how many rows went."""
        self.refresh()
        return await self._store.collect(self._roster, self._roster.is_heir)

    def statistics(self) -> Mapping[str, int]:
        """Return what was counted, over ended links and receipts."""
        counted = Counter(self.counters)
        for name, count in self._receipts.counters.items():
            counted[f"receipts {name}"] += count
        for name, count in (self.news.statistics() if self.news is not None else {}).items():
            counted[f"news {name}"] += count
        return counted

    # -- for _LinkSync ---------------------------------------------------------------------

    @property
    def store(self) -> MeshStore:
        """The store."""
        return self._store

    @property
    def register_store(self) -> RegisterStorePort:
        """The register on disk."""
        return self._register_store

    @property
    def roster(self) -> RegisterRoster:
        """The roster, as fresh as the register."""
        self.refresh()
        return self._roster

    async def met(self, peer: str) -> None:
        """After a restore: a peer has shown all it has; admit writes once every scope was."""
        self.met_peers.add(peer)
        await self.admit_if_met()

    async def admit_if_met(self) -> None:
        """After a restore: admit writes if nobody is missing who could hold later ones."""
        if self._store.awaits_peer and not self.unmet_scopes():
            await self._store.admit_writes()

    def unmet_scopes(self) -> list[str]:
        """Return the scopes of own sets of which nobody who carries them was met yet."""
        scopes = [scope for author, scope in self._store.heads if author == self._store.author]
        return uncovered(
            self.roster, self._roster.nodes(), self._store.author, scopes, self.met_peers
        )

    def refresh(self) -> None:
        """Look at the register again if it has changed."""
        if self._roster_version != self._register_store.version:
            self._roster_version = self._register_store.version
            self._roster.refresh()


class _LinkSync:
    """The tasks of one link's session."""

    def __init__(
        self, parent: Replication, link: LinkPort, session: SyncSession, *, meets: bool
    ) -> None:
        """``meets``: the peer shows all that it has, which a restored member waits for."""
        self._meets = meets
        self._parent, self._link, self._session = parent, link, session
        self._store = parent.store
        self._send, self._outbox = trio.open_memory_channel[tuple[str, Any]](OUTBOX_MAX)
        self._kick = trio.Event()
        self._nursery: trio.Nursery | None = None
        self._compared = 0

    def register_changed(self) -> None:
        """Let the peer compare the register."""
        if self._nursery is not None:
            self._perform(self._session.on_register_change(trio.current_time()))

    def told(self, heads: Sequence[Known]) -> None:
        """Pull what the peer was heard to hold."""
        if self._nursery is not None:
            self._perform(self._session.on_told(heads, trio.current_time()))

    async def run(self) -> None:
        version = self._store.version
        register_version = self._parent.register_store.version
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            nursery.start_soon(self._write)
            nursery.start_soon(self._watch_store, version)
            if self._parent.news is None or not self._meets:
                nursery.start_soon(self._watch_register, register_version)
            nursery.start_soon(self._keep_time)
            self._perform(self._session.start(trio.current_time()))
            try:
                async for body in self._link.receive("sync"):
                    self._perform(self._session.on_frame(body, trio.current_time()))
            except LINK_OVER:
                pass  # the link says why, in its own log line
            nursery.cancel_scope.cancel()

    def _perform(self, effects: Sequence[Effect]) -> None:
        """Carry effects out; what takes time runs in a task of its own."""
        assert self._nursery is not None
        for effect in effects:
            match effect:
                case Send(body):
                    self._post("sync", body)
                case SendReceipt(body):
                    self._post("receipt", body)
                case Serve():
                    self._nursery.start_soon(self._serve, effect)
                case Apply():
                    self._nursery.start_soon(self._apply, effect)
                case Convict(proofs):
                    self._nursery.start_soon(self._convict, proofs)
                case Merge():
                    self._nursery.start_soon(self._merge, effect)
                case Drop(reason):
                    self._drop(reason)
        self._kick.set()
        if self._meets and self._session.counters["completed"] > self._compared:
            self._compared = self._session.counters["completed"]
            self._parent.compared(self._link.peer)
            if self._store.awaits_peer:
                self._nursery.start_soon(self._parent.met, self._link.peer)

    def _post(self, kind: str, body: Any) -> None:
        try:
            self._send.send_nowait((kind, body))
        except trio.WouldBlock:
            self._drop("the peer does not read")

    def _drop(self, reason: str) -> None:
        _LOG.warning("sync ended", peer=self._link.peer, reason=reason)
        self._session.close()
        self._link.close(reason)
        assert self._nursery is not None
        self._nursery.cancel_scope.cancel()

    async def _write(self) -> None:
        try:
            async for kind, body in self._outbox:
                await self._link.send(kind, body)
        except LINK_OVER:
            assert self._nursery is not None
            self._nursery.cancel_scope.cancel()

    async def _keep_time(self) -> None:
        while True:
            self._kick = kick = trio.Event()
            deadline = self._session.deadline
            with trio.move_on_at(math.inf if deadline is None else deadline):
                await kick.wait()
            if not kick.is_set():
                self._perform(self._session.on_timer(trio.current_time()))

    async def _watch_store(self, version: int) -> None:
        while True:
            seen, version = version, await self._store.wait_past(version)
            changed: Mapping[SetId, SignedHead | None] | None
            changed = self._store.changes_since(seen)
            if changed is None:
                changed = dict(self._store.heads)
            self._perform(self._session.on_change(changed, trio.current_time()))

    async def _watch_register(self, version: int) -> None:
        while True:
            version = await self._parent.register_store.wait_past(version)
            self._parent.refresh()
            self.register_changed()

    async def _serve(self, effect: Serve) -> None:
        roster = self._parent.roster
        parts = await self._store.serve(
            lambda reader: serve(reader, effect.wants, roster, self._link.peer)
        )
        self._perform(self._session.on_served(effect.n, parts, trio.current_time()))

    async def _apply(self, effect: Apply) -> None:
        outcomes: list[Outcome] = []
        if effect.deltas:
            try:
                outcomes = await self._store.take(
                    effect.deltas, self._parent.roster, self._link.peer
                )
            except StoreFull:
                self._perform(self._session.on_apply_failed(trio.current_time()))
                return
            except (Refused, StoreBroken):
                return  # the store has ended, and the process with it
        self._perform(self._session.on_applied(outcomes, trio.current_time()))

    async def _convict(self, proofs: Sequence[Proof]) -> None:
        try:
            false = await self._store.convict(proofs, self._parent.roster)
        except (StoreFull, Refused, StoreBroken):
            return  # it is said again on the next link
        self._perform(self._session.on_convicted(false))

    async def _merge(self, effect: Merge) -> None:
        try:
            self._parent.register_store.merge_all(effect.records)
        except StoreFull:
            pass  # they hold from now on and are written when there is room
        self._parent.refresh()
        await trio.lowlevel.checkpoint()
        self._perform(self._session.on_merged(trio.current_time()))
