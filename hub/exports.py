"""Content out of the organisation: read here, or from a node that holds it, chunk by chunk.

It knows names, manifests and links; nothing is kept here on the way. Rule: only what the assets
key signed for a name goes out, and each chunk is verified by that asset's manifest before its
bytes leave; a holder that gives wrong bytes or none is passed over.
"""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from cache.api import Cache, CacheError, Manifest, parse_manifest
from hub.errors import Conflict, NotFound, Unavailable
from hub.references import References
from mesh.errors import MeshError
from mesh.host.log import get_log
from mesh.proto import tables
from mesh.proto.content import LIVE
from mesh.proto.references import in_force, kind_of, members_of
from mesh.proto.register import Register
from mesh.store import MeshStore

RPC_S: Final = 30.0
CORE_BYTES_MAX: Final = 16 << 20
log = get_log("assets")


class Links(Protocol):
    """Who is connected, and calls to them."""

    def connected(self) -> Any: ...  # noqa: D102

    async def rpc(self, node_id: str, method: str, body: Any, timeout_s: float) -> Any: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class Export:
    """What goes out under a name."""

    name: str
    manifest: Manifest


class Exports:
    """Gives content out."""

    def __init__(
        self,
        store: MeshStore,
        references: References,
        register: Register,
        cache: Cache,
        links: Links,
    ) -> None:
        self._store, self._references, self._register = store, references, register
        self._cache, self._links = cache, links

    async def open(self, name: str) -> Export:
        """Return what a name stands for; raises NotFound, Conflict, Unavailable."""
        body = in_force(self._store.rows(tables.FLEET, tables.REFERENCE)).get(name)
        if body is None:
            raise NotFound(f"there is no asset {name[:60]!r}")
        if kind_of(body) == LIVE:
            parts = ", ".join(member.name for member in members_of(body))
            raise Conflict(f"{name} is a live system: export its members, {parts}")
        named = self._references.names().get(name)
        if named is None:
            raise Conflict(f"the content of {name} is not known yet")
        manifest = self._cache.manifest(named.asset) or await self._learn(name, named.asset)
        return Export(name, manifest)

    async def read(self, export: Export, offset: int) -> AsyncGenerator[bytes]:
        """Yield the bytes from ``offset`` on, each chunk verified; raises Unavailable."""
        step = export.manifest.chunk_bytes
        for index in range(offset // step, export.manifest.chunks):
            data = await self._chunk(export, index)
            yield data[offset - index * step :] if offset > index * step else data

    async def _learn(self, name: str, asset: str) -> Manifest:
        for node in self._holders(asset):
            core = bytearray()
            try:
                while True:
                    body = {"asset": asset, "offset": len(core)}
                    answer = await self._links.rpc(node, "cache.manifest", body, RPC_S)
                    total, piece = answer["total"], answer["piece"]
                    if not piece or not 0 < total <= CORE_BYTES_MAX:
                        break
                    core += piece
                    if len(core) >= total:
                        return parse_manifest(bytes(core), asset)
            except (MeshError, CacheError, KeyError, TypeError) as exc:
                log.warning("manifest not had", peer=node, asset=asset, error=exc)
        raise Unavailable(f"no node in reach holds {name}")

    async def _chunk(self, export: Export, index: int) -> bytes:
        asset = export.manifest.asset
        if self._cache.holds(asset):
            try:
                return await self._cache.read_chunk(asset, index)
            except CacheError as exc:  # damaged on disk: somebody else may have it
                log.error("chunk damaged on disk", asset=asset, error=exc)
        for node in self._holders(asset):
            try:
                body = {"asset": asset, "index": index}
                data = await self._links.rpc(node, "cache.chunk", body, RPC_S)
            except MeshError as exc:
                log.warning("chunk not had", peer=node, asset=asset, error=exc)
                continue
            if isinstance(data, bytes) and export.manifest.fits(index, data):
                return data
            log.error("corrupt chunk from a peer", peer=node, asset=asset, count=index)
        raise Unavailable(f"no node in reach gives chunk {index} of {export.name}")

    def _holders(self, asset: str) -> Sequence[str]:
        """Return the nodes in reach that say they hold the whole asset."""
        reachable = self._links.connected()
        return sorted(
            row.author
            for row in self._store.authored(tables.FLEET, tables.PRESENCE)
            if row.key == asset
            and row.body.get("have") == row.body.get("of")
            and row.author in reachable
            and self._register.active(row.author)
        )
