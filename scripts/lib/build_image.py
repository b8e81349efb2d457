"""Build images for tests, the demo and a first deploy.

    scripts/build-image --kind vm --output FILE [--mib N]      boots on BIOS and UEFI, phones in
    scripts/build-image --kind debian --output FILE [--mib N] [--kernel full]
    scripts/build-image --kind filler --output FILE [--mib N] [--seed N]

``vm``: GPT, GRUB for both firmwares, one FAT partition with Debian's cloud kernel and an
initramfs that is the whole system. ``debian``: this machine's own Debian release, by
debootstrap, with cloud-init and OpenSSH (root only, a package mirror must be reachable).
``filler``: N MiB that cannot be compressed, without a partition table; its first sector tells a
simulated server that it boots (SIM_MARKER). Rule: same options, same bytes (not ``debian``).
"""

import argparse
import gzip
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from scripts.lib.build_debian import write_debian
from scripts.lib.build_ramdisk import GZIP_LEVEL, KERNELS, REPOSITORY, SOURCES, fingerprint
from scripts.lib.debian import Debian, NoPackages
from scripts.lib.disk_image import EFI_SYSTEM, fat_volume, write_disk
from scripts.lib.grub import PACKAGES as GRUB_PACKAGES
from scripts.lib.grub import efi_loader
from scripts.lib.kernel_modules import add_modules
from scripts.lib.newc import Tree, encode

MIB = 1 << 20
SECTOR = 512
SIM_MARKER = b"RACKMESH-SIM-IMAGE\n"
FILLER_MIB = 256
PACKAGES = ("busybox-static", "mtools", "dosfstools")
APPLETS = (
    "awk", "cat", "echo", "find", "grep", "head", "hostname", "ls", "mkdir", "mount",
    "ps", "rm", "sed", "setsid", "sh", "sleep", "sort", "sync", "timeout", "tr", "uname",
    "umount", "wget", "xargs",
)  # fmt: skip
SYSTEM_APPLETS = ("findfs", "ip", "modprobe", "poweroff", "reboot", "udhcpc")
EXTRA_MODULES = ("fs/fat/", "fs/nls/nls_cp437", "fs/nls/nls_iso8859-1", "fs/nls/nls_ascii",
                 "fs/nls/nls_utf8")  # fmt: skip
DEBIAN_SOURCES = tuple(
    f"scripts/lib/{name}.py" for name in ("build_debian", "disk_image", "grub")
)
GRUB_PREFIX = "(,gpt2)/"  # of the drive that GRUB itself came from
GRUB_CONFIG = "linux /vmlinuz console=ttyS0 quiet\ninitrd /initrd\nboot\n"
GRUB_MODULES = ("part_gpt", "fat", "linux", "boot")


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="scripts/build-image",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--kind", choices=("debian", "filler", "vm"), required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--mib", type=int, default=0, help="least size (filler: the size)")
    parser.add_argument("--seed", type=int, default=1, help="another content (filler)")
    parser.add_argument(
        "--kernel", choices=sorted(KERNELS), default="cloud",
        help="of a debian image: cloud knows virtio and NVMe, full knows hardware",
    )  # fmt: skip
    parser.add_argument("--cache", type=Path, default=REPOSITORY / ".cache/ramdisk")
    options = parser.parse_args()
    output: Path = options.output.resolve()
    made = output.with_name(f".{output.name}.made-from")
    sources = DEBIAN_SOURCES if options.kind == "debian" else SOURCES
    chosen = f"{options.kind} {options.mib} {options.seed} {options.kernel}"
    stamp = f"{chosen} {fingerprint(sources)}\n"
    if output.exists() and made.exists() and made.read_text() == stamp:
        return 0
    began = time.monotonic()
    output.parent.mkdir(parents=True, exist_ok=True)
    try:
        if options.kind == "filler":
            write_filler(output, options.mib or FILLER_MIB, options.seed)
        else:
            write_bootable(options, output, options.cache.resolve())
    except NoPackages as exc:
        print(f"rackmesh: {exc}", file=sys.stderr)
        return 1
    except (OSError, RuntimeError, subprocess.SubprocessError) as exc:
        print(f"rackmesh: the image could not be built: {exc}", file=sys.stderr)
        return 1
    made.write_text(stamp)
    size = output.stat().st_size / MIB
    print(f"{size:.0f} MiB in {time.monotonic() - began:.0f} s: {output}", file=sys.stderr)
    return 0


def write_filler(output: Path, mib: int, seed: int) -> None:
    """Write ``mib`` MiB of pseudo-random bytes behind the marker sector."""
    marker = (SIM_MARKER + b'{"v":1}').ljust(SECTOR, b"\0")
    source = random.Random(seed)
    part = output.with_name(output.name + ".part")
    with part.open("wb") as file:
        for number in range(mib):
            data = source.randbytes(MIB)
            file.write(marker + data[SECTOR:] if number == 0 else data)
    shutil.move(part, output)


def write_bootable(options: argparse.Namespace, output: Path, cache: Path) -> None:
    """Write an image that boots on BIOS and UEFI."""
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as name:
        work = Path(name)
        if options.kind == "debian":
            write_debian(output, options.mib, work, cache, KERNELS[options.kernel])
        else:
            write_small(output, options.mib, work, Debian(cache))


def write_small(output: Path, mib: int, work: Path, debian: Debian) -> None:
    """Write the image whose whole system is an initramfs."""
    root, boot = work / "root", work / "boot"
    for deb in debian.fetch((*PACKAGES, *GRUB_PACKAGES)):
        debian.unpack(deb, root)
    debian.unpack(debian.fetch_kernel(KERNELS["cloud"]), work / "kernel")
    tree = system_tree(root)
    release, _count = add_modules(tree, work / "kernel", EXTRA_MODULES)
    loader = boot / "EFI/BOOT/BOOTX64.EFI"
    loader.parent.mkdir(parents=True)
    loader.write_bytes(efi_loader(root, GRUB_CONFIG, GRUB_MODULES, GRUB_PREFIX))
    shutil.copy(work / f"kernel/boot/vmlinuz-{release}", boot / "vmlinuz")
    packed = gzip.compress(b"".join(encode(tree)), GZIP_LEVEL, mtime=0)
    (boot / "initrd").write_bytes(packed)
    fat_volume(root, boot, "BOOT", work / "volume")
    bios = (GRUB_CONFIG, GRUB_MODULES, GRUB_PREFIX)
    write_disk(output, root, bios, [(EFI_SYSTEM, "boot", work / "volume")], mib)


def system_tree(root: Path) -> Tree:
    """Return the system: busybox and an init."""
    tree = Tree()
    tree.file("bin/busybox", (root / "bin/busybox").read_bytes(), 0o755)
    for name in APPLETS:
        tree.link(f"bin/{name}", "busybox")
    for name in SYSTEM_APPLETS:
        tree.link(f"sbin/{name}", "../bin/busybox")
    for name in ("dev", "proc", "sys", "run", "tmp"):
        tree.folder(name)
    tree.character_device("dev/console", 5, 1)
    tree.character_device("dev/null", 1, 3, 0o666)
    lib = REPOSITORY / "scripts/lib"
    tree.file("init", (lib / "image-init.sh").read_bytes(), 0o755)
    tree.file("etc/udhcpc.sh", (lib / "ramdisk-udhcpc.sh").read_bytes(), 0o755)
    tree.file("etc/os-release", b'PRETTY_NAME="Rackmesh test image"\n')
    return tree


if __name__ == "__main__":
    sys.exit(main())
