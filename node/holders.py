"""Other nodes as the cache's source: bulk links that live as long as one fetch, and beside
them, at our own site, chunks in clear.

It decides nothing; who takes part says ``Assets``. Rule: what cannot be had in clear is asked
for over the link.
"""

import re
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from ipaddress import IPv4Address
from typing import Any, Final, Protocol

import trio

from cache.api import (
    Ask,
    CacheError,
    ChunkUnavailable,
    Growth,
    Later,
    Manifest,
    Members,
    NoHolder,
)
from mesh.errors import MeshError, RemoteRefused
from mesh.host.log import get_log
from node.clear import ClearClient, ClearFailed, Offer, Place

RPC_S: Final = 90.0
"""For one chunk of several on a thin link; a dead link ends by itself long before."""
GROWTH_S: Final = 20.0
"""A node that reads an origin answers within 5 s, with more or without."""
CORE_BYTES_MAX: Final = 16 << 20
TOKEN: Final = re.compile("[0-9a-f]{32}")
log = get_log("assets")


class Caller(Protocol):
    """A link to one node, for calls; ``address``: its other end as HOST:PORT."""

    address: str

    async def rpc(self, method: str, body: Any, timeout_s: float) -> Any:
        """Call and return the answer."""
        ...


class Circle(Protocol):
    """Who takes part in fetches, and the ways to them."""

    def members_of(self, name: str, asset: str) -> Members:
        """Return from whom an asset is taken now, and with whom that is shared."""
        ...

    def is_near(self, node: str) -> bool:
        """Tell whether the roster has a node at our own site."""
        ...

    def in_clear(self, node: str) -> bool:
        """Tell whether chunks may be taken from a node in clear."""
        ...

    def open_bulk(self, node: str) -> AbstractAsyncContextManager[Caller]:
        """Return the context manager of a bulk link to a node."""
        ...

    def manifest(self, asset: str) -> Manifest | None:
        """Return what an asset is, once that is known here."""
        ...


class Holders:
    """The cache's PeerSource over bulk links that live as long as one fetch."""

    def __init__(self, circle: Circle, name: str, asset: str) -> None:
        self._circle, self._name, self._asset = circle, name, asset
        self._links: dict[str, Caller] = {}
        self._locks: dict[str, trio.Lock] = {}
        self._clear: dict[str, ClearClient | None] = {}
        """By node; None: it gives nothing in clear, or failed to."""
        self._nursery: trio.Nursery | None = None

    @asynccontextmanager
    async def open(self) -> AsyncGenerator["Holders"]:
        """Keep links open until the end of the block."""
        failure: CacheError | None = None
        async with trio.open_nursery() as self._nursery:
            try:
                yield self
            except CacheError as exc:
                failure = exc
            self._nursery.cancel_scope.cancel()
            for client in self._clear.values():
                if client is not None:
                    client.close()
        if failure is not None:
            raise failure

    async def _keep(self, node: str, *, task_status: trio.TaskStatus[Any]) -> None:
        """Hold one bulk link; a task of its own, since links live in nurseries."""
        started = False
        try:
            async with self._circle.open_bulk(node) as link:
                self._links[node] = link
                task_status.started(None)
                started = True
                await trio.sleep_forever()
        except MeshError as exc:
            self._links.pop(node, None)
            if not started:
                task_status.started(exc)

    async def members(self) -> Members:
        """Return who takes part."""
        return self._circle.members_of(self._name, self._asset)

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

    async def chunk(self, node: str, asset: str, ask: Ask) -> bytes | bytearray | Later:
        """Return the bytes of a chunk, or that a fellow will have it."""
        client, manifest = await self._clear_of(node, asset), self._circle.manifest(asset)
        if client is not None and manifest is not None:
            step, size = manifest.chunk_bytes, manifest.chunk_size(ask.index)
            try:
                return await client.chunk(Place(asset, ask.index, ask.index * step, size), ask)
            except ClearFailed as exc:
                log.warning("chunk not had in clear", peer=node, asset=asset, error=exc)
                client.close()
                self._clear[node] = None
        body = {"asset": asset, "index": ask.index, "wait": ask.shared, "first": ask.first}
        match await self._call(node, "cache.chunk", body):
            case bytes(data):
                return data
            case {"have": int() | None as have} if ask.shared:
                return Later(have)
            case _:
                raise NoHolder(f"{node} does not give chunks as it should")

    async def growth(self, node: str, name: str, offset: int) -> Growth | None:
        """Return more of what a node reads from an origin; None: it does not read it."""
        try:
            body = {"name": name, "offset": offset}
            answer = await self._call(node, "cache.growing", body, GROWTH_S)
        except ChunkUnavailable:
            return None
        match answer:
            case {
                "url": str(url),
                "validator": str() | None as validator,
                "size": int() | None as size,
                "piece": bytes(piece),
            }:
                return Growth(url, validator, size, piece)
            case _:
                raise NoHolder(f"{node} does not say as it should what it reads")

    def near(self, node: str) -> bool:
        """Tell whether a node is on this side of the uplink."""
        return self._circle.is_near(node)

    async def _clear_of(self, node: str, asset: str) -> ClearClient | None:
        """Return the way to take chunks in clear from a node of our site, if it has one."""
        if node in self._clear or not self._circle.in_clear(node):
            return self._clear.get(node)
        try:
            answer = await self._call(node, "cache.clear", {"asset": asset})
        except ChunkUnavailable:
            answer = None  # a build before this one, or it may not
        link = self._links.get(node)
        offer = None if link is None else read_offer(link.address, answer)
        if node not in self._clear:  # else another call was faster
            self._clear[node] = None if offer is None else ClearClient(offer)
        return self._clear[node]

    async def _call(self, node: str, method: str, body: Any, timeout_s: float = RPC_S) -> Any:
        try:
            async with self._locks.setdefault(node, trio.Lock()):
                if node not in self._links:
                    assert self._nursery is not None
                    trouble = await self._nursery.start(self._keep, node)
                    if trouble is not None:
                        raise trouble
            return await self._links[node].rpc(method, body, timeout_s)
        except RemoteRefused as exc:
            raise ChunkUnavailable(str(exc)) from exc
        except MeshError as exc:
            self._links.pop(node, None)
            raise NoHolder(str(exc)) from exc


def read_offer(address: str, answer: Any) -> Offer | None:
    """Return where to ask in clear: at the link's other end, on the port that it names."""
    match answer:
        case {"port": int(port), "token": str(token)}:
            pass
        case _:
            return None
    try:
        host = str(IPv4Address(address.rpartition(":")[0]))
    except ValueError:  # over a relay, or IPv6
        return None
    good = 0 < port < 65536 and TOKEN.fullmatch(token)
    return Offer(host, port, token) if good else None
