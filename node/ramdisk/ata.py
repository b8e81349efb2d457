"""An ATA drive: its security feature set, and a secure erase that cannot be claimed falsely.

It knows commands of ACS-4 (IDENTIFY DEVICE 7.12, SECURITY * 7.37 to 7.42) sent through
``Pass``. Rules: the outcome of each command is the drive's own status register, never an exit
code; after the erase the drive must say that its password is gone. Our password is a fixed
word: a drive that lost its power in the middle stays locked by it, and the next boot opens it.
"""

import contextlib
from collections.abc import Callable
from typing import Any, Final, Protocol

from node.ramdisk.drive import BlockDrive
from node.ramdisk.errors import MethodRefused, StepFailed
from node.ramdisk.hardware import (
    ATA_ENHANCED,
    ATA_NORMAL,
    Capabilities,
    Disk,
    Identity,
    Tick,
)

IDENTIFY_DEVICE: Final = 0xEC
SET_PASSWORD: Final = 0xF1
UNLOCK: Final = 0xF2
ERASE_PREPARE: Final = 0xF3
ERASE_UNIT: Final = 0xF4
DISABLE_PASSWORD: Final = 0xF6
PASSWORD: Final = b"rackmesh"
SUPPORTED, ENABLED, LOCKED, FROZEN, ENHANCED = 1, 2, 4, 8, 32
"""Bits of word 128."""
ERASE_S: Final = 24 * 3600
"""Longest wait for the erase itself; the drive's own estimate is often wrong."""
SHORT_S: Final = 60


class Pass(Protocol):
    """One ATA command; returns (status register, error register, data), raises OSError."""

    def __call__(
        self,
        command: int,
        timeout_s: int,
        read: bool = False,
        data: bytes = b"",
        tick: Callable[[], None] | None = None,
    ) -> tuple[int, int, bytes]:
        """``read``: 512 bytes come back; ``data``: 512 bytes go; ``tick``: it may be slow."""
        ...


class AtaDrive:
    """One drive behind libata."""

    def __init__(self, disk: Disk, pass_through: Pass) -> None:
        self._disk = disk
        self._block = BlockDrive(disk)
        self._pass = pass_through
        self._unlock_tried = False

    def identify(self) -> Identity:
        """Return model, serial and size out of IDENTIFY DEVICE."""
        words = self._identify()
        sectors = int.from_bytes(words[200:208], "little")
        sectors = sectors or int.from_bytes(words[120:124], "little")
        return Identity(
            _text(words[54:94]), _text(words[20:40]), sectors * self._disk.sector_bytes
        )

    def capabilities(self) -> Capabilities:
        """Return what word 128 names; a lock of our own from an interrupted erase is opened."""
        try:
            security = self._security()
            if security & LOCKED and not self._unlock_tried:
                self._unlock_tried = True
                with contextlib.suppress(OSError, StepFailed):
                    self._ask(UNLOCK, _password(0))
                    self._ask(DISABLE_PASSWORD, _password(0))
                security = self._security()
        except (OSError, StepFailed):
            return self._block.capabilities()
        found = list(self._block.block_methods())
        if security & SUPPORTED:
            found.insert(0, ATA_NORMAL)
            if security & ENHANCED:
                found.insert(0, ATA_ENHANCED)
        return Capabilities(tuple(found), bool(security & FROZEN), bool(security & LOCKED))

    def erase(self, method: str, tick: Tick) -> dict[str, Any]:
        """Set our password and erase by it; else what any block device can."""
        if method not in (ATA_ENHANCED, ATA_NORMAL):
            return self._block.erase(method, tick)
        before, name = self._security(), self._disk.name
        if before & FROZEN:
            raise MethodRefused(f"{name} is frozen by the firmware")
        if before & (LOCKED | ENABLED):
            raise MethodRefused(f"{name} has an ATA password that is not ours")
        self._ask(SET_PASSWORD, _password(0))
        if not self._security() & ENABLED:
            raise MethodRefused(f"{name} took a password but does not have one")
        began = False
        try:
            self._ask(ERASE_PREPARE)
            began = True
            flags = 2 if method == ATA_ENHANCED else 0
            self._ask(ERASE_UNIT, _password(flags), ERASE_S, lambda: tick(0.0))
        except (OSError, StepFailed) as exc:
            with contextlib.suppress(OSError, StepFailed):
                self._ask(DISABLE_PASSWORD, _password(0))
            kind = MethodRefused if not began or isinstance(exc, MethodRefused) else StepFailed
            raise kind(f"{name} did not do its secure erase: {exc}") from exc
        after = self._security()
        if after & (ENABLED | LOCKED):
            raise StepFailed(
                f"{name} says that its secure erase is done but still has our password"
            )
        return {"security_before": before, "security_after": after}

    def settle(self) -> None:
        """Flush and drop the kernel's pages; libata has no reset for us to ask for."""
        self._block.settle()

    def _security(self) -> int:
        return int.from_bytes(self._identify()[256:258], "little")

    def _identify(self) -> bytes:
        status, error, data = self._pass(IDENTIFY_DEVICE, SHORT_S, True)
        if status & 0x21 or len(data) != 512:
            raise StepFailed(f"{self._disk.name} does not identify itself (error {error:#x})")
        return data

    def _ask(
        self,
        command: int,
        data: bytes = b"",
        timeout_s: int = SHORT_S,
        tick: Callable[[], None] | None = None,
    ) -> None:
        status, error, _ = self._pass(command, timeout_s, False, data, tick)
        if status & 0x21:
            raise MethodRefused(
                f"{self._disk.name} aborts the ATA command {command:#x}"
                f" (status {status:#x}, error {error:#x})"
            )


def _password(flags: int) -> bytes:
    """Return the 512 bytes with our user password; bit 1 of word 0: enhanced erase."""
    return (flags.to_bytes(2, "little") + PASSWORD.ljust(32, b"\0")).ljust(512, b"\0")


def _text(raw: bytes) -> str:
    """ATA strings have the two bytes of each word swapped."""
    swapped = bytes(raw[index ^ 1] for index in range(len(raw)))
    text = swapped.split(b"\0")[0].decode("ascii", "replace")
    return "".join(char for char in text if char.isprintable()).strip()
