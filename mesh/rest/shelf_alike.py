"""What hub and node do alike about the content on their own disk: read it again, let it go.

It knows no disk and no cache: whoever owns one is given. Rule: a call reads a bounded piece, so
that a caller can say how far it is and stop.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol

import trio

from mesh.rest import asset_view
from mesh.rest.calls import Call
from mesh.rest.problems import RequestProblem
from mesh.rest.shelf_types import AssetChecked, AssetsFreed, FreedAsset

Handler = Callable[[Call], Awaitable[Any]]
PIECE_CHUNKS: Final = 256
"""Chunks that one call reads: 256 MiB, a few seconds of the slowest disk."""


class ShelfPort(Protocol):
    """The part of a cache that this needs."""

    async def verify(self, asset: str, first: int, count: int) -> tuple[int, int, int]:
        """Read held chunks again from the disk; return (checked, damaged, chunks in all)."""
        ...

    def evictable(self) -> Any:
        """Return the assets that may go now, the first one first."""
        ...

    def size_of(self, asset: str) -> int:
        """Return the bytes of an asset that is here, 0 when it is not."""
        ...

    def drop(self, asset: str) -> int:
        """Let a whole asset go; return its bytes, 0 when it stays."""
        ...


@dataclass(frozen=True, slots=True)
class ShelfAlike:
    """The handlers over one cache, and the rows that name its content."""

    shelf: ShelfPort
    store: Any
    register: Any

    def handlers(self) -> dict[str, Handler]:
        """Return the handlers by operation."""
        return {"verifyAsset": self._verify, "collectAssets": self._collect}

    async def _verify(self, call: Call) -> AssetChecked:
        name, first = call.parts["name"], call.query.first
        asset = self._asset(name)
        checked, damaged, of = await self.shelf.verify(asset, first, PIECE_CHUNKS)
        end = first + PIECE_CHUNKS
        return AssetChecked(
            name=name, asset=asset, checked=checked, damaged=damaged, of=of,
            next=end if end < of else None,
        )  # fmt: skip

    async def _collect(self, call: Call) -> AssetsFreed:
        await trio.lowlevel.checkpoint()
        names: dict[str, list[str]] = {}
        for item in asset_view.assets_in(self.store, self.register):
            names.setdefault(item["asset"] or "", []).append(item["name"])
        freed: list[FreedAsset] = []
        for asset in list(self.shelf.evictable()):
            size = self.shelf.size_of(asset) if call.body.dry_run else self.shelf.drop(asset)
            if size:
                freed.append(FreedAsset(asset=asset, names=names.get(asset, []), bytes=size))
        return AssetsFreed(
            dry_run=bool(call.body.dry_run),
            bytes=sum(one["bytes"] for one in freed),
            assets=freed,
        )

    def _asset(self, name: str) -> str:
        for item in asset_view.assets_in(self.store, self.register):
            if item["name"] == name:
                if item["asset"] is None:
                    raise RequestProblem("conflict", f"{name} has no content of its own yet")
                return str(item["asset"])
        raise RequestProblem("not-found", f"there is no asset {name!r}")
