"""An NVMe drive: what it can erase, the commands, and its own log of a sanitize.

It knows the admin commands of NVM Express Base Specification 2.0 (Identify 5.17, Format NVM
5.14, Sanitize 5.24, log page 81h 5.16.1.25), sent through ``Admin``. Rules: a status other than
0 is a refusal with its number; the format keeps LBA format, metadata and protection as they
are; a sanitize counts when the log says that *this* one has ended well.
"""

from collections.abc import Callable
from typing import Any, Final, Protocol

from node.ramdisk.drive import BlockDrive
from node.ramdisk.errors import MethodRefused, StepFailed
from node.ramdisk.hardware import (
    FORMAT_CRYPTO,
    FORMAT_USER,
    SANITIZE_BLOCK,
    SANITIZE_CRYPTO,
    WRITE_ZEROES,
    Capabilities,
    Disk,
    Identity,
    Tick,
)

GET_LOG_PAGE: Final = 0x02
IDENTIFY: Final = 0x06
FORMAT_NVM: Final = 0x80
SANITIZE: Final = 0x84
CNS_NAMESPACE: Final = 0
CNS_CONTROLLER: Final = 1
SANITIZE_LOG: Final = 0x81
ALL_NAMESPACES: Final = 0xFFFFFFFF
ACTION: Final = {SANITIZE_BLOCK: 2, SANITIZE_CRYPTO: 4}
SETTING: Final = {FORMAT_USER: 1, FORMAT_CRYPTO: 2}
POLL_S: Final = 1.0
LOG_TRIES: Final = 60
"""Looks at a log that does not show our sanitize yet, a second each."""


class Admin(Protocol):
    """One admin command; returns the NVMe status field (0: success), raises OSError."""

    def __call__(
        self,
        opcode: int,
        namespace: int,
        cdw10: int,
        read_bytes: int = 0,
        tick: Callable[[], None] | None = None,
    ) -> tuple[int, bytes]:
        """``tick`` given: it may take hours."""
        ...


class NvmeDrive:
    """One namespace of a controller."""

    def __init__(
        self,
        disk: Disk,
        admin: Admin,
        namespace: int,
        reset: Callable[[], None],
        sleep: Callable[[float], None],
    ) -> None:
        self._disk = disk
        self._block = BlockDrive(disk)
        self._admin = admin
        self._namespace = namespace
        self._reset = reset
        self._sleep = sleep

    def identify(self) -> Identity:
        """Return model and serial of the controller, size of the namespace."""
        controller = self._identify(CNS_CONTROLLER, 0)
        namespace = self._identify(CNS_NAMESPACE, self._namespace)
        shift = namespace[128 + 4 * _lba_format(namespace[26]) + 2]
        if not 9 <= shift <= 16:
            raise StepFailed(f"{self._disk.name} names sectors of 2^{shift} bytes")
        size = int.from_bytes(namespace[0:8], "little") << shift
        return Identity(_text(controller[24:64]), _text(controller[4:24]), size)

    def capabilities(self) -> Capabilities:
        """Return what OACS, FNA, SANICAP and ONCS name, and overwrite."""
        try:
            controller = self._identify(CNS_CONTROLLER, 0)
        except (OSError, StepFailed):
            return self._block.capabilities()
        can = int.from_bytes(controller[328:332], "little")
        found = [SANITIZE_CRYPTO] if can & 1 else []
        found += [SANITIZE_BLOCK] if can & 2 else []
        if controller[256] & 2:
            found += [FORMAT_CRYPTO] if controller[524] & 4 else []
            found.append(FORMAT_USER)
        zeroes = controller[520] & 8
        found += [m for m in self._block.block_methods() if m != WRITE_ZEROES or zeroes]
        return Capabilities(tuple(found))

    def erase(self, method: str, tick: Tick) -> dict[str, Any]:
        """Format or sanitize; else what any block device can."""
        if method in SETTING:
            return self._format(method, tick)
        if method in ACTION:
            return self._sanitize(method, tick)
        return self._block.erase(method, tick)

    def settle(self) -> None:
        """Flush, drop the kernel's pages, reset the controller."""
        self._block.settle()
        self._reset()

    def _format(self, method: str, tick: Tick) -> dict[str, Any]:
        namespace = self._identify(CNS_NAMESPACE, self._namespace)
        flbas, dps = namespace[26], namespace[29]
        cdw10 = flbas & 0xF | (flbas >> 4 & 1) << 4 | (flbas >> 5 & 3) << 12
        cdw10 |= (dps & 7) << 5 | (dps >> 3 & 1) << 8 | SETTING[method] << 9
        self._command(FORMAT_NVM, self._namespace, cdw10, method, lambda: tick(0.0))
        return {"cdw10": cdw10, "status": 0}

    def _sanitize(self, method: str, tick: Tick) -> dict[str, Any]:
        self._wait_sanitized(None, tick)  # one that another boot has begun
        cdw10 = ACTION[method]
        self._command(SANITIZE, 0, cdw10, method, lambda: tick(0.0))
        state, progress = self._wait_sanitized(cdw10, tick)
        return {"cdw10": cdw10, "log_status": state, "log_progress": progress}

    def _wait_sanitized(self, cdw10: int | None, tick: Tick) -> tuple[int, int]:
        """Follow the sanitize log to its end. ``cdw10`` None: only wait for what runs."""
        strange = 0
        while True:
            status, log = self._admin(
                GET_LOG_PAGE, ALL_NAMESPACES, SANITIZE_LOG | 127 << 16, 512
            )
            if status:
                raise StepFailed(
                    f"{self._disk.name} does not show its sanitize log (status {status:#x})"
                )
            progress = int.from_bytes(log[0:2], "little")
            state = int.from_bytes(log[2:4], "little") & 7
            ours = cdw10 is not None and int.from_bytes(log[4:8], "little") == cdw10
            if state == 2:
                tick(progress / 65536)
            elif cdw10 is None:
                return state, progress
            elif state == 3:
                raise StepFailed(f"{self._disk.name} says that its sanitize failed (log 81h)")
            elif ours and state in (1, 4):
                return state, progress
            else:
                strange += 1
                if strange >= LOG_TRIES:
                    raise StepFailed(
                        f"{self._disk.name} took the sanitize, but its log does not name it"
                    )
                tick(0.0)
            self._sleep(POLL_S)

    def _identify(self, cns: int, namespace: int) -> bytes:
        status, data = self._admin(IDENTIFY, namespace, cns, 4096)
        if status or len(data) != 4096:
            raise StepFailed(f"{self._disk.name} does not identify itself (status {status:#x})")
        return data

    def _command(
        self, opcode: int, namespace: int, cdw10: int, method: str, tick: Callable[[], None]
    ) -> None:
        status, _ = self._admin(opcode, namespace, cdw10, 0, tick)
        if status:
            raise MethodRefused(f"{self._disk.name} refuses {method}: NVMe status {status:#x}")


def _lba_format(flbas: int) -> int:
    return flbas & 0xF | (flbas >> 5 & 3) << 4


def _text(raw: bytes) -> str:
    text = raw.split(b"\0")[0].decode("ascii", "replace")
    return "".join(char for char in text if char.isprintable()).strip()
