"""The port between the agent and the machine it runs on.

The agent knows nothing else of its machine: a real server (``real.py``) and a simulated one
give it the same few calls. Rules: no call raises for odd hardware, what cannot be read is left
out; a drive is asked itself, never a name that may have moved, and nothing that it says about
an erase is believed before ``erase.py`` has looked.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol

SANITIZE_CRYPTO: Final = "nvme-sanitize-crypto"
SANITIZE_BLOCK: Final = "nvme-sanitize-block"
FORMAT_CRYPTO: Final = "nvme-format-crypto"
FORMAT_USER: Final = "nvme-format-user-data"
ATA_ENHANCED: Final = "ata-enhanced"
ATA_NORMAL: Final = "ata-normal"
WRITE_ZEROES: Final = "write-zeroes"
OVERWRITE: Final = "overwrite"

Tick = Callable[[float], None]
"""Told how much of the work is done, 0.0 to 1.0, at least once a second; may raise."""


@dataclass(frozen=True, slots=True)
class Disk:
    """One disk of the machine as the kernel shows it."""

    name: str
    """Kernel name: ``vda``, ``nvme0n1``; of a simulated disk any short word."""
    path: str
    """What to open: a block device, or a regular file that stands for one."""
    serial: str
    """As the disk reports it; empty when it reports none."""
    bytes: int
    sector_bytes: int = 512
    """Logical sector; the unit of GPT and FAT on it."""
    rotational: bool = False
    model: str = ""
    bus: str = ""
    """``nvme``, ``ata``, ``virtio``, ...: which commands it understands."""


@dataclass(frozen=True, slots=True)
class Identity:
    """What a drive says it is."""

    model: str
    serial: str
    bytes: int


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a drive says it can do; the ``erase`` field of a disk in an inventory."""

    methods: tuple[str, ...]
    frozen: bool = False
    """ATA security frozen by the firmware: it refuses to be erased until a power cycle."""
    locked: bool = False
    """ATA security locked by a password that we do not know."""

    def dump(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {"methods": list(self.methods), "frozen": self.frozen, "locked": self.locked}


class Drive(Protocol):
    """One drive. All calls may block; ``erase`` ticks at least once a second."""

    def identify(self) -> Identity:
        """Return what the drive says it is now; raises StepFailed."""
        ...

    def capabilities(self) -> Capabilities:
        """Return what it can do; what cannot be asked is left out."""
        ...

    def erase(self, method: str, tick: Tick) -> dict[str, Any]:
        """Erase by a method other than overwrite; return what the drive said of it.

        Raises MethodRefused when it refuses, StepFailed when it failed in the middle.
        """
        ...

    def settle(self) -> None:
        """Let go of every cache on the way, the drive's own too where it can be told."""
        ...


class Hardware(Protocol):
    """What the agent needs of a machine. All calls are plain and may block briefly."""

    boot_mac: str
    """MAC of the interface that booted, lower case with colons."""

    def disks(self) -> list[Disk]:
        """Return the writable, fixed disks in the order of their kernel names."""
        ...

    def drive(self, disk: Disk) -> Drive:
        """Return the port to one of the disks, to erase it."""
        ...

    def inventory(self) -> dict[str, Any]:
        """Describe the machine in JSON types: ``inventory.py`` has the shape."""
        ...

    def reboot(self) -> None:
        """Restart the machine; does not return on a real one."""
        ...

    def poweroff(self) -> None:
        """Switch the machine off; does not return on a real one."""
        ...

    def now(self) -> float:
        """Return monotonic seconds."""
        ...

    def sleep(self, seconds: float) -> None:
        """Wait; a simulated machine may cut it short when its power goes."""
        ...

    def say(self, text: str) -> None:
        """Print one line for people: on a real machine's console, in a simulated one's log."""
        ...
