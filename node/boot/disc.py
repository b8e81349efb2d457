"""Serves the disc that one server boots from: /boot/v1/media/<capability>.iso.

It knows no jobs: what the loader is told comes from a port, under its capability. Rules: the
disc is never made as a whole: a head of a few sectors, made for each request, stands before
the boot files that all discs share; nobody may keep it; the capability is in the path, since
BMCs want a name that ends in .iso, and stays out of every log.
"""

from functools import lru_cache
from hashlib import blake2b
from typing import Final

import trio

from node.boot.files import BootFile, BootFiles
from node.boot.http import Request, Response, Route
from node.boot.parts_body import Part, PartsBody
from node.boot.ports import BootDecisions, Refusal
from node.proto.boot_iso import (
    CONFIG_BYTES_MAX,
    END_SECTORS,
    SECTOR,
    SIZE_MAX,
    layout,
    padding,
    with_boot_info,
)

DISC_PATH: Final = "/boot/v1/media/"
SUFFIX: Final = ".iso"
CAPABILITY_CHARS_MAX: Final = 512
FILES: Final = ("mediaboot.bios", "mediaboot.efi", "vmlinuz", "initrd")
"""The boot files of a disc in their order: loaders, kernel, ramdisk."""
LOADER_BYTES: Final = range(1 << 7, 4 << 20)


class DiscRoutes:
    """The route below /boot/v1/media/."""

    def __init__(self, decisions: BootDecisions, files: BootFiles) -> None:
        self._decisions, self._files = decisions, files

    def routes(self) -> list[Route]:
        """Return what the listener shall serve."""
        return [Route("GET", DISC_PATH, self._get, secret_tail=True)]

    async def _get(self, request: Request) -> Response:
        name = request.path.removeprefix(DISC_PATH)
        capability = name.removesuffix(SUFFIX)
        if capability == name or not 0 < len(capability) <= CAPABILITY_CHARS_MAX:
            return Response.refusal(404, "there is nothing under this path")
        config = await self._decisions.disc(capability, request.client_ip)
        if isinstance(config, Refusal):
            return Response.refusal(config.status, config.sentence)
        found = self._boot_files()
        if isinstance(found, str):
            return Response.refusal(503, found)
        body = await disc_body(config.encode("ascii"), found)
        if isinstance(body, str):
            return Response.refusal(503, body)
        return Response(headers={"Cache-Control": "no-store"}, body=body)

    def _boot_files(self) -> list[BootFile] | str:
        found = [(name, self._files.get(name)) for name in FILES]
        lacking = [name for name, file in found if file is None]
        if lacking:
            return f"the boot files of this node lack {', '.join(lacking)}"
        return [file for _, file in found if file is not None]


async def disc_body(config: bytes, files: list[BootFile]) -> PartsBody | str:
    """Put a disc together; a text says why it cannot be."""
    bios, efi, kernel, ramdisk = files
    if bios.size not in LOADER_BYTES or len(config) > CONFIG_BYTES_MAX:
        return "the boot files of this node hold no loader for discs"
    if sum(file.size for file in files) > SIZE_MAX - (1 << 20):
        return "the boot files of this node exceed a disc of 4 GiB"
    try:
        loader = bios.content or await trio.to_thread.run_sync(_loader, bios)
    except OSError:
        return f"the boot file {bios.name} cannot be read"
    if len(loader) != bios.size:
        return f"the boot file {bios.name} changes; ask again"
    made = layout(config, len(loader), efi.size, kernel.size, ramdisk.size)
    parts = [_bytes(made.head), _bytes(with_boot_info(loader)), _pad(len(loader))]
    for file in (efi, kernel, ramdisk):
        parts += [Part(file.size, file.etag, file.content, file.path), _pad(file.size)]
    parts.append(_bytes(bytes(END_SECTORS * SECTOR)))
    return PartsBody(parts, "application/octet-stream")


@lru_cache(maxsize=2)
def _loader(file: BootFile) -> bytes:
    assert file.path is not None, "a file on disk"
    return file.path.read_bytes()[: LOADER_BYTES.stop]


def _bytes(content: bytes) -> Part:
    return Part(len(content), blake2b(content, digest_size=12).hexdigest(), content)


def _pad(size: int) -> Part:
    return Part(padding(size), "pad", bytes(padding(size)))
