"""GRUB loaders out of unpacked Debian packages: nothing is installed, no device is touched.

It knows GRUB's file formats as far as its own installer patches them (``include/grub/i386/pc/
boot.h`` of its sources). The embedded configuration is read by GRUB's rescue parser: one
command a line, no conditions; a line that fails is an error on the screen, the next one runs.
"""

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

SECTOR = 512
PACKAGES = ("grub-common", "grub-efi-amd64-bin", "grub-pc-bin", "libdevmapper1.02.1")
BOOT_CODE_BYTES = 440
KERNEL_SECTOR_AT = 0x5C  # GRUB_BOOT_MACHINE_KERNEL_SECTOR: where boot.img finds the core
DRIVE_CHECK_AT = 0x66  # GRUB_BOOT_MACHINE_DRIVE_CHECK: as for every hard disk, taken out
BLOCK_LIST_AT = SECTOR - 12  # of the core's first sector: where the rest of the core is
EFI = "x86_64-efi"
BIOS = "i386-pc"


def efi_loader(root: Path, config: str, modules: Sequence[str], prefix: str = "/") -> bytes:
    """Return an EFI program; ``root``: where PACKAGES are unpacked."""
    return _image(root, EFI, config, modules, prefix)


def bios_loader(
    root: Path, config: str, modules: Sequence[str], prefix: str, sector: int
) -> tuple[bytes, bytes]:
    """Return the boot code of a disk and the core that stands from ``sector`` on."""
    core = bytearray(_image(root, BIOS, config, ("biosdisk", *modules), prefix))
    core += bytes(-len(core) % SECTOR)
    core[BLOCK_LIST_AT : BLOCK_LIST_AT + 8] = (sector + 1).to_bytes(8, "little")
    code = bytearray((root / f"usr/lib/grub/{BIOS}/boot.img").read_bytes()[:BOOT_CODE_BYTES])
    code[KERNEL_SECTOR_AT : KERNEL_SECTOR_AT + 8] = sector.to_bytes(8, "little")
    code[DRIVE_CHECK_AT : DRIVE_CHECK_AT + 2] = b"\x90\x90"
    return bytes(code), bytes(core)


def disc_loader(root: Path, config: str, modules: Sequence[str], prefix: str = "/") -> bytes:
    """Return the BIOS boot image of a disc (El Torito, no emulation); it wants the boot
    information table of mkisofs at its byte 8."""
    return _image(root, BIOS, config, ("biosdisk", *modules), prefix, f"{BIOS}-eltorito")


def _image(
    root: Path, kind: str, config: str, modules: Sequence[str], prefix: str, out_kind: str = ""
) -> bytes:
    file, out = root / f"{kind}.cfg", root / f"{kind}.img"
    file.write_text(config)
    libraries = root / "lib/x86_64-linux-gnu"
    done = subprocess.run(
        [root / "usr/bin/grub-mkimage", "-O", out_kind or kind,
         "-d", root / f"usr/lib/grub/{kind}", "-c", file, "-p", prefix, "-o", out, *modules],
        env=os.environ | {"LD_LIBRARY_PATH": str(libraries)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"grub-mkimage: {done.stderr.strip()}")
    return out.read_bytes()
