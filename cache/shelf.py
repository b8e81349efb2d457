"""What is here: assets on disk by id, names with their tallies, and readers.

It knows neither how content gets here nor who wants it. Rule: bytes are verified before they
are stored and before they are first served in this process.
"""

import shutil
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self, TypeVar, TypeVarTuple

import trio

from cache.errors import CacheError, ChunkUnavailable
from cache.files import AssetFiles
from cache.intake import Intake
from cache.ledger import Ledger, Tally
from cache.making import WORK_SUFFIX
from cache.proto.fetch_plan import FetchPlan, Later
from cache.proto.manifest import CHUNK_BYTES, Manifest
from mesh.host.clock import Clock
from mesh.host.log import get_log
from mesh.proto.beside import aside, next_of, plain

THREADS: Final = 4
log = get_log("cache")
T = TypeVar("T")
Ts = TypeVarTuple("Ts")


@dataclass(frozen=True, slots=True)
class AssetState:
    """How one name fares here; ``have`` and ``of`` count chunks (of is 0 while unknown)."""

    name: str
    asset: str | None
    state: str
    have: int
    of: int
    size: int | None
    origin_bytes: int
    peer_bytes: int
    rejected_bytes: int
    error: str | None
    updated_ms: int
    near_bytes: int
    """Of peer_bytes, what nodes of our own site gave, verified."""


class AssetReader:
    """Bytes of an asset for a server: wait for a range, then send it from ``fd``."""

    def __init__(self, cache: "Shelf", files: AssetFiles) -> None:
        self._cache, self._files = cache, files
        self.fd = files.descriptor
        self.size = files.manifest.size
        self.manifest = files.manifest

    async def wait(self, offset: int, length: int) -> None:
        """Return when every chunk of the range is held and verified in this process."""
        step = self.manifest.chunk_bytes
        for index in range(offset // step, -(-(offset + length) // step)):
            while not self._files.checked(index):
                version = self._cache.version
                if self._files.have[index]:
                    try:
                        await self._cache.in_thread(self._files.read, index)
                    except ChunkUnavailable as exc:
                        log.error("chunk damaged on disk", asset=self.manifest.asset, error=exc)
                        self._cache.changed()
                else:
                    self._cache.want_first(self.manifest.asset, index)
                    await self._cache.wait_past(version)


async def _nothing(_size: int) -> None:
    """Cost nothing."""


class Shelf:
    """All assets below one folder; one process owns it."""

    def __init__(self, folder: Path, quota_bytes: int, clock: Clock) -> None:
        self._folder, self._quota, self._clock = folder, quota_bytes, clock
        self._ledger = Ledger(folder / "cache.db")
        self._tallies: dict[str, Tally] = {t.name: t for t in self._ledger.tallies()}
        self._files: dict[str, AssetFiles] = {}
        self._intakes: dict[str, tuple[Intake, int | None]] = {}
        self._plans: dict[str, FetchPlan] = {}
        self._limiter = trio.CapacityLimiter(THREADS)
        self._bell = trio.Event()
        self.version = 0
        self.evictable: Callable[[], Sequence[str]] = tuple
        """Assets that may go when the disk is short, the first ones first; the owner says."""
        self.pay: Callable[[int], Awaitable[None]] = _nothing
        """Waits until bytes that came over the uplink are paid for; the owner says."""

    @classmethod
    def open(cls, folder: Path, quota_bytes: int, clock: Clock) -> Self:
        """Open the folder, make it if absent; damaged assets are left out and said."""
        for name in ("assets", "partial"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        for path in (folder / "partial").glob(f"*{WORK_SUFFIX}"):
            shutil.rmtree(path, ignore_errors=True)
        shelf = cls(folder, quota_bytes, clock)
        for path in sorted((folder / "assets").iterdir()):
            try:
                files = AssetFiles.open(path)
            except (OSError, CacheError) as exc:
                log.error("asset left out", path=path, error=exc)
                continue
            shelf._files[files.manifest.asset] = files
        for tally in shelf._tallies.values():
            shelf._settle_state(tally)
        return shelf

    def _settle_state(self, tally: Tally) -> None:
        files = self._files.get(tally.asset or "")
        if files is not None and files.have.full:
            tally.state, tally.error = "verified", None
        elif tally.state == "verified":
            tally.state = "absent"

    def close(self) -> None:
        """Make everything durable and close it."""
        for files in self._files.values():
            try:
                files.close()
            except OSError as exc:  # a full disk: what is not marked is fetched again
                log.warning("asset not saved", asset=files.manifest.asset, error=exc)
        self._ledger.close()

    # -- what is here ------------------------------------------------------------------------

    def changed(self) -> None:
        """Wake everybody who waits for a change."""
        self.version += 1
        self._bell.set()
        self._bell = trio.Event()

    async def wait_past(self, version: int) -> int:
        """Return the version as soon as it is above ``version``."""
        while self.version <= version:
            await self._bell.wait()
        return self.version

    def assets(self) -> list[AssetState]:
        """Return how every known name fares."""
        return [
            self._state(tally) for tally in sorted(self._tallies.values(), key=lambda t: t.name)
        ]

    def _state(self, tally: Tally) -> AssetState:
        files = self._files.get(tally.asset or "")
        have, of, size = 0, 0, None
        if files is not None:
            have, of, size = files.have.have, files.manifest.chunks, files.manifest.size
        elif tally.name in self._intakes:
            intake, size = self._intakes[tally.name]
            have, of = intake.length // CHUNK_BYTES, -(-size // CHUNK_BYTES) if size else 0
        return AssetState(
            tally.name, tally.asset, tally.state, have, of, size, tally.origin_bytes,
            tally.peer_bytes, tally.rejected_bytes, tally.error, tally.updated_ms,
            tally.near_bytes,
        )  # fmt: skip

    def source_of(self, name: str) -> str | None:
        """Return the SHA-256 of the published file that a name's asset was made from here."""
        tally = self._tallies.get(name)
        return tally.source_sha256 if tally else None

    def manifest(self, asset: str) -> Manifest | None:
        """Return the manifest of an asset that is here, whole or in part."""
        files = self._files.get(asset)
        return files.manifest if files else None

    def holds(self, asset: str) -> bool:
        """Tell whether the whole asset is here."""
        files = self._files.get(asset)
        return files is not None and files.have.full

    def reader(self, asset: str) -> AssetReader | None:
        """Return a reader of an asset that is here or on its way."""
        files = self._files.get(asset)
        return AssetReader(self, files) if files else None

    async def read_chunk(self, asset: str, index: int) -> bytes:
        """Return a verified chunk for a peer; raises ChunkUnavailable."""
        files = self._files.get(asset)
        if files is None:
            raise ChunkUnavailable(f"{asset} is not here")
        return await self.in_thread(files.read, index)

    async def await_chunk(
        self, asset: str, index: int, wait_s: float, first: bool
    ) -> Later | None:
        """Wait for a chunk while it is on its way here; None: it is here.

        Once ``wait_s`` are over: how far the fetch is. ``first``: somebody's reader waits for
        it. Raises ChunkUnavailable: it does not come.
        """
        with trio.move_on_after(wait_s):
            while True:
                version, files = self.version, self._files.get(asset)
                if files is not None:
                    if index >= files.manifest.chunks or files.have[index]:
                        break
                    if asset not in self._plans:
                        raise ChunkUnavailable(f"chunk {index} of {asset} does not come here")
                    if first:
                        self.want_first(asset, index)
                await self.wait_past(version)
        files = self._files.get(asset)
        if files is None:
            return Later(None)
        if index >= files.manifest.chunks:
            raise ChunkUnavailable(f"{asset} has no chunk {index}")
        return None if files.have[index] else Later(files.have.have)

    async def give_chunk(
        self, asset: str, index: int, wait_s: float, first: bool
    ) -> bytes | Later:
        """Return a chunk for a fellow, waiting for it as ``await_chunk`` does."""
        later = await self.await_chunk(asset, index, wait_s, first)
        return await self.read_chunk(asset, index) if later is None else later

    async def verify(self, asset: str, first: int, count: int) -> tuple[int, int, int]:
        """Read held chunks again, from ``first`` on at most ``count``, from the disk itself.

        Returns how many were held, how many of these were damaged (they are not held any more)
        and how many chunks the asset has, 0 when nothing of it is here.
        """
        files = self._files.get(asset)
        if files is None:
            return 0, 0, 0
        await self.in_thread(files.leave_memory, first, count)
        checked = damaged = 0
        for index in range(first, min(first + count, files.manifest.chunks)):
            if not files.have[index]:
                continue
            checked += 1
            try:
                await self.in_thread(files.read, index)
            except ChunkUnavailable as exc:
                damaged += 1
                log.error("chunk damaged on disk", asset=asset, error=exc)
        for tally in self._tallies.values() if damaged else ():
            if tally.asset == asset and tally.state == "verified":
                self._save(tally, "absent")
        return checked, damaged, files.manifest.chunks

    def size_of(self, asset: str) -> int:
        """Return the bytes of an asset that is here, 0 when it is not."""
        files = self._files.get(asset)
        return files.manifest.size if files else 0

    def missing(self, asset: str, chunks: Sequence[int]) -> list[int]:
        """Return those of some chunks of an asset that are not held."""
        files = self._files.get(asset)
        return [index for index in chunks if files is None or not files.have[index]]

    def drop(self, asset: str) -> int:
        """Let a whole asset go; return its bytes, 0 when it is not here or on its way."""
        files = self._files.get(asset)
        if files is None or not files.have.full or asset in self._plans:
            return 0
        del self._files[asset]
        files.remove()
        for tally in list(self._tallies.values()):
            if tally.asset == asset and plain(tally.name) == tally.name:
                self._save(tally, "absent")
            elif tally.asset == asset:
                self._forget(tally)
        log.info("asset let go", asset=asset, bytes=files.manifest.size)
        return files.manifest.size

    def settle(self, name: str, asset: str) -> None:
        """Let a name stand for this content: what it stood for before is kept aside."""
        before = self._tallies.get(name)
        if before is not None and before.asset not in (None, asset):
            self.set_aside(name)
        fresh = self._tallies.get(next_of(name))
        if fresh is not None and fresh.asset == asset:
            if name in self._tallies and self._tallies[name].asset == asset:
                self._forget(fresh)
            else:
                self._rename(fresh, name)

    def set_aside(self, name: str) -> None:
        """Free a name from what is whole under it; the content stays until room is needed."""
        tally = self._tallies.get(name)
        if tally is None or not tally.asset or not self.holds(tally.asset):
            return
        if any(t.asset == tally.asset for t in self._tallies.values() if t is not tally):
            self._forget(tally)
        else:
            self._rename(tally, aside(plain(name), tally.asset))

    def _forget(self, tally: Tally) -> None:
        del self._tallies[tally.name]
        self._ledger.drop_tally(tally.name)
        self.changed()

    def _rename(self, tally: Tally, name: str) -> None:
        self._ledger.drop_tally(tally.name)
        del self._tallies[tally.name]
        tally.name = name
        self._tallies[name] = tally
        self._save(tally)

    def want_first(self, asset: str, index: int) -> None:
        """A reader waits for this chunk."""
        if (plan := self._plans.get(asset)) is not None:
            plan.on_wanted([index])

    async def in_thread(self, function: Callable[[*Ts], T], *args: *Ts) -> T:
        """Run a blocking call in one of the cache's few worker threads."""
        return await trio.to_thread.run_sync(function, *args, limiter=self._limiter)

    def _tally(self, name: str) -> Tally:
        return self._tallies.setdefault(name, Tally(name))

    def _save(self, tally: Tally, state: str | None = None, error: str | None = None) -> None:
        if state is not None:
            tally.state, tally.error = state, error
        tally.updated_ms = self._clock.now_ms()
        self._ledger.save(tally)
        self.changed()
