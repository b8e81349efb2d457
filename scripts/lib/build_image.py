"""Build small images for tests and the demo.

    scripts/build-image --kind vm --output FILE [--mib N]       boots on a BIOS and phones in
    scripts/build-image --kind filler --output FILE [--mib N] [--seed N]

``vm``: GPT, one FAT partition with syslinux, Debian's cloud kernel and an initramfs that is the
whole system. ``filler``: N MiB that cannot be compressed, without a partition table; its first
sector tells a simulated server that it boots (SIM_MARKER). Rule: same options, same bytes.
"""

import argparse
import gzip
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path

from node.ramdisk.gpt import Partition, Table, encode_table
from scripts.lib.build_ramdisk import GZIP_LEVEL, KERNELS, REPOSITORY, fingerprint, replace
from scripts.lib.debian import Debian, NoPackages
from scripts.lib.kernel_modules import add_modules
from scripts.lib.newc import Tree, encode

MIB = 1 << 20
SECTOR = 512
SIM_MARKER = b"RACKMESH-SIM-IMAGE\n"
FILLER_MIB = 256
PARTITION_AT = 2048
EFI_SYSTEM = bytes.fromhex("28732ac11ff8d211ba4b00a0c93ec93b")
LEGACY_BOOT = 1 << 2
PACKAGES = ("busybox-static", "syslinux", "syslinux-common", "mtools", "dosfstools")
APPLETS = (
    "awk", "cat", "echo", "find", "grep", "head", "hostname", "ls", "mkdir", "mount",
    "ps", "rm", "sed", "setsid", "sh", "sleep", "sort", "sync", "timeout", "tr", "uname",
    "umount", "wget", "xargs",
)  # fmt: skip
SYSTEM_APPLETS = ("findfs", "ip", "modprobe", "poweroff", "reboot", "udhcpc")
EXTRA_MODULES = ("fs/fat/", "fs/nls/nls_cp437", "fs/nls/nls_iso8859-1", "fs/nls/nls_ascii",
                 "fs/nls/nls_utf8")  # fmt: skip
SYSLINUX_CONFIG = """SERIAL 0 115200
DEFAULT linux
LABEL linux
  LINUX /vmlinuz
  INITRD /initrd
  APPEND console=ttyS0 quiet
"""


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="scripts/build-image",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--kind", choices=("filler", "vm"), required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--mib", type=int, default=0, help="least size (filler: the size)")
    parser.add_argument("--seed", type=int, default=1, help="another content (filler)")
    parser.add_argument("--cache", type=Path, default=REPOSITORY / ".cache/ramdisk")
    options = parser.parse_args()
    output: Path = options.output.resolve()
    made = output.with_name(f".{output.name}.made-from")
    stamp = f"{options.kind} {options.mib} {options.seed} {fingerprint()}\n"
    if output.exists() and made.exists() and made.read_text() == stamp:
        return 0
    began = time.monotonic()
    output.parent.mkdir(parents=True, exist_ok=True)
    try:
        if options.kind == "filler":
            write_filler(output, options.mib or FILLER_MIB, options.seed)
        else:
            write_bootable(output, options.mib, options.cache.resolve())
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


def write_bootable(output: Path, mib: int, cache: Path) -> None:
    """Write the image that boots on a BIOS."""
    cache.mkdir(parents=True, exist_ok=True)
    debian = Debian(cache)
    debs = debian.fetch(PACKAGES)
    kernel_deb = debian.fetch_kernel(KERNELS["cloud"])
    with tempfile.TemporaryDirectory(dir=cache) as name:
        work = Path(name)
        for deb in debs:
            debian.unpack(deb, work / "root")
        debian.unpack(kernel_deb, work / "kernel")
        tree = system_tree(work / "root")
        release, _count = add_modules(tree, work / "kernel", EXTRA_MODULES)
        files = {
            "vmlinuz": (work / f"kernel/boot/vmlinuz-{release}").read_bytes(),
            "initrd": gzip.compress(b"".join(encode(tree)), GZIP_LEVEL, mtime=0),
            "syslinux.cfg": SYSLINUX_CONFIG.encode(),
        }
        volume = boot_volume(work, files)
        code = (work / "root/usr/lib/syslinux/mbr/gptmbr.bin").read_bytes()
        replace(output, disk_image(volume, code, mib))


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


def boot_volume(work: Path, files: dict[str, bytes]) -> bytes:
    """Return a FAT volume with syslinux installed, big enough for the files."""
    root, volume, boot = work / "root", work / "volume", work / "boot"
    boot.mkdir()
    for name, data in files.items():
        (boot / name).write_bytes(data)
    modules = root / "usr/lib/syslinux/modules/bios"
    shutil.copy(modules / "ldlinux.c32", boot)
    mib = sum(map(len, files.values())) // MIB + 8
    with volume.open("wb") as file:
        file.truncate(mib * MIB)
    folders = [f"{root}/usr/bin", f"{root}/usr/sbin", f"{root}/sbin", os.environ["PATH"]]
    environment = os.environ | {
        "PATH": ":".join(folders), "SOURCE_DATE_EPOCH": "315532800", "TZ": "UTC",
        "MTOOLS_SKIP_CHECK": "1",
    }  # fmt: skip
    for argv in (
        ["mkfs.fat", "--invariant", "-n", "BOOT", str(volume)],
        ["mcopy", "-i", str(volume), *(str(path) for path in sorted(boot.iterdir())), "::/"],
        ["syslinux", "-i", str(volume)],
    ):
        done = subprocess.run(
            argv, env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise RuntimeError(f"{argv[0]}: {done.stderr.strip()}")
    return volume.read_bytes()


def disk_image(volume: bytes, code: bytes, mib: int) -> bytes:
    """Return a whole disk: boot code, GPT, the volume as its only partition."""
    least = (PARTITION_AT * SECTOR + len(volume)) // MIB + 1
    sectors = max(mib, least) * MIB // SECTOR
    image = bytearray(sectors * SECTOR)
    image[: len(code)] = code
    last = PARTITION_AT + len(volume) // SECTOR - 1
    guid = uuid.uuid5(uuid.NAMESPACE_DNS, "boot.image.rackmesh").bytes_le
    disk = uuid.uuid5(uuid.NAMESPACE_DNS, "disk.image.rackmesh").bytes_le
    part = Partition(0, EFI_SYSTEM, guid, PARTITION_AT, last, LEGACY_BOOT, "boot")
    table = Table(SECTOR, disk, 2, 34, 128, 128, (part,))
    for writes in encode_table(table, sectors):
        for offset, data in writes:
            image[offset : offset + len(data)] = data
    image[446 + 1 : 446 + 8] = bytes.fromhex("000200eeffffff")
    image[446 + 8 : 446 + 16] = (1).to_bytes(4, "little") + (sectors - 1).to_bytes(4, "little")
    image[510:512] = b"\x55\xaa"
    image[PARTITION_AT * SECTOR : (last + 1) * SECTOR] = volume
    return bytes(image)


if __name__ == "__main__":
    sys.exit(main())
