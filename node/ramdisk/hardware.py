"""The port between the agent and the machine it runs on.

The agent knows nothing else of its machine: a real server (``real.py``) and a simulated one
give it the same few calls. Rule: no call raises for odd hardware; what cannot be read is left
out.
"""

from dataclasses import dataclass
from typing import Any, Protocol


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


class Hardware(Protocol):
    """What the agent needs of a machine. All calls are plain and may block briefly."""

    boot_mac: str
    """MAC of the interface that booted, lower case with colons."""

    def disks(self) -> list[Disk]:
        """Return the writable, fixed disks in the order of their kernel names."""
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
