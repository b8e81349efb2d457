"""The steps that a node may order: from their JSON arguments to work on a disk and evidence.

It knows which disk is meant and what the arguments look like; how bytes get on a disk is the
business of ``image.py``, ``cidata.py`` and ``wipe.py``. Rule: each step looks at what is there
first and may be begun again at any time.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from node.ramdisk.errors import StepFailed
from node.ramdisk.hardware import Disk, Hardware
from node.ramdisk.progress import Progress


@dataclass(frozen=True, slots=True)
class StepContext:
    """What a step may use."""

    hardware: Hardware
    session: str
    seal_key: X25519PrivateKey
    progress: Progress
    bind_address: str | None


Step = Callable[[StepContext, Mapping[str, Any]], dict[str, Any]]


def choose_disk(hardware: Hardware, wanted: Any) -> Disk:
    """Return the disk meant by ``{"serial": s}`` or ``{"first": true}``; or StepFailed."""
    disks = hardware.disks()
    if not disks:
        raise StepFailed("this machine has no writable fixed disk")
    if isinstance(wanted, dict) and wanted.get("first") is True:
        return disks[0]
    serial = wanted.get("serial") if isinstance(wanted, dict) else None
    if not isinstance(serial, str) or not serial:
        raise StepFailed(f'{wanted!r} names no disk: {{"serial": ...}} or {{"first": true}}')
    found = [disk for disk in disks if disk.serial == serial]
    if len(found) != 1:
        have = ", ".join(f"{disk.name} {disk.serial or 'without serial'}" for disk in disks)
        count = "no" if not found else "more than one"
        raise StepFailed(f"{count} writable disk has the serial {serial!r}; there are: {have}")
    return found[0]


STEPS: Final[dict[str, Step]] = {}
"""Name on the wire -> what does it; filled below."""
