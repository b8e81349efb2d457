"""One fetch of an asset from other nodes: carries out the plan, verifies, stores, counts.

It decides nothing (cache/proto/fetch_plan.py) and knows no links. Rules: bytes are verified
before they are stored; whatever ends a fetch, what came stays.
"""

import math
import random
from collections.abc import Callable
from typing import Final, Protocol

import trio

from cache.errors import CacheError, ChunkUnavailable, NoHolder
from cache.files import AssetFiles
from cache.ledger import Tally
from cache.proto.fetch_plan import Ask, FetchPlan, Later, Members
from cache.shelf import Shelf
from mesh.host.log import get_log

REFRESH_S: Final = 0.5
"""How often who takes part is asked: that goes through the rows of a whole fleet."""
PATIENCE_S: Final = 30.0
"""For how long nobody can be asked before a fetch gives up for now."""
PEER_S: Final = 100.0
"""For a chunk: a thin link needs so long for the four that may be on their way."""
SAVE_S: Final = 1.0
log = get_log("cache")


class PeerSource(Protocol):
    """Other nodes, as the cache sees them; a call may raise CacheError."""

    async def members(self) -> Members:
        """Return who takes part now."""
        ...

    async def manifest(self, node: str, asset: str) -> bytes:
        """Return the manifest core from a node."""
        ...

    async def chunk(self, node: str, asset: str, ask: Ask) -> bytes | bytearray | Later:
        """Return the bytes of a chunk from a node (unverified); ChunkUnavailable: not there."""
        ...

    def near(self, node: str) -> bool:
        """Tell whether a node stands at our own site, on this side of the uplink."""
        ...


class Fetching:
    """The fetch of what is missing of one asset."""

    def __init__(
        self,
        shelf: Shelf,
        tally: Tally,
        files: AssetFiles,
        peers: PeerSource,
        save: Callable[[Tally], None],
    ) -> None:
        self.plan = FetchPlan(files.have, random.SystemRandom().random)
        self._shelf, self._tally, self._files, self._peers = shelf, tally, files, peers
        self._save = save
        self._saved_at = 0.0
        self._failure: OSError | None = None

    async def run(self) -> None:
        """Fetch until all is here; raises NoHolder, or OSError of the disk."""
        idle_since, told_at = trio.current_time(), -math.inf
        plan = self.plan
        async with trio.open_nursery() as nursery:
            while not plan.done and self._failure is None:
                if trio.current_time() - told_at >= REFRESH_S:
                    plan.on_members(await self._peers.members())
                    told_at = trio.current_time()
                version = self._shelf.version
                for ask in plan.next(trio.current_time()):
                    nursery.start_soon(self._one, ask)
                now = trio.current_time()
                if plan.in_flight:
                    idle_since = now
                elif now - idle_since > PATIENCE_S:
                    break
                wake_at = min(now + REFRESH_S, plan.wake_at(now) or math.inf)
                with trio.move_on_at(wake_at):
                    await self._shelf.wait_past(version)
            if self._failure is not None or plan.done:
                nursery.cancel_scope.cancel()
        if self._failure is not None:
            raise self._failure
        if not plan.done:
            raise NoHolder(f"nobody gives the rest of {self._tally.name} at present")

    async def _one(self, ask: Ask) -> None:
        """Fetch, verify and store one chunk."""
        plan, asset = self.plan, self._files.manifest.asset
        try:
            with trio.fail_after(PEER_S):
                found = await self._peers.chunk(ask.node, asset, ask)
        except (CacheError, trio.TooSlowError) as exc:
            if isinstance(exc, ChunkUnavailable):
                plan.on_denied(ask, trio.current_time())
            else:
                plan.on_failure(ask, trio.current_time())
            said = str(exc) or "too slow"
            log.warning("chunk not had", peer=ask.node, asset=asset, error=said)
            self._shelf.changed()
            return
        if isinstance(found, Later):
            plan.on_later(ask, found.have, trio.current_time())
            self._shelf.changed()
        else:
            if not self._peers.near(ask.node):  # all fellows take their shares over one uplink
                await self._shelf.pay(len(found) * plan.fellows)
            await self._store(ask, found)

    async def _store(self, ask: Ask, data: bytes | bytearray) -> None:
        tally = self._tally
        tally.peer_bytes += len(data)
        try:
            good = await self._shelf.in_thread(self._files.store, ask.index, data)
        except OSError as exc:
            self.plan.on_given_up(ask)
            self._failure = exc
            self._shelf.changed()
            return
        if good:
            self.plan.on_chunk(ask, trio.current_time())
            tally.near_bytes += len(data) if self._peers.near(ask.node) else 0
        else:
            self.plan.on_corrupt(ask)
            tally.rejected_bytes += len(data)
            log.error(
                "corrupt chunk from a peer",
                peer=ask.node, asset=self._files.manifest.asset, count=ask.index,
            )  # fmt: skip
        if trio.current_time() - self._saved_at >= SAVE_S:
            self._saved_at = trio.current_time()
            self._save(tally)
        else:
            self._shelf.changed()
