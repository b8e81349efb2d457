"""A simulated server's virtual CD: firmware finds the loader, the loader its configuration.

Knows El Torito and ISO 9660 through `node.proto.rack_iso`, no power. Rule: it reads through its
BMC's address, by range, what a real machine would read, and nothing is taken for granted: a
disc without loader, kernel or ramdisk does not boot.
"""

from typing import Final

from node.proto.disc_config import Started, read_config
from node.proto.rack_iso import (
    RECORD_AT,
    SECTOR_BYTES,
    VOLUME_AT,
    catalog_at,
    files_in,
    image_at,
    root_at,
)
from node.rack import network
from node.rack.errors import BootFailed

CONFIG: Final = "GRUB.CFG"
CONFIG_BYTES_MAX: Final = 64 << 10
PIECE_BYTES: Final = 1 << 20
FILE_BYTES_MAX: Final = 1 << 30


async def boot_disc(url: str, source: str, *, download: bool) -> Started | str:
    """Return what a disc starts; a text says why it does not boot.

    ``source``: the BMC's address; ``download``: read kernel and ramdisk whole, as a real one.
    """

    async def read(offset: int, length: int) -> bytes:
        got = await network.get_range(url, source, offset, length)
        if isinstance(got, str):
            raise BootFailed(f"the disc cannot be read at {offset}: {got}")
        return got

    try:
        catalog = catalog_at(await read(RECORD_AT, SECTOR_BYTES))
        place = None if catalog is None else image_at(await read(catalog, SECTOR_BYTES))
        if place is None:
            return "the disc has no boot image"
        await read(*place)
        root = root_at(await read(VOLUME_AT, SECTOR_BYTES))
        files = {} if root is None else files_in(await read(*root))
        offset, size = files.get(CONFIG, (0, 0))
        if not 0 < size <= CONFIG_BYTES_MAX:
            return "the disc's loader finds no configuration"
        started = read_config((await read(offset, size)).decode("ascii", "replace"))
        if started is None:
            return "the disc's configuration starts nothing"
        for name in (started.kernel, started.initrd):
            if name not in files:
                return f"the disc has no {name[:40]}"
            offset, size = files[name]
            for at in range(0, min(size, FILE_BYTES_MAX) if download else 0, PIECE_BYTES):
                await read(offset + at, min(PIECE_BYTES, size - at))
    except BootFailed as failure:
        return str(failure)
    return started
