"""The disk of a simulated server as the agent's erase meets it: honest, frozen, or a liar.

It knows a sparse file. Rule: a lying kind answers "done" exactly as an honest one would; what
it left on the disk is the only way to tell. The kinds come from what real products met
(README "Proof of erasure"): ``scripts/bench/erase`` tries them all.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from node.ramdisk.disk import DiskHandle
from node.ramdisk.drive import BlockDrive
from node.ramdisk.errors import MethodRefused
from node.ramdisk.hardware import (
    ATA_ENHANCED,
    ATA_NORMAL,
    FORMAT_CRYPTO,
    FORMAT_USER,
    OVERWRITE,
    SANITIZE_BLOCK,
    SANITIZE_CRYPTO,
    WRITE_ZEROES,
    Capabilities,
    Disk,
    Identity,
    Tick,
)

MIB: Final = 1 << 20
NVME: Final = (
    SANITIZE_CRYPTO, SANITIZE_BLOCK, FORMAT_CRYPTO, FORMAT_USER, WRITE_ZEROES, OVERWRITE,
)  # fmt: skip
ATA: Final = (ATA_ENHANCED, ATA_NORMAL, OVERWRITE)
HONEST: Final[Mapping[str, tuple[str, ...]]] = {
    "block": (OVERWRITE,),
    "nvme": NVME,
    "ata": ATA,
    "ata-frozen": ATA,
}
LIARS: Final[Mapping[str, tuple[str, ...]]] = {
    "feature-missing": (FORMAT_CRYPTO, OVERWRITE),
    "discard-keeps": (WRITE_ZEROES, OVERWRITE),
    "format-lies": (FORMAT_USER, OVERWRITE),
    "half-erased": (SANITIZE_BLOCK, OVERWRITE),
    "cache-restores": (FORMAT_USER, OVERWRITE),
    "other-disk-erased": (ATA_ENHANCED, OVERWRITE),
    "other-disk-answers": (FORMAT_USER, OVERWRITE),
    "skips-the-marked": (SANITIZE_CRYPTO, OVERWRITE),
}
KINDS: Final = (*HONEST, *LIARS)


class SimulatedDrive:
    """One disk of a kind."""

    def __init__(self, disk: Disk, kind: str = "block", *, thawed: bool = False) -> None:
        """``thawed``: the server was switched off and on with nothing in between."""
        assert kind in KINDS
        self._disk = disk
        self._block = BlockDrive(disk)
        self._kind = kind
        self._thawed = thawed
        self._moved = False
        self._kept = Path(disk.path + ".kept")

    def identify(self) -> Identity:
        """Return what the disk says; one kind is another disk after its erase."""
        found = self._block.identify()
        return Identity(found.model, "ANOTHER", found.bytes) if self._moved else found

    def capabilities(self) -> Capabilities:
        """Return what the kind claims."""
        frozen = self._kind == "ata-frozen" and not self._thawed
        return Capabilities({**HONEST, **LIARS}[self._kind], frozen=frozen)

    def erase(self, method: str, tick: Tick) -> dict[str, Any]:
        """Erase, or claim to."""
        if method not in self.capabilities().methods:
            raise MethodRefused(f"{self._disk.name} does not know the method {method}")
        if self.capabilities().frozen:
            raise MethodRefused(f"{self._disk.name} is frozen by the firmware")
        size = self._disk.bytes
        match self._kind:
            case "feature-missing" | "discard-keeps" | "other-disk-erased":
                pass
            case "format-lies":
                self._zero(0, MIB)
                self._zero(size - MIB, size)
            case "half-erased":
                self._zero(0, size // 2)
            case "cache-restores":
                self._keep()
                self._zero(0, size)
            case "other-disk-answers":
                self._moved = True
                self._zero(0, size)
            case "skips-the-marked":  # what was written last is still in a buffer, and lands
                with DiskHandle(self._disk.path) as handle:
                    last = handle.read(size - 8192, 8192)
                self._zero(0, size)
                with DiskHandle(self._disk.path) as handle:
                    handle.write(size - 8192, last)
            case _:
                self._zero(0, size)
        tick(1.0)
        return {}

    def settle(self) -> None:
        """Let go of caches: one kind has what it erased back then."""
        if self._kept.exists():
            _copy(self._kept, Path(self._disk.path))
            self._kept.unlink()
        self._block.settle()

    def _zero(self, begin: int, end: int) -> None:
        with DiskHandle(self._disk.path) as handle:
            for first, last in handle.data_extents():
                first, last = max(first, begin), min(last, end)
                if first < last:
                    for _ in handle.write_zeros(first, last):
                        pass
            handle.sync()

    def _keep(self) -> None:
        with self._kept.open("wb") as file:
            os.fchmod(file.fileno(), 0o600)
            file.truncate(self._disk.bytes)
        _copy(Path(self._disk.path), self._kept)


def _copy(source: Path, target: Path) -> None:
    """Copy what a sparse file holds."""
    with DiskHandle(str(source)) as old, DiskHandle(str(target)) as new:
        for begin, end in old.data_extents():
            offset = begin
            for piece in old.blocks(begin, end - begin):
                new.write(offset, piece)
                offset += len(piece)
        new.sync()
