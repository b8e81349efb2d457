"""Build a real Debian as a disk image: cloud-init, OpenSSH, and GRUB for both firmwares.

It knows debootstrap, apt and what cloud-init reads; of Rackmesh's first-boot data only that it
is a NoCloud volume. Rules: nothing that is one machine's own is in the image (host keys,
machine id, names); the mirror is the one that this machine's apt uses.

A kernel that is installed later is started as well: GRUB reads Debian's /vmlinuz and
/initrd.img, which always point to the newest one.
"""

import os
import shutil
import subprocess
import uuid
from pathlib import Path

from scripts.lib.debian import Debian, NoPackages
from scripts.lib.disk_image import EFI_SYSTEM, LINUX_ROOT, fat_volume, write_disk
from scripts.lib.grub import PACKAGES as GRUB_PACKAGES
from scripts.lib.grub import efi_loader

MIB = 1 << 20
SECONDS_MAX = 900
OUTSIDE = ("TMPDIR", "TMP", "TEMP")
"""Folders of this machine, which the new system has not."""
PACKAGES = (
    "systemd-sysv", "udev", "dbus", "ifupdown", "isc-dhcp-client", "iproute2", "netbase",
    "cloud-init", "cloud-guest-utils", "fdisk", "e2fsprogs", "openssh-server", "sudo",
)  # fmt: skip
TOOLS = ("mtools", "dosfstools", *GRUB_PACKAGES)
LABEL = "rootfs"
MODULES = ("part_gpt", "fat", "ext2", "linux", "boot", "configfile", "normal", "echo", "test")
PREFIX = "(,gpt3)/boot/grub"  # of the drive that GRUB itself came from
EMBEDDED = "configfile $prefix/grub.cfg\n"
MENU = f"""set timeout=1
menuentry Debian {{
    linux /vmlinuz root=LABEL={LABEL} ro console=tty0 console=ttyS0,115200 quiet
    initrd /initrd.img
}}
"""
CLOUD = """# What a machine needs to know comes on its CIDATA volume; there is no cloud to ask.
datasource_list: [NoCloud, None]
ssh_genkeytypes: [ed25519, ecdsa]
apt_preserve_sources_list: true
"""
LEFT_OUT = (
    "usr/share/doc", "usr/share/man", "usr/share/info", "usr/share/locale",
    "var/cache/apt/archives", "var/lib/apt/lists", "var/log/bootstrap.log",
    "var/lib/dbus/machine-id",
)  # fmt: skip
ROOM_MIB = 96


def write_debian(output: Path, mib: int, work: Path, cache: Path, kernel: str) -> None:
    """Write the image; ``work``: an empty folder, ``cache``: what is kept between builds."""
    if os.geteuid() != 0:
        raise NoPackages("a Debian image is made by debootstrap, which needs root")
    if not shutil.which("debootstrap"):
        raise NoPackages("debootstrap is missing: apt-get install debootstrap")
    debian = Debian(cache)
    tools = work / "tools"
    for deb in debian.fetch(TOOLS):
        debian.unpack(deb, tools)
    system = work / "system"
    bootstrap(system, cache / "bootstrap", kernel)
    settle(system)
    volume, root = work / "efi", work / "root"
    loader = work / "esp/EFI/BOOT/BOOTX64.EFI"
    loader.parent.mkdir(parents=True)
    loader.write_bytes(efi_loader(tools, EMBEDDED, MODULES, PREFIX))
    fat_volume(tools, work / "esp", "EFI", volume)
    root_volume(system, root)
    parts = [(EFI_SYSTEM, "efi", volume), (LINUX_ROOT, "root", root)]
    write_disk(output, tools, (EMBEDDED, MODULES, PREFIX), parts, mib)


def mirrors() -> tuple[str, list[tuple[str, str]]]:
    """Return the release's code name and where this machine's apt gets it from: (suite, URL),
    the release itself first, then its updates."""
    text = Path("/etc/os-release").read_text()
    names = [line for line in text.splitlines() if line.startswith("VERSION_CODENAME=")]
    release = names[0].partition("=")[2].strip('"') if names else ""
    told = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(RELEASE) $(COMPONENT) $(REPO_URI)",
         "Created-By: Packages", "Origin: Debian"],
        capture_output=True, text=True, check=False,
    ).stdout  # fmt: skip
    entries = [line.split(" ", 2) for line in told.splitlines()]
    found = [
        (suite, url)
        for suite, component, url in entries
        if component == "main" and suite.partition("-")[0] == release
    ]
    if not found or release not in dict(found):
        raise NoPackages("this machine's apt has no mirror of its own Debian release")
    return release, sorted(found, key=lambda entry: entry[0] != release)


def bootstrap(system: Path, kept: Path, kernel: str) -> None:
    """Install the packages into a folder; what debootstrap downloads is kept."""
    kept.mkdir(parents=True, exist_ok=True)
    release, sources = mirrors()
    base = ["debootstrap", "--variant=minbase", f"--cache-dir={kept}"]
    if any(url.startswith("https:") for _, url in sources):
        base.append("--include=ca-certificates")
    run_apart(*base, release, system, sources[0][1])
    lines = [f"deb {url} {suite} main\n" for suite, url in sources]
    (system / "etc/apt/sources.list").write_text("".join(lines))
    resolver = system / "etc/resolv.conf"
    shutil.copyfile("/etc/resolv.conf", resolver)
    apt = ["chroot", system, "apt-get", "-qq", "-o", "Dpkg::Options::=--force-unsafe-io"]
    run_apart(*apt, "update")
    run_apart(*apt, "upgrade", "-y")
    run_apart(*apt, "install", "-y", "--no-install-recommends", kernel, *PACKAGES)
    resolver.write_text("")


def run_apart(*argv: str | Path) -> None:
    """Run a command whose mounts are gone when it ends, however it ends."""
    outside = {name: value for name, value in os.environ.items() if name not in OUTSIDE}
    done = subprocess.run(
        ["unshare", "--mount", *argv],
        capture_output=True, text=True, timeout=SECONDS_MAX, check=False,
        env=outside | {"DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C"},
    )  # fmt: skip
    if done.returncode:
        said = (done.stdout + done.stderr).strip().splitlines()
        last = [line for line in said if line.startswith("E:")] or said or ["it said nothing"]
        raise NoPackages(f"no Debian could be built: {argv[0]}: {last[-1]}")


def settle(system: Path) -> None:
    """Configure the system for any machine, and take out what belongs to none."""
    for name in LEFT_OUT:
        path = system / name
        if path.is_dir():
            shutil.rmtree(path)
            path.mkdir()
        else:
            path.unlink(missing_ok=True)
    (system / "var/lib/apt/lists/partial").mkdir()
    (system / "var/cache/apt/archives/partial").mkdir()
    for key in (system / "etc/ssh").glob("ssh_host_*"):
        key.unlink()
    texts = {
        "etc/machine-id": "",
        "etc/hostname": "debian\n",
        "etc/hosts": "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n",
        "etc/fstab": f"LABEL={LABEL} / ext4 errors=remount-ro 0 1\n",
        "etc/network/interfaces": "source /etc/network/interfaces.d/*\n",
        "etc/cloud/cloud.cfg.d/90_rackmesh.cfg": CLOUD,
        "boot/grub/grub.cfg": MENU,
    }
    for name, text in texts.items():
        path = system / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    for name in ("vmlinuz", "initrd.img"):
        if not (system / name).is_symlink():
            raise RuntimeError(f"Debian's kernel left no link /{name}")


def root_volume(system: Path, target: Path) -> None:
    """Write an ext4 volume with the system, without the features that GRUB 2.06 cannot read."""
    told = subprocess.run(
        ["du", "-s", "--block-size=1M", system], capture_output=True, text=True, check=True
    )
    used = int(told.stdout.split()[0])
    guid = uuid.uuid5(uuid.NAMESPACE_DNS, "root.image.rackmesh")
    done = subprocess.run(
        ["mke2fs", "-q", "-F", "-t", "ext4", "-L", LABEL, "-U", str(guid), "-m", "1",
         "-O", "^metadata_csum_seed,^orphan_file", "-d", system, target,
         f"{used * 21 // 20 + ROOM_MIB}M"],
        capture_output=True, text=True, timeout=SECONDS_MAX, check=False,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"mke2fs: {done.stderr.strip()}")
