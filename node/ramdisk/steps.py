"""The steps that a node may order: from their JSON arguments to work on a disk and evidence.

It knows which disk is meant and what the arguments look like; how bytes get on a disk is the
business of ``image.py``, ``cidata.py``, ``wipe.py`` and ``erase.py``. Rule: each step looks at
what is there first and may be begun again at any time.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from node.ramdisk.cidata import open_first_boot, write_cidata
from node.ramdisk.disk import DiskHandle
from node.ramdisk.erase import Wish, erase_disk
from node.ramdisk.errors import StepFailed
from node.ramdisk.fetch import HttpSource
from node.ramdisk.hardware import Disk, Hardware
from node.ramdisk.image import write_image
from node.ramdisk.progress import Progress
from node.ramdisk.wipe import wipe_disk


@dataclass(frozen=True, slots=True)
class StepContext:
    """What a step may use."""

    hardware: Hardware
    session: str
    seal_key: X25519PrivateKey
    progress: Progress
    bind_address: str | None


Step = Callable[[StepContext, Mapping[str, Any]], dict[str, Any]]


DISK_WAIT_S: Final = 15.0
"""How long a disk may take to show itself: controllers are slow to look for theirs."""


def wait_disk(context: StepContext, wanted: Any) -> Disk:
    """Return the disk that is meant, waiting for it to appear; or StepFailed."""
    limit = context.hardware.now() + DISK_WAIT_S
    while True:
        try:
            return choose_disk(context.hardware, wanted)
        except StepFailed:
            if context.hardware.now() >= limit:
                raise
        context.progress.tick()
        context.hardware.sleep(1.0)


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


def _write_image(context: StepContext, args: Mapping[str, Any]) -> dict[str, Any]:
    asset, size, urls = args["asset"], args["size"], args["urls"]
    disk = wait_disk(context, args.get("disk"))
    began = context.hardware.now()
    progress = context.progress
    source = HttpSource(context.hardware, asset, urls, progress.tick, context.bind_address)
    try:
        manifest = source.manifest()
        if manifest.size != size:
            raise StepFailed(f"{asset} has {manifest.size} bytes, the order says {size}")
        with DiskHandle(disk.path, disk.sector_bytes) as handle:
            written = write_image(handle, manifest, source, progress)
    finally:
        source.close()
    return {
        "disk": disk.serial or disk.name,
        "bytes": written.size,
        "sha256": written.sha256,
        "seconds": round(context.hardware.now() - began, 1),
        "resumed_from": written.resumed_from,
        "fetched_bytes": written.fetched_bytes,
        "wrong_chunks": source.wrong_chunks,
        "direct": written.direct,
    }


def _first_boot(context: StepContext, args: Mapping[str, Any]) -> dict[str, Any]:
    disk = wait_disk(context, args.get("disk"))
    files = open_first_boot(args["sealed"], context.session, context.seal_key)
    with DiskHandle(disk.path, disk.sector_bytes) as handle:
        placed = write_cidata(handle, int(args["image_bytes"]), files)
    return {
        "disk": disk.serial or disk.name,
        "cidata": placed.kind,
        "offset": placed.offset,
    }


def _wipe(context: StepContext, args: Mapping[str, Any]) -> dict[str, Any]:
    disk = wait_disk(context, args.get("disk"))
    began = context.hardware.now()
    with DiskHandle(disk.path, disk.sector_bytes) as handle:
        wiped = wipe_disk(handle, context.progress)
        handle.reread_partitions()
    return {
        "disk": disk.serial or disk.name,
        "bytes": wiped.size,
        "verified_bytes": wiped.verified_bytes,
        "nonzero": 0,
        "seconds": round(context.hardware.now() - began, 1),
        "direct": wiped.direct,
    }


def _erase(context: StepContext, args: Mapping[str, Any]) -> dict[str, Any]:
    disk = wait_disk(context, args.get("disk"))
    began = context.hardware.now()
    wish = Wish(
        serial=str(args["serial"]),
        bytes=int(args["bytes"]),
        methods=tuple(str(method) for method in args["methods"]),
        samples=int(args["samples"]),
        seed=str(args["seed"]),
    )
    done = erase_disk(disk, context.hardware.drive(disk), wish, context.progress)
    with DiskHandle(disk.path, disk.sector_bytes) as handle:
        handle.reread_partitions()
    return {
        "disk": disk.serial or disk.name,
        "model": done.identity.model,
        "serial": done.identity.serial,
        "bytes": done.identity.bytes,
        "method": done.method,
        "attempts": done.attempts,
        "said": done.said,
        "samples": done.samples,
        "markers": done.markers,
        "telling": done.telling,
        "kept": 0,
        "pattern": done.pattern,
        "verified_bytes": done.verified_bytes,
        "seed": wish.seed,
        "seconds": round(context.hardware.now() - began, 1),
        "direct": done.direct,
    }


STEPS: Final[dict[str, Step]] = {
    "write_image": _write_image,
    "first_boot": _first_boot,
    "wipe": _wipe,
    "erase": _erase,
}
"""Name on the wire -> what does it. ``reboot`` and ``poweroff`` end the loop (``work.py``)."""
