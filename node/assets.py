"""The node's assets: watches what is wanted, keeps transfers going, says what is here.

It knows the store's rows, the links and the cache, and decides nothing itself
(node/proto/residency.py). Rules: one transfer per name; our PRESENCE rows follow the cache
within a second; a NAME counts only under the organisation's assets key.
"""

import random
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, Protocol

import trio

from cache.api import Cache, CacheError, ChunkUnavailable, NoHolder
from mesh.errors import MeshError, Refused
from mesh.host.clock import Clock
from mesh.host.log import get_log
from mesh.proto.ids import ASSET_PATTERN, NAME_PATTERN
from mesh.proto.tables import ASSET, FLEET, NAME, PRESENCE, REFERENCE
from node.proto.residency import Fetch, Holder, Resolve, View, decide, fetch_from

PUBLISH_S: Final = 1.0
RETRY_FIRST_S: Final = 1.0
RETRY_MAX_S: Final = 60.0
RPC_S: Final = 20.0
CORE_PIECE_BYTES: Final = 1 << 20
CORE_BYTES_MAX: Final = 16 << 20
WANTED_MAX: Final = 256
log = get_log("assets")

Name = dict[str, Any]


class Caller(Protocol):
    """A link to one node, for calls."""

    async def rpc(self, method: str, body: Any, timeout_s: float) -> Any:
        """Call and return the answer."""
        ...


class Assets:
    """The service; ``want`` makes it fetch a name for local work."""

    def __init__(
        self,
        *,
        node: str,
        site: str,
        cache: Cache,
        store: Any,
        peers: Any,
        alive: Callable[[], Sequence[str]],
        open_name: Callable[[bytes], Mapping[str, Any]],
        clock: Clock,
    ) -> None:
        self._node, self._site, self._cache, self._store = node, site, cache, store
        self._peers, self._alive, self._open_name, self._clock = peers, alive, open_name, clock
        self._busy: set[str] = set()
        self._failures: dict[str, tuple[int, float]] = {}
        self._wanted: set[str] = set()
        self._published: dict[tuple[str, str], dict[str, Any]] = {}
        self._bell = trio.Event()

    # -- for local work ----------------------------------------------------------------------

    def asset_of(self, name: str) -> str | None:
        """Return the asset id behind a name, if it is known and signed."""
        return self._names().get(name, {}).get("asset")

    async def want(
        self, name: str, asset: str, progress: Callable[[int, int], Awaitable[None]]
    ) -> None:
        """Return when the asset is whole here; fetch it first. Never gives up by itself."""
        assert len(self._wanted) < WANTED_MAX
        self._wanted.add(name)
        self._bell.set()
        try:
            while not self._cache.holds(asset):
                version = self._cache.version
                for state in self._cache.assets():
                    if state.asset == asset:
                        await progress(state.have, state.of)
                await self._cache.wait_past(version)
        finally:
            self._wanted.discard(name)

    def trouble(self, name: str) -> str | None:
        """Return why a name does not come forward, in one sentence."""
        for state in self._cache.assets():
            if state.name == name and state.error:
                return state.error
        return None

    # -- rpc for other members ---------------------------------------------------------------

    def rpc_handlers(self) -> dict[str, Callable[[str, Any], Awaitable[Any]]]:
        """Return the calls that members may make on us."""
        return {"cache.manifest": self._give_manifest, "cache.chunk": self._give_chunk}

    async def _give_manifest(self, _peer: str, body: Any) -> Any:
        asset, offset = _asset_and(body, "offset")
        manifest = self._cache.manifest(asset)
        if manifest is None:
            raise Refused(f"{asset} is not here")
        piece = manifest.core[offset : offset + CORE_PIECE_BYTES]
        return {"total": len(manifest.core), "piece": piece}

    async def _give_chunk(self, _peer: str, body: Any) -> Any:
        asset, index = _asset_and(body, "index")
        try:
            return await self._cache.read_chunk(asset, index)
        except ChunkUnavailable as exc:
            raise Refused(str(exc)) from exc

    # -- the service -------------------------------------------------------------------------

    async def run(
        self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Keep transfers going until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._publish)
            task_status.started()
            while True:
                version = self._store.version
                self._bell = trio.Event()
                for order in decide(self._view()):
                    if self._due(order.name):
                        self._busy.add(order.name)
                        nursery.start_soon(self._carry_out, order)
                with trio.move_on_after(RETRY_FIRST_S):
                    async with trio.open_nursery() as either:
                        either.start_soon(_cancel_after, either, self._store.wait_past, version)
                        either.start_soon(_cancel_after, either, self._bell.wait)

    def _due(self, name: str) -> bool:
        _, rest_until = self._failures.get(name, (0, 0.0))
        return name not in self._busy and trio.current_time() >= rest_until

    def _view(self) -> View:
        return View(
            node=self._node,
            site=self._site,
            alive=[*self._alive(), self._node],
            references={row.key: row.body for row in self._store.rows(FLEET, REFERENCE)},
            names=self._names(),
            holders=self._holders(),
            held=[
                state.asset
                for state in self._cache.assets()
                if state.asset and self._cache.holds(state.asset)
            ],
            wanted=frozenset(self._wanted),
        )

    def _names(self) -> dict[str, Name]:
        names: dict[str, Name] = {}
        for row in self._store.rows(FLEET, NAME):
            signed = row.body.get("signed")
            if not isinstance(signed, bytes):
                continue
            try:
                body = dict(self._open_name(signed))
            except MeshError as exc:
                log.warning("name refused", name=row.key, error=exc)
                continue
            if body.get("name") == row.key:
                names[row.key] = body
        return names

    def _holders(self) -> dict[str, list[Holder]]:
        found: dict[str, list[Holder]] = {}
        for row in self._store.authored(FLEET, PRESENCE):
            have, of = row.body.get("have"), row.body.get("of")
            if not (isinstance(have, int) and isinstance(of, int) and have > 0):
                continue
            site = row.body.get("site")
            holder = Holder(row.author, site if isinstance(site, str) else "", have == of)
            found.setdefault(row.key, []).append(holder)
        return found

    async def _carry_out(self, order: Resolve | Fetch) -> None:
        name = order.name
        try:
            if isinstance(order, Resolve):
                manifest = await self._cache.resolve(name, order.url, order.sha256)
                await self._claim(name, manifest.asset, manifest.size, manifest.sha256, order)
            else:
                async with _Holders(self, order).open() as holders:
                    await self._cache.fetch(name, order.asset, holders)
            self._failures.pop(name, None)
        except CacheError as exc:
            count = self._failures.get(name, (0, 0.0))[0] + 1
            span = min(RETRY_MAX_S, RETRY_FIRST_S * 2 ** min(count - 1, 10))
            pause = span * (0.5 + random.random() / 2)  # noqa: S311 - jitter, not a secret
            self._failures[name] = (count, trio.current_time() + pause)
            log.warning("asset not had", name=name, attempt=count, error=exc, s=round(pause, 1))
        finally:
            self._busy.discard(name)
            self._bell.set()

    async def _claim(
        self, name: str, asset: str, size: int, sha256: str, order: Resolve
    ) -> None:
        """Say what the reference turned out to be; a hub signs the name."""
        body = {
            "name": name, "asset": asset, "size": size, "sha256": sha256,
            "chunk_bytes": 1 << 20, "trust": "declared-sha256" if order.sha256 else "tofu",
        }  # fmt: skip

        def write(tx: Any) -> None:
            tx.put(FLEET, ASSET, asset, body)

        await self._store.write(write)

    async def _publish(self) -> None:
        """Let our PRESENCE rows follow the cache."""
        while True:
            version = self._cache.version
            rows: dict[str, dict[str, Any]] = {}
            for state in self._cache.assets():
                if not NAME_PATTERN.match(state.name):
                    continue
                rows[state.asset or f"name:{state.name}"] = {
                    "name": state.name, "site": self._site, "state": state.state,
                    "have": state.have, "of": state.of, "origin_bytes": state.origin_bytes,
                    "peer_bytes": state.peer_bytes, "error": state.error,
                }  # fmt: skip
            await self._write_presence(rows)
            await trio.sleep(PUBLISH_S)
            await self._cache.wait_past(version)

    async def _write_presence(self, rows: dict[str, dict[str, Any]]) -> None:
        now = self._clock.now_ms()
        ours = [r for r in self._store.authored(FLEET, PRESENCE) if r.author == self._node]
        mine = {row.key: row.body for row in ours}

        def write(tx: Any) -> None:
            for key in mine.keys() - rows.keys():
                tx.drop(FLEET, PRESENCE, key)
            for key, body in rows.items():
                have = {k: v for k, v in mine.get(key, {}).items() if k != "updated_ms"}
                if have != body:
                    tx.put(FLEET, PRESENCE, key, {**body, "updated_ms": now})

        await self._store.write(write)

    def holders_of(self, asset: str) -> list[str]:
        """Return whom to ask for an asset now."""
        return fetch_from(self._holders().get(asset, ()), self._site, self._node)

    def open_bulk(self, node: str) -> Any:
        """Return the context manager of a bulk link to a node."""
        return self._peers.bulk(node)


class _Holders:
    """The cache's PeerSource over bulk links that live as long as one fetch."""

    def __init__(self, assets: Assets, order: Fetch) -> None:
        self._assets, self._order = assets, order
        self._links: dict[str, Caller] = {}
        self._locks: dict[str, trio.Lock] = {}
        self._nursery: trio.Nursery | None = None

    @asynccontextmanager
    async def open(self) -> AsyncGenerator["_Holders"]:
        """Keep links open until the end of the block."""
        failure: CacheError | None = None
        async with trio.open_nursery() as self._nursery:
            try:
                yield self
            except CacheError as exc:
                failure = exc
            self._nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure

    async def _keep(self, node: str, *, task_status: trio.TaskStatus[Any]) -> None:
        """Hold one bulk link; a task of its own, since links live in nurseries."""
        started = False
        try:
            async with self._assets.open_bulk(node) as link:
                self._links[node] = link
                task_status.started(None)
                started = True
                await trio.sleep_forever()
        except MeshError as exc:
            self._links.pop(node, None)
            if not started:
                task_status.started(exc)

    async def holders(self) -> Sequence[str]:
        """Return whom to ask."""
        return self._assets.holders_of(self._order.asset)

    async def manifest(self, node: str, asset: str) -> bytes:
        """Return the manifest core, in pieces."""
        core = bytearray()
        while True:
            answer = await self._call(
                node, "cache.manifest", {"asset": asset, "offset": len(core)}
            )
            match answer:
                case {"total": int(total), "piece": bytes(piece)} if (
                    piece and total <= CORE_BYTES_MAX
                ):
                    core += piece
                    if len(core) >= total:
                        return bytes(core)
                case _:
                    raise NoHolder(f"{node} does not give the manifest as it should")

    async def chunk(self, node: str, asset: str, index: int) -> bytes:
        """Return the bytes of a chunk."""
        data = await self._call(node, "cache.chunk", {"asset": asset, "index": index})
        if not isinstance(data, bytes):
            raise ChunkUnavailable(f"{node} does not give chunks as it should")
        return data

    async def _call(self, node: str, method: str, body: Any) -> Any:
        try:
            async with self._locks.setdefault(node, trio.Lock()):
                if node not in self._links:
                    assert self._nursery is not None
                    trouble = await self._nursery.start(self._keep, node)
                    if trouble is not None:
                        raise trouble
            return await self._links[node].rpc(method, body, RPC_S)
        except MeshError as exc:
            self._links.pop(node, None)
            raise ChunkUnavailable(str(exc)) from exc


def _asset_and(body: Any, number: str) -> tuple[str, int]:
    match body:
        case {"asset": str(asset), **rest} if ASSET_PATTERN.match(asset):
            value = rest.get(number)
            if isinstance(value, int) and 0 <= value < 1 << 32:
                return asset, value
        case _:
            pass
    raise Refused(f"that call needs an asset id and {number}")


async def _cancel_after(
    nursery: trio.Nursery, function: Callable[..., Awaitable[Any]], *args: Any
) -> None:
    await function(*args)
    nursery.cancel_scope.cancel()
