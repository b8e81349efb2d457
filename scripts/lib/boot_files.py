"""Fetch the loaders that machines get: iPXE, and GRUB for a local UEFI disk and for boot discs.

They are never part of the product (their licence is the GPL): each machine that serves them
fetches them once, from Debian's packages. Rule: the system is not changed; iPXE is copied from
an installed package, else the package is downloaded and unpacked beside. ``localboot.efi`` is
made of GRUB's modules: started by iPXE, it starts the loader on the first disk that has one.
``mediaboot.bios`` and ``mediaboot.efi`` (a FAT volume) start what a boot disc's grub.cfg says.
"""

import argparse
import hashlib
import os
import sys
import tempfile
from pathlib import Path

from scripts.lib.debian import Debian, NoPackages
from scripts.lib.efi_floppy import efi_volume
from scripts.lib.grub import PACKAGES, disc_loader, efi_loader

INSTALLED = Path("/usr/lib/ipxe")
FILES = ("undionly.kpxe", "snponly.efi", "ipxe.efi")
DISK_LOADER = "localboot.efi"
DISK_MODULES = (
    "part_gpt", "part_msdos", "fat", "search", "search_fs_file", "chain", "boot", "minicmd",
)  # fmt: skip
ON_DISK = (  # the path of a system that was not told another, then those that took their own
    "/EFI/BOOT/BOOTX64.EFI", "/EFI/Microsoft/Boot/bootmgfw.efi", "/EFI/debian/shimx64.efi",
    "/EFI/ubuntu/shimx64.efi", "/EFI/redhat/shimx64.efi", "/EFI/rocky/shimx64.efi",
)  # fmt: skip
DISC_LOADERS = ("mediaboot.bios", "mediaboot.efi")
DISC_MODULES = (
    "iso9660", "search", "search_fs_file", "linux", "boot", "normal", "configfile", "minicmd",
)  # fmt: skip
DISC_CONFIG = "search --no-floppy --file --set=root /efi.img\nconfigfile ($root)/grub.cfg\n"
MADE = (*FILES, DISK_LOADER, *DISC_LOADERS)
STAMP = ".boot-files-made-from"


def main() -> None:
    parser = argparse.ArgumentParser(prog="fetch-boot-files", description=__doc__)
    parser.add_argument("output", type=Path, help="folder for the files ([boot] files)")
    parser.add_argument("--download", action="store_true", help="even when ipxe is installed")
    options = parser.parse_args()
    output: Path = options.output
    output.mkdir(parents=True, exist_ok=True)
    stamp = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()
    made = output / STAMP
    there = all((output / name).is_file() for name in (*MADE, STAMP))
    if there and not options.download and made.read_text() == stamp:
        return
    with tempfile.TemporaryDirectory(prefix="rackmesh-boot-files-") as folder:
        cache = Path(folder)
        try:
            debian = Debian(cache)
            for package in debian.fetch(PACKAGES):
                debian.unpack(package, cache / "grub")
            if options.download or not all((INSTALLED / name).is_file() for name in FILES):
                (package,) = debian.fetch(["ipxe"])
                debian.unpack(package, cache / "root")
                copy(cache / "root", output)
            else:
                copy(Path("/"), output)
        except NoPackages as exc:
            sys.exit(
                f"fetch-boot-files: {exc}; run this on a Debian machine that has a package "
                f"mirror, and copy {', '.join(MADE)} from there to {output}"
            )
        grub = cache / "grub"
        place(output / DISK_LOADER, efi_loader(grub, disk_config(), DISK_MODULES))
        bios, efi = (output / name for name in DISC_LOADERS)
        place(bios, disc_loader(grub, DISC_CONFIG, DISC_MODULES))
        program = efi_loader(grub, DISC_CONFIG, ("part_gpt", "fat", *DISC_MODULES))
        place(efi, efi_volume(program))
    made.write_text(stamp)


def disk_config() -> str:
    """Return GRUB's commands: each loader in turn; what is not there only prints an error."""
    lines = []
    for path in ON_DISK:
        search = f"search --no-floppy --file --set=root {path}"
        lines += [search, f"chainloader {path}", "boot"]
    return "\n".join([*lines, "exit"]) + "\n"


def copy(root: Path, output: Path) -> None:
    """Copy iPXE; ``root``: where it is unpacked (ipxe.efi is a link to /boot there)."""
    for name in FILES:
        source = root / INSTALLED.relative_to("/") / name
        if source.is_symlink():
            source = root / source.readlink().relative_to("/")
        place(output / name, source.read_bytes())


def place(target: Path, data: bytes) -> None:
    """Write a file whole or not at all, and say where it is."""
    partial = target.with_name(f".{target.name}.partial")
    partial.write_bytes(data)
    partial.chmod(0o644)
    os.replace(partial, target)
    print(target)


if __name__ == "__main__":
    main()
