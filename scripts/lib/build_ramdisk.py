"""Build the ramdisk: vmlinuz and initrd out of Debian packages, two wheels and the agent.

    scripts/build-ramdisk [--kernel full|cloud] --output DIR [--cache DIR] [--refresh]

It knows what goes where in the ramdisk. Rule: the same packages and sources give the same
bytes, and nothing is done when the sources have not changed (``--refresh`` asks for newer
packages).
"""

import argparse
import gzip
import hashlib
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from scripts.lib.debian import Debian, NoPackages
from scripts.lib.kernel_modules import add_modules
from scripts.lib.newc import Tree, encode
from scripts.lib.ramdisk_python import WHEELS, PythonTree

REPOSITORY = Path(__file__).resolve().parents[2]
KERNELS = {"full": "linux-image-amd64", "cloud": "linux-image-cloud-amd64"}
PACKAGES = (
    "python3.11-minimal", "libpython3.11-minimal", "libpython3.11-stdlib", "libc6",
    "libgcc-s1", "zlib1g", "libexpat1", "libssl3", "libffi8", "busybox-static",
)  # fmt: skip
APPLETS = (
    "ash", "awk", "cat", "cmp", "cp", "cut", "date", "dd", "dmesg", "df", "echo", "env",
    "find", "free", "grep", "hexdump", "hostname", "kill", "less", "ln", "ls", "lsmod",
    "mkdir", "more", "mount", "mv", "nc", "ping", "ps", "pwd", "rm", "sed", "sh", "sleep",
    "sort", "stat", "sync", "tail", "head", "test", "top", "tr", "umount", "uname",
    "uptime", "vi", "wc", "wget", "xargs",
)  # fmt: skip
SYSTEM_APPLETS = (
    "blockdev", "fdisk", "ip", "modprobe", "insmod", "poweroff", "reboot", "route",
    "udhcpc",
)  # fmt: skip
PLATFORMS = ("manylinux_2_34_x86_64", "manylinux_2_28_x86_64", "manylinux2014_x86_64")
SOURCES = (
    "node/__init__.py", "node/ramdisk", "scripts/build-image", "scripts/build-ramdisk",
    *(f"scripts/lib/{name}" for name in (
        "build_image.py", "build_ramdisk.py", "debian.py", "disk_image.py", "elf.py",
        "grub.py", "image-init.sh", "kernel_modules.py", "newc.py", "ramdisk-init.sh",
        "ramdisk-udhcpc.sh", "ramdisk_python.py",
    )),
)  # fmt: skip
GZIP_LEVEL = 6
STAMP = ".made-from"


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/build-ramdisk", description=__doc__)
    parser.add_argument("--kernel", choices=sorted(KERNELS), default="full")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--cache", type=Path, default=REPOSITORY / ".cache/ramdisk")
    parser.add_argument("--refresh", action="store_true", help="look for newer packages")
    options = parser.parse_args()
    output: Path = options.output.resolve()
    stamp = f"{options.kernel} {fingerprint()}\n"
    made = output / STAMP
    there = all((output / name).exists() for name in ("vmlinuz", "initrd", STAMP))
    if there and not options.refresh and made.read_text() == stamp:
        return 0
    began = time.monotonic()
    try:
        report = build(options.kernel, output, options.cache.resolve())
    except NoPackages as exc:
        print(f"rackmesh: {exc}", file=sys.stderr)
        return 1
    except (OSError, RuntimeError, subprocess.SubprocessError) as exc:
        print(f"rackmesh: the ramdisk could not be built: {exc}", file=sys.stderr)
        return 1
    made.write_text(stamp)
    print(f"{report}, {time.monotonic() - began:.0f} s, in {output}", file=sys.stderr)
    return 0


def fingerprint(sources: Sequence[str] = SOURCES) -> str:
    """Return a digest of what in the repository the ramdisk, or another thing, is made from."""
    digest = hashlib.sha256()
    for source in sources:
        place = REPOSITORY / source
        for file in [place] if place.is_file() else sorted(place.glob("*.py")):
            digest.update(f"{file.relative_to(REPOSITORY)}\0".encode())
            digest.update(hashlib.sha256(file.read_bytes()).digest())
    digest.update("".join(locked(REPOSITORY / "requirements.lock")).encode())
    return digest.hexdigest()


def locked(lock: Path) -> list[str]:
    """Return the lock's entries, hashes and all, of the wheels that go into the ramdisk."""
    names = "|".join(name.removeprefix("_").removesuffix("_backend") for name in WHEELS)
    return re.findall(rf"^(?:{names})==(?:.*\\\n)*.*\n", lock.read_text(), re.MULTILINE)


def build(kernel: str, output: Path, cache: Path) -> str:
    """Build into ``output``; return a line for people."""
    cache.mkdir(parents=True, exist_ok=True)
    debian = Debian(cache)
    debs = debian.fetch(PACKAGES)
    kernel_deb = debian.fetch_kernel(KERNELS[kernel])
    with tempfile.TemporaryDirectory(dir=cache) as name:
        work = Path(name)
        for deb in debs:
            debian.unpack(deb, work / "root")
        debian.unpack(kernel_deb, work / "kernel")
        tree = base_tree(work / "root")
        release, modules = add_modules(tree, work / "kernel")
        PythonTree(work / "root", wheels(work), REPOSITORY).add(tree)
        output.mkdir(parents=True, exist_ok=True)
        replace(output / "vmlinuz", (work / f"kernel/boot/vmlinuz-{release}").read_bytes())
        replace(output / "initrd", packed(tree))
    size = (output / "initrd").stat().st_size
    return f"kernel {release}, {modules} modules, initrd {size / 1e6:.1f} MB"


def base_tree(root: Path) -> Tree:
    """Return the tree with busybox, init and the folders that the kernel wants."""
    tree = Tree()
    tree.file("bin/busybox", (root / "bin/busybox").read_bytes(), 0o755)
    for name in APPLETS:
        tree.link(f"bin/{name}", "busybox")
    for name in SYSTEM_APPLETS:
        tree.link(f"sbin/{name}", "../bin/busybox")
    for name in ("dev", "proc", "sys", "run", "tmp", "root"):
        tree.folder(name)
    tree.character_device("dev/console", 5, 1)
    tree.character_device("dev/null", 1, 3, 0o666)
    lib = REPOSITORY / "scripts/lib"
    tree.file("init", (lib / "ramdisk-init.sh").read_bytes(), 0o755)
    tree.file("etc/udhcpc.sh", (lib / "ramdisk-udhcpc.sh").read_bytes(), 0o755)
    tree.file("etc/nsswitch.conf", b"hosts: files\nservices: files\n")
    tree.file("etc/hosts", b"127.0.0.1 localhost\n")
    return tree


def wheels(work: Path) -> Path:
    """Return a folder with the locked wheels for Python 3.11: ours if it fits, else by pip."""
    if sys.version_info[:2] == (3, 11):
        for entry in map(Path, sys.path):
            if all(any(entry.glob(f"{name}*")) for name in WHEELS[:3]):
                return entry
    target = work / "site"
    lock = work / "ramdisk.lock"
    lock.write_text("".join(locked(REPOSITORY / "requirements.lock")))
    done = subprocess.run(
        [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check",
         "--require-hashes", "--no-deps", "--only-binary=:all:", "--implementation", "cp",
         "--python-version", "3.11", *(f"--platform={name}" for name in PLATFORMS),
         "--target", target, "-r", lock],
        check=False,
    )  # fmt: skip
    if done.returncode:
        raise NoPackages("the Python 3.11 wheels of blake3 and cryptography could not be had")
    return target


def packed(tree: Tree) -> bytes:
    """Return the gzipped archive; no time and no name in its head."""
    return gzip.compress(b"".join(encode(tree)), GZIP_LEVEL, mtime=0)


def replace(path: Path, data: bytes) -> None:
    """Write a file whole or not at all."""
    part = path.with_name(path.name + ".part")
    part.write_bytes(data)
    shutil.move(part, path)


if __name__ == "__main__":
    sys.exit(main())
