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
from node.rack import network
from node.rack.errors import BootFailed
from node.ramdisk.gpt import read_table

START_S: Final = 0.5
PHONE_TRIES: Final = 20
PHONE_PAUSE_S_MAX: Final = 10.0
PHONE_OK: Final = range(200, 300)


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
            bound = await lease()
        except BootFailed as failure:
            say(f"no address: {failure}")
        else:
            for url in told.urls:
                got = await network.post_form(url, bound.address, form)
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
