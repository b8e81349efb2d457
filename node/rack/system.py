"""The "operating system" of a simulated server: comes up, reads its first-boot data, phones in.

Knows files and bytes of a disk, no boot order. Rule: it does what cloud-init would do with the
same disk, and finds its data only there.
"""

import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import trio

from node.proto.rack_dhcp import Bound
from node.proto.rack_disk import (
    LABEL,
    SECTOR_BYTES,
    VOLUME_BYTES,
    FirstBoot,
    boot_record,
    first_boot,
    read_volume,
)
from node.proto.rack_iso import RECORD_AT, catalog_at, image_at
from node.proto.rack_iso import SECTOR_BYTES as DISC_SECTOR_BYTES
from node.rack import network
from node.rack.errors import BootFailed
from node.ramdisk.gpt import read_table

START_S: Final = 0.5
PHONE_TRIES: Final = 20
PHONE_PAUSE_S_MAX: Final = 10.0
PHONE_OK: Final = range(200, 300)
DISC_READS: Final = 12
DISC_PIECE_BYTES: Final = 8 << 10
"""What an ISO's own loader reads in a simulated server: 96 KiB."""


def read_image(disk: Path) -> dict[str, Any] | None:
    """Return what the boot sector says of the installed image, or None: nothing boots."""
    try:
        with disk.open("rb") as file:
            return boot_record(file.read(SECTOR_BYTES))
    except OSError:
        return None


def read_first_boot(disk: Path) -> FirstBoot | None:
    """Look for the cidata volume: a partition of that name, else raw at the disk's end."""
    try:
        with disk.open("rb") as file:
            size = os.fstat(file.fileno()).st_size

            def read(offset: int, length: int) -> bytes:
                return os.pread(file.fileno(), length, offset)

            table = read_table(read, size, SECTOR_BYTES)
            if table is None:
                places = [size - VOLUME_BYTES]
            else:
                places = [p.first * SECTOR_BYTES for p in table.partitions if p.name == LABEL]
            for place in places:
                if place < 0:
                    continue
                files = read_volume(read(place, VOLUME_BYTES))
                if files is not None:
                    return first_boot(files)
    except OSError:
        pass
    return None


async def read_disc(url: str, source: str) -> dict[str, Any] | str:
    """Read an ISO as firmware and what it starts do; return what its boot image says of itself.

    A text says why it does not boot.
    """

    async def read(offset: int, length: int) -> bytes:
        got = await network.get_range(url, source, offset, length)
        if isinstance(got, str):
            raise BootFailed(f"the ISO cannot be read at {offset}: {got}")
        return got

    try:
        catalog = catalog_at(await read(RECORD_AT, DISC_SECTOR_BYTES))
        if catalog is None:
            return "the ISO has no El Torito boot record"
        place = image_at(await read(catalog, DISC_SECTOR_BYTES))
        if place is None:
            return "the ISO has no boot image in its catalog"
        found = boot_record(await read(*place))
        if found is None:
            return "the ISO boots something that cannot be simulated"
        for number in range(DISC_READS):  # what was started reads on
            await read((number % 8) * DISC_PIECE_BYTES, DISC_PIECE_BYTES)
    except BootFailed as failure:
        return str(failure)
    return found


async def read_kernel(url: str, source: str) -> dict[str, Any] | None:
    """Return what the first bytes of a kernel say of it as a live system, or None."""
    got = await network.get_range(url, source, 0, SECTOR_BYTES)
    return None if isinstance(got, str) else boot_record(got)


async def run_live(
    told: FirstBoot | None, lease: Callable[[], Awaitable[Bound]], say: Callable[[str], None]
) -> None:
    """Come up from memory, phone in if there is somewhere to, and stay until the power goes."""
    await trio.sleep(START_S)
    say("live system is up" + (f" as {told.hostname}" if told else "; it does not phone in"))
    if told is not None:
        await _phone_in(told, lease, say)
    await trio.sleep_forever()


async def run_system(
    disk: Path, lease: Callable[[], Awaitable[Bound]], say: Callable[[str], None]
) -> None:
    """Come up, phone in, and stay until the power goes."""
    await trio.sleep(START_S)
    told = await trio.to_thread.run_sync(read_first_boot, disk)
    if told is None:
        say("system is up; no first-boot data")
    else:
        say(f"system is up as {told.hostname}, instance {told.instance_id}")
        await _phone_in(told, lease, say)
    await trio.sleep_forever()


async def _phone_in(
    told: FirstBoot, lease: Callable[[], Awaitable[Bound]], say: Callable[[str], None]
) -> None:
    """Post to the first URL that takes it; capabilities in URLs are never printed."""
    form = {"instance_id": told.instance_id, "hostname": told.hostname}
    pause_s = 0.5
    for _ in range(PHONE_TRIES):
        try:
            address = told.address or (await lease()).address
        except BootFailed as failure:
            say(f"no address: {failure}")
        else:
            for url in told.urls:
                got = await network.post_form(url, address, form)
                host = url.split("/", 3)[2] if url.count("/") > 2 else "?"
                if isinstance(got, str):
                    say(f"phone-in at {host} failed: {got}")
                elif got.status in PHONE_OK:
                    say(f"phoned in at {host}")
                    return
                else:
                    say(f"phone-in at {host} was answered with status {got.status}")
        await trio.sleep(pause_s)
        pause_s = min(pause_s * 2, PHONE_PAUSE_S_MAX)
    say("nobody took the phone-in")
