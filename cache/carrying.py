"""Taking in a bundle that somebody carried here: piece by piece, as if the mesh had brought it.

It knows the cache and the file; the store and the register are given as calls. Rules: state is
taken first and checked like a peer's; content is taken only for names that an assets key of
today signed for it; all of a bundle is refused before its first byte when a part of it would
be; nothing is kept between two calls, so it can be stopped and begun again anywhere.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import trio

from cache.bundle import BundleReader, PartReader
from cache.cache import Cache
from mesh.host.log import get_log
from mesh.proto.bundle import Part

PIECE_S: Final = 5.0
"""Time after which a call answers, so that its caller can say how far it is."""
BATCH: Final = 16
"""Chunks between two looks at the time."""
log = get_log("bundle")


@dataclass(frozen=True, slots=True)
class Carried:
    """How far a bundle is taken; ``next`` is the place to go on, None when all is here."""

    signed_by: str
    names: tuple[str, ...]
    done: int  # chunks
    of: int
    next: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Carrier:
    """Takes bundles into one cache."""

    cache: Cache
    root_fp: bytes
    take_state: Callable[[bytes], Awaitable[object]]
    """Take over a piece of signed state; raises Refused."""
    asset_of: Callable[[str], str | None]
    """What an assets key of today says that a name stands for."""
    is_member: Callable[[str], bool]

    async def take(self, path: Path, at: int) -> Carried:
        """Take in a part of a bundle from chunk ``at`` on; 0 also takes the state.

        Raises BundleRefused, NoSpace, and what taking state raises.
        """
        bundle = await self.cache.in_thread(BundleReader.open, path)
        try:
            return await self._take(bundle, at)
        finally:
            bundle.close()

    async def _take(self, bundle: BundleReader, at: int) -> Carried:
        if bundle.root_fp != self.root_fp:
            raise bundle.refuse(
                f"this is a bundle of organisation {bundle.root_fp.hex()[:8]},"
                f" not of {self.root_fp.hex()[:8]}"
            )
        if at == 0:
            for piece in bundle.state():
                await self.take_state(piece)
        self._check(bundle)
        if at == 0:
            await self._check_room(bundle)
        ends, done, of = trio.current_time() + PIECE_S, at, 0
        for part in bundle.index.parts:
            begin, of = of, of + part.chunks
            late = done > at and trio.current_time() >= ends  # every call takes something in
            if late or not (begin <= done < of or begin == done == of):
                continue
            reader = await self.cache.in_thread(bundle.asset, part)
            while True:
                batch = range(done - begin, min(done - begin + BATCH, part.chunks))
                await self._carry(part, reader, batch)
                done = begin + batch.stop
                if done == of or trio.current_time() >= ends:
                    break
        names = tuple(name for part in bundle.index.parts for name in part.names)
        if done >= of:
            total = sum(part.size for part in bundle.index.parts)
            log.info("bundle taken", node=bundle.seal.node, bytes=total)
        return Carried(bundle.seal.node, names, done, of, done if done < of else None)

    async def _carry(self, part: Part, reader: PartReader, batch: range) -> None:
        """Take chunks in; zeros are here from the beginning. All names share the content."""
        await self.cache.carry(part.names[0], reader.manifest, batch, reader.chunk)
        if self.cache.holds(part.asset):
            for name in part.names[1:]:
                await self.cache.carry(name, reader.manifest, range(0), reader.chunk)

    def _check(self, bundle: BundleReader) -> None:
        """Refuse a bundle that no member made, or with a name that is not signed for it."""
        if not self.is_member(bundle.seal.node):
            raise bundle.refuse(f"{bundle.seal.node}, who signed it, is no member")
        for part in bundle.index.parts:
            for name in part.names:
                said = self.asset_of(name)
                if said is None:
                    raise bundle.refuse(f"no assets key signed the name {name}")
                if said != part.asset:
                    raise bundle.refuse(f"{name} is signed as {said}, not as {part.asset}")

    async def _check_room(self, bundle: BundleReader) -> None:
        """Refuse before the first byte what does not fit; one manifest at a time."""
        needed = 0
        for part in bundle.index.parts:
            reader = await self.cache.in_thread(bundle.asset, part)
            missing = self.cache.missing(part.asset, reader.stored)
            needed += sum(reader.manifest.chunk_size(index) for index in missing)
        self.cache.check_room(needed)
