"""What the machine is made of, read from /sys and /proc.

It knows the kernel's files and no command; ``root`` is another folder in tests. Rule: what
cannot be read is left out or None, never guessed, and no odd machine makes it raise.

Shape: {"system": {vendor, product, serial, uuid, board}, "firmware": {type, vendor, version,
date}, "cpu": {model, sockets, cores, threads}, "memory": {bytes}, "disks": [{name, serial,
model, bytes, sector_bytes, rotational, bus, fixed, writable, erase (real.py adds it: {methods,
frozen, locked})}], "nics": [{name, mac, link, speed_mbps, driver, boot}], "kernel": str,
"uptime_s": float}.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from node.ramdisk.hardware import Disk

NOT_DISKS: Final = re.compile(r"(loop|ram|zram|sr|fd|md|dm-|nbd|mtdblock|mmcblk\d+(boot|rpmb))")
DISKS_MAX: Final = 256
NICS_MAX: Final = 64
TEXT_CHARS_MAX: Final = 200
NO_SERIALS: Final = frozenset({"", "0", "none", "not specified", "to be filled by o.e.m."})


def read_inventory(boot_mac: str, root: Path = Path("/")) -> dict[str, Any]:
    """Describe the machine in the shape above."""
    dmi = root / "sys/class/dmi/id"
    return {
        "system": {
            "vendor": _text(dmi / "sys_vendor"),
            "product": _text(dmi / "product_name"),
            "serial": _serial(_text(dmi / "product_serial")),
            "uuid": _text(dmi / "product_uuid"),
            "board": _text(dmi / "board_name"),
        },
        "firmware": {
            "type": "uefi" if (root / "sys/firmware/efi").is_dir() else "bios",
            "vendor": _text(dmi / "bios_vendor"),
            "version": _text(dmi / "bios_version"),
            "date": _text(dmi / "bios_date"),
        },
        "cpu": parse_cpuinfo(_raw(root / "proc/cpuinfo").decode("utf-8", "replace")),
        "memory": {
            "bytes": parse_meminfo(_raw(root / "proc/meminfo").decode("ascii", "replace"))
        },
        "disks": read_disks(root),
        "nics": read_nics(boot_mac, root),
        "kernel": _text(root / "proc/sys/kernel/osrelease"),
        "uptime_s": _uptime(root),
    }


def parse_cpuinfo(text: str) -> dict[str, Any]:
    """Return model, sockets, cores and threads from the text of /proc/cpuinfo."""
    model, threads = "", 0
    cores: dict[str, int] = {}
    for block in text.split("\n\n"):
        fields = {
            name.strip(): value.strip()
            for name, _, value in (line.partition(":") for line in block.splitlines())
        }
        if "processor" not in fields:
            continue
        threads += 1
        model = model or fields.get("model name", "")
        count = fields.get("cpu cores", "")
        cores[fields.get("physical id", "0")] = int(count) if count.isdigit() else 0
    return {
        "model": model[:TEXT_CHARS_MAX],
        "sockets": len(cores),
        "cores": sum(cores.values()) or threads,
        "threads": threads,
    }


def parse_meminfo(text: str) -> int | None:
    """Return MemTotal in bytes."""
    found = re.search(r"^MemTotal:\s+(\d{1,15}) kB", text, re.MULTILINE)
    return int(found[1]) * 1024 if found else None


def read_disks(root: Path = Path("/")) -> list[dict[str, Any]]:
    """Return all disks in the order of their kernel names; fixed and writable are told."""
    block = root / "sys/block"
    names = [name for name in _names(block) if not NOT_DISKS.match(name)]
    found: list[dict[str, Any]] = []
    for name in sorted(names, key=disk_order)[:DISKS_MAX]:
        at = block / name
        sectors = _number(at / "size") or 0
        if not sectors or _number(at / "hidden"):
            continue
        bus = _bus(at)
        found.append(
            {
                "name": name,
                "serial": _disk_serial(at),
                "model": _text(at / "device/model"),
                "bytes": sectors * 512,
                "sector_bytes": _number(at / "queue/logical_block_size") or 512,
                "rotational": bool(_number(at / "queue/rotational")),
                "bus": bus,
                "fixed": not _number(at / "removable") and bus != "usb",
                "writable": not _number(at / "ro"),
            }
        )
    return found


def disk_order(name: str) -> tuple[str, int, str]:
    """Sort key of kernel names: sda, sdb, ..., sdaa; nvme0n1, nvme10n1 after nvme2n1."""
    kind = "nvme" if name.startswith("nvme") else name[:2]
    return kind, len(name), name


def usable_disks(disks: list[dict[str, Any]]) -> list[Disk]:
    """Return those that a step may write: fixed, writable, with sectors that we handle."""
    return [
        Disk(
            name=disk["name"],
            path=f"/dev/{disk['name'].replace('!', '/')}",
            serial=disk["serial"],
            bytes=disk["bytes"],
            sector_bytes=disk["sector_bytes"],
            rotational=disk["rotational"],
            model=disk["model"],
            bus=disk["bus"],
        )
        for disk in disks
        if disk["fixed"] and disk["writable"] and disk["sector_bytes"] in (512, 4096)
    ]


def read_nics(boot_mac: str, root: Path = Path("/")) -> list[dict[str, Any]]:
    """Return the interfaces that have a device behind them."""
    net = root / "sys/class/net"
    found: list[dict[str, Any]] = []
    for name in sorted(_names(net))[:NICS_MAX]:
        at = net / name
        if not (at / "device").exists():
            continue
        mac = _text(at / "address").lower()
        speed = _number(at / "speed")
        carrier = _number(at / "carrier")
        found.append(
            {
                "name": name,
                "mac": mac,
                "link": None if carrier is None else carrier == 1,
                "speed_mbps": speed if speed is not None and speed > 0 else None,
                "driver": _link_name(at / "device/driver"),
                "boot": mac == boot_mac.lower(),
            }
        )
    return found


def parse_command_line(text: str) -> Mapping[str, str]:
    """Return the ``rackmesh.*`` words of a kernel command line, without that prefix."""
    words = (word.partition("=") for word in text.split())
    return {
        key.removeprefix("rackmesh."): val for key, _, val in words if key[:9] == "rackmesh."
    }


def _disk_serial(at: Path) -> str:
    for place in (at / "serial", at / "device/serial"):
        if serial := _serial(_text(place)):
            return serial
    page = _raw(at / "device/vpd_pg80")
    if len(page) > 4:
        length = int.from_bytes(page[2:4], "big")
        return _serial(_clean(page[4 : 4 + length]))
    return ""


def _serial(text: str) -> str:
    return "" if text.lower() in NO_SERIALS else text


def _bus(at: Path) -> str:
    place = os.path.realpath(at)
    for bus in ("usb", "nvme", "virtio", "ata", "mmc"):
        if re.search(rf"/{bus}\d*[/-]", place + "/"):
            return bus
    return "scsi" if "/host" in place else "other"


def _link_name(path: Path) -> str:
    try:
        return Path(os.readlink(path)).name
    except OSError:
        return ""


def _names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _raw(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _clean(data: bytes) -> str:
    text = data.split(b"\0")[0].decode("ascii", "replace")
    return "".join(char for char in text if char.isprintable()).strip()[:TEXT_CHARS_MAX]


def _text(path: Path) -> str:
    return _clean(_raw(path))


def _number(path: Path) -> int | None:
    text = _text(path)
    return int(text) if re.fullmatch(r"-?\d{1,20}", text) else None


def _uptime(root: Path) -> float | None:
    words = _text(root / "proc/uptime").split()
    return float(words[0]) if words and re.fullmatch(r"\d+\.\d+", words[0]) else None
