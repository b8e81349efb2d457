"""The cache: how content gets here, from an origin, from other nodes, or by upload.

It knows neither the mesh nor who wants what. Rules: one transfer per name at a time; whatever
ends a transfer, the verified bytes stay and the next one goes on there; the disk keeps a
reserve.
"""

import errno
import shutil
from collections.abc import AsyncIterable, Awaitable, Callable, Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import trio

from cache.errors import CacheError, ContentMismatch, ImageRefused, NoHolder, NoSpace
from cache.fetching import Fetching, PeerSource
from cache.files import AssetFiles
from cache.intake import Intake
from cache.ledger import Tally
from cache.making import (
    WORK_SUFFIX,
    check_converter,
    hash_file,
    make_raw,
    virtual_bytes,
    wrong_kind,
)
from cache.origin import read_origin
from cache.proto.manifest import CHUNK_BYTES, Manifest, parse_manifest
from cache.proto.origin import Answer
from cache.shelf import Shelf
from mesh.errors import StoreBroken
from mesh.host.clock import Clock
from mesh.host.log import get_log
from mesh.proto.content import FILE, HEAD_BYTES, QCOW2

RESERVE_BYTES: Final = 64 << 20
"""Free disk that assets never take: the state database needs room to breathe."""
MANIFEST_S: Final = 30.0
PARTIAL_CHUNKS: Final = 64
SYNC_S: Final = 30.0
"""How long a transfer that ends may take to make its bytes durable."""
log = get_log("cache")


@dataclass(frozen=True, slots=True)
class Growth:
    """More of what a node reads from an origin; ``size`` of the whole, where it is known."""

    url: str
    validator: str | None
    size: int | None
    piece: bytes
    """Bytes from where they were asked for; empty: there are no more yet."""


class Cache(Shelf):
    """The shelf and the transfers onto it."""

    def __init__(self, folder: Path, quota_bytes: int, clock: Clock) -> None:
        super().__init__(folder, quota_bytes, clock)
        self._reading: dict[str, tuple[str, Answer]] = {}
        """What is read from an origin now: name -> URL and its judged answer."""
        self._grown = trio.Event()
        self._mirrored: set[str] = set()
        """Names of which an unfinished transfer came from another node of our site."""

    async def add_stream(
        self,
        name: str,
        pieces: AsyncIterable[bytes],
        sha256: str | None = None,
        kind: str = FILE,
        made_sha256: str | None = None,
    ) -> Manifest:
        """Take in an upload; raises ContentMismatch, NoConverter, NoSpace.

        ``sha256``: what the file as it comes must hash to; ``kind``: what it must be
        (mesh/proto/content.py), qcow2 is converted; ``made_sha256``: what must come out then.
        """
        tally = self._tally(name)
        with self._transfer(tally), self._intake(name) as intake:
            check_converter(kind)
            await self.in_thread(intake.restart)
            looked = False
            async for piece in pieces:
                if intake.unsynced:
                    self._make_room(0)
                await self.in_thread(intake.append, piece)
                looked = looked or await self._look(name, intake, kind)
            return await self._seal(tally, intake, sha256, kind, made_sha256)

    async def resolve(
        self,
        name: str,
        url: str,
        sha256: str | None = None,
        kind: str = FILE,
        made_sha256: str | None = None,
    ) -> Manifest:
        """Fetch what ``url`` is from its origin, going on where an earlier try stopped.

        One try; raises OriginError, ContentMismatch, NoConverter or NoSpace with what is
        verified kept. ``sha256``, ``kind`` and ``made_sha256`` as in ``add_stream``.
        """
        tally = self._tally(name)
        if tally.asset and self.holds(tally.asset):
            manifest = self._files[tally.asset].manifest
            if sha256 is None or (tally.source_sha256 or manifest.sha256) == sha256:
                return manifest
        with self._transfer(tally), self._intake(name) as intake:
            check_converter(kind)
            validator = await self._go_on(name, url, intake)
            if name in self._mirrored:
                self._mirrored.discard(name)
                tally.peer_bytes += intake.length
                tally.near_bytes += intake.length
            looked = False
            self._save(tally, "fetching")

            def started(answer: Answer) -> None:
                nonlocal validator
                validator = answer.validator
                self._intakes[name] = (intake, answer.size)
                self._reading[name] = (url, answer)
                self._make_room((answer.size or 0) - intake.length)

            async def progress(count: int) -> None:
                nonlocal looked
                tally.origin_bytes += count
                await self.pay(count)
                self._tell_followers()
                looked = looked or await self._look(name, intake, kind)
                if intake.unsynced:
                    await self._mark(name, url, validator, intake)
                    self._make_room(0)
                    self._save(tally)

            try:
                await read_origin(
                    url, intake, validator, declared=sha256 is not None, started=started,
                    progress=progress, limiter=self._limiter,
                )  # fmt: skip
            finally:
                self._reading.pop(name, None)
                self._tell_followers()
                with trio.move_on_after(SYNC_S, shield=True):
                    await self._mark(name, url, validator, intake)
            return await self._seal(tally, intake, sha256, kind, made_sha256)

    def _tell_followers(self) -> None:
        self._grown.set()
        self._grown = trio.Event()

    async def growth(self, name: str, offset: int, wait_s: float) -> Growth | None:
        """Return more of what is read from an origin here, once there is; None: nothing is."""
        with trio.move_on_after(wait_s):
            while name in self._reading and self._intakes[name][0].length <= offset:
                await self._grown.wait()
        if name not in self._reading:
            return None
        url, answer = self._reading[name]
        intake, _ = self._intakes[name]
        piece = await self.in_thread(intake.piece, offset, CHUNK_BYTES)
        return Growth(url, answer.validator, answer.size, piece)

    async def mirror(self, name: str, more: Callable[[int], Awaitable[Growth | None]]) -> int:
        """Keep up with another node that reads an origin, so that ``resolve`` goes on there.

        ``more(offset)`` is its ``growth``. Returns the bytes taken when it reads no more.
        """
        first = await more(0)
        if first is None:
            return 0
        url, validator, took = first.url, first.validator, 0
        self._mirrored.add(name)
        with self._intake(name) as intake:
            if await self._go_on(name, url, intake) != validator:
                await self.in_thread(intake.restart)
            self._make_room((first.size or 0) - intake.length)
            try:
                while (growth := await more(intake.length)) is not None:
                    if (growth.url, growth.validator) != (url, validator):
                        break
                    await self.in_thread(intake.append, growth.piece)
                    took += len(growth.piece)
                    if intake.unsynced:
                        await self._mark(name, url, validator, intake)
                        self._make_room(0)
            except OSError as exc:
                raise NoSpace(f"the disk under {self._folder} says: {exc.strerror}") from exc
            finally:
                with trio.move_on_after(SYNC_S, shield=True):
                    await self._mark(name, url, validator, intake)
        return took

    async def fetch(
        self, name: str, asset: str, peers: PeerSource, sha256: str | None = None
    ) -> Manifest:
        """Fetch an asset chunk by chunk from other nodes.

        ``sha256``: what its manifest must say of the whole. Raises NoHolder, NoSpace,
        ContentMismatch.
        """
        tally = self._tally(name)
        with self._transfer(tally):
            tally.asset = asset
            self._save(tally, "fetching")
            files = self._files.get(asset) or await self._learn(asset, peers)
            said = files.manifest.sha256
            if sha256 is not None and said != sha256:
                raise ContentMismatch(
                    f"{asset} says sha256 {said}, {name} is signed as {sha256}"
                )
            if not files.have.full:
                await self._use_partial(tally, files)
                self._make_room(
                    (files.manifest.chunks - files.have.have) * files.manifest.chunk_bytes
                )
                await self._fetch_chunks(tally, files, peers)
            self._save(tally, "verified")
            return files.manifest

    async def carry(
        self, name: str, manifest: Manifest, chunks: Iterable[int], read: Callable[[int], bytes]
    ) -> None:
        """Take in chunks that ``read`` gives, in a thread, of what a signed name stands for.

        ``read`` verifies and may raise any CacheError. What is here already is not read.
        """
        asset = manifest.asset
        self.settle(name, asset)
        tally = self._tally(name)
        with self._transfer(tally):
            if tally.asset != asset:
                tally.asset = asset
                self._save(tally, "fetching")
            if asset not in self._files:
                root = self._folder / "assets"
                self._files[asset] = await self.in_thread(AssetFiles.create, root, manifest)
            for index in chunks:
                files = self._files.get(asset)  # another transfer may have brought it whole
                if files is None:
                    raise NoSpace(f"{name} was let go to make room for others")
                if not files.have[index]:
                    data = await self.in_thread(read, index)
                    await self.in_thread(files.store, index, data)
            if asset in self._files:
                await self.in_thread(self._files[asset].sync)
            self._save(tally, "verified" if self.holds(asset) else "fetching")

    def check_room(self, needed: int) -> None:
        """Refuse what does not fit before its first byte; raises NoSpace."""
        self._make_room(needed)

    # -- parts of an origin transfer ---------------------------------------------------------

    @contextmanager
    def _transfer(self, tally: Tally) -> Generator[None]:
        """Record how a transfer ends; the disk being full is one sentence."""
        try:
            yield
        except OSError as exc:
            if exc.errno == errno.EIO:  # what was written before is not sure any more
                raise StoreBroken(
                    f"the disk under {self._folder} met an input/output error"
                ) from exc
            if exc.errno not in (errno.ENOSPC, errno.EDQUOT):
                self._save(tally, "failed", f"the disk says: {exc.strerror}")
                raise NoSpace(f"the disk under {self._folder} says: {exc.strerror}") from exc
            sentence = f"the disk under {self._folder} is full; free some space there"
            self._save(tally, "failed", sentence)
            raise NoSpace(sentence) from exc
        except CacheError as exc:
            if tally.asset and self.holds(tally.asset):  # it was carried here meanwhile
                self._save(tally, "verified")
            else:
                self._save(tally, "failed", str(exc))
            raise
        except trio.Cancelled:
            self._save(tally, "absent")
            raise

    @contextmanager
    def _intake(self, name: str) -> Generator[Intake]:
        assert name not in self._intakes, f"two transfers of {name}"
        intake = Intake(self._partial(name))
        self._intakes[name] = (intake, None)
        try:
            yield intake
        finally:
            del self._intakes[name]
            intake.close()

    def _partial(self, name: str) -> Path:
        return self._folder / "partial" / name.encode().hex()

    async def _go_on(self, name: str, url: str, intake: Intake) -> str | None:
        """Take up an earlier transfer of the same URL; return its validator."""
        earlier = self._ledger.partial(name)
        if earlier is None or earlier[0] != url:
            await self.in_thread(intake.restart)
            return None
        length = await self.in_thread(intake.resume, earlier[2])
        if length:
            log.info("download goes on", name=name, bytes=length)
        return earlier[1]

    async def _mark(self, name: str, url: str, validator: str | None, intake: Intake) -> None:
        length = await self.in_thread(intake.sync)
        forgotten: OSError | None = None
        try:
            self._ledger.save_partial(name, url, validator, length)
        except OSError as exc:
            forgotten = exc
        if forgotten is not None:  # it must not be taken up under another validator
            await self.in_thread(intake.restart)
            raise forgotten

    async def _look(self, name: str, intake: Intake, kind: str) -> bool:
        """Refuse what cannot be used as soon as that can be told; False: too early."""
        if intake.length < HEAD_BYTES:
            return False
        await self._refuse_other(name, intake, kind)
        if kind == QCOW2:
            self._make_room(await self._virtual_bytes(name, intake, whole=False))
        return True

    async def _virtual_bytes(self, name: str, intake: Intake, whole: bool) -> int:
        try:
            return await self.in_thread(virtual_bytes, intake.path, whole)
        except ImageRefused as exc:
            refused = exc
        await self.in_thread(intake.restart)
        self._ledger.drop_partial(name)
        raise ImageRefused(f"{name} is refused: {refused}") from refused

    async def _refuse_other(self, name: str, intake: Intake, kind: str) -> None:
        wrong = await self.in_thread(wrong_kind, intake.path, kind)
        if wrong is not None:
            await self.in_thread(intake.restart)
            self._ledger.drop_partial(name)
            raise ContentMismatch(f"{name} {wrong}")

    async def _seal(
        self, tally: Tally, intake: Intake, sha256: str | None, kind: str, made: str | None
    ) -> Manifest:
        manifest = await self.in_thread(intake.finish)
        self._ledger.drop_partial(tally.name)
        if sha256 is not None and manifest.sha256 != sha256.lower():
            await self.in_thread(intake.restart)
            raise ContentMismatch(
                f"{tally.name} hashes to {manifest.sha256}, declared was {sha256.lower()}"
            )
        await self._refuse_other(tally.name, intake, kind)
        source: str | None = None
        if kind == QCOW2:
            source, manifest = manifest.sha256, await self._convert(tally.name, intake, made)
        else:
            await self._adopt(manifest, intake.path)
        tally.asset, tally.source_sha256 = manifest.asset, source
        self._save(tally, "verified")
        log.info("asset complete", name=tally.name, asset=manifest.asset, bytes=manifest.size)
        return manifest

    async def _adopt(self, manifest: Manifest, path: Path) -> None:
        """Take a file whose every byte was just hashed as the asset that it is."""
        old = self._files.get(manifest.asset)
        if old is None or not old.have.full:
            self._files[manifest.asset] = await self.in_thread(
                AssetFiles.adopt, self._folder / "assets", manifest, path
            )
        else:
            path.unlink(missing_ok=True)

    async def _convert(self, name: str, intake: Intake, made: str | None) -> Manifest:
        """Make the raw disk of a qcow2 file and adopt it; the file itself goes."""
        work = intake.path.with_suffix(WORK_SUFFIX)
        size = await self._virtual_bytes(name, intake, whole=True)
        self._make_room(size)
        try:
            began = trio.current_time()
            raw = await make_raw(intake.path, size, work)
            manifest = await hash_file(raw, self._limiter)
            if made is not None and manifest.sha256 != made:
                raise ContentMismatch(
                    f"{name} converts to {manifest.sha256}, it is signed as {made}"
                )
            await self._adopt(manifest, raw)
            log.info("image converted", name=name, bytes=size, s=trio.current_time() - began)
        except ContentMismatch as exc:  # or ImageRefused, which is one
            refused = exc
        else:
            intake.path.unlink(missing_ok=True)
            return manifest
        finally:
            shutil.rmtree(work, ignore_errors=True)
        await self.in_thread(intake.restart)
        if not isinstance(refused, ImageRefused):
            raise refused
        self._make_room(0)  # a disk that ran full is no fault of the image
        raise ImageRefused(f"{name} is refused: {refused}") from refused

    def make_room(self, needed: int) -> int:
        """Let assets go that may go, until ``needed`` bytes more fit; return how many went."""
        gone = 0
        for asset in self.evictable() if self._lacking(needed) else ():
            gone += self.drop(asset)
            if not self._lacking(needed):
                break
        return gone

    def _make_room(self, needed: int) -> None:
        """Refuse early what cannot fit; raises NoSpace."""
        self.make_room(needed)
        lacking = self._lacking(needed)
        if lacking is not None:
            raise NoSpace(lacking)

    def _lacking(self, needed: int) -> str | None:
        """Say why ``needed`` bytes more do not fit, or return None."""
        free = shutil.disk_usage(self._folder).free
        if needed + RESERVE_BYTES > free:
            return (
                f"{needed >> 20} MiB more do not fit: {free >> 20} MiB are free under "
                f"{self._folder} and {RESERVE_BYTES >> 20} MiB stay reserved"
            )
        held = sum(files.manifest.size for files in self._files.values())
        if held + needed > self._quota:
            return (
                f"{needed >> 20} MiB more exceed the cache's quota of {self._quota >> 20} MiB"
            )
        return None

    # -- parts of a fetch from peers ---------------------------------------------------------

    async def _learn(self, asset: str, peers: PeerSource) -> AssetFiles:
        """Get the manifest from any holder."""
        reason = "no node says that it holds it"
        members = await peers.members()
        for node in (*members.sources, *members.fellows):
            if node == members.me:
                continue
            try:
                with trio.fail_after(MANIFEST_S):
                    manifest = parse_manifest(await peers.manifest(node, asset), asset)
            except (CacheError, trio.TooSlowError) as exc:
                reason = str(exc) or f"{node} did not answer"
                log.warning("manifest not had", peer=node, asset=asset, error=reason)
                continue
            self._make_room(manifest.size)
            files = await self.in_thread(AssetFiles.create, self._folder / "assets", manifest)
            self._files[asset] = files
            return files
        raise NoHolder(f"nobody gives the manifest of {asset}: {reason}")

    async def _use_partial(self, tally: Tally, files: AssetFiles) -> None:
        """Take the chunks that an unfinished transfer has left, then let it go."""
        name, before = tally.name, files.have.have
        path = self._partial(name)
        if name in self._intakes or not path.exists():
            return
        self._ledger.drop_partial(name)
        missing = list(files.have.missing())
        for at in range(0, len(missing), PARTIAL_CHUNKS):
            if not await self.in_thread(files.take, path, missing[at : at + PARTIAL_CHUNKS]):
                break
        path.unlink(missing_ok=True)
        taken = files.have.have - before
        if name in self._mirrored and taken:  # the last chunk may be a short one
            last = files.manifest.chunks - 1
            size = taken * files.manifest.chunk_bytes
            if last in missing and files.have[last]:
                size -= files.manifest.chunk_bytes - files.manifest.chunk_size(last)
            tally.peer_bytes += size
            tally.near_bytes += size
        self._mirrored.discard(name)

    async def _fetch_chunks(self, tally: Tally, files: AssetFiles, peers: PeerSource) -> None:
        fetching = Fetching(self, tally, files, peers, self._save)
        self._plans[files.manifest.asset] = fetching.plan
        try:
            await fetching.run()
        finally:
            del self._plans[files.manifest.asset]
            with trio.move_on_after(SYNC_S, shield=True):
                await self.in_thread(files.sync)
