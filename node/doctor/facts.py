"""Facts of this machine, as the kernel and the file system tell them; nothing is judged here.

Rule: a fact that cannot be had is None, never a guess, and reading changes nothing.
"""

import ctypes
import errno
import os
import socket
from pathlib import Path
from typing import Final

from mesh.errors import LocalError
from node.boot.sockets import holders, interface_address, udp_socket
from node.proto.doctor import Nic, Port

TIMEX_BYTES: Final = 256  # struct timex of adjtimex(2) has 208
TIME_ERROR: Final = 5  # "clock not synchronized"
ARPHRD_ETHER: Final = "1"


def memory_bytes() -> tuple[int, int]:
    """Return total and available memory."""
    values: dict[str, int] = {}
    for line in Path("/proc/meminfo").read_text().splitlines():
        name, _, rest = line.partition(":")
        values[name] = int(rest.split()[0]) * 1024
    return values["MemTotal"], values.get("MemAvailable", values["MemFree"])


def existing(folder: Path) -> Path:
    """Return the folder, or the nearest parent that exists."""
    return next(path for path in (folder, *folder.parents) if path.exists())


def file_system(folder: Path) -> str | None:
    """Return the kind of file system that a folder is on, as in /proc/mounts."""
    there, best, kind = str(existing(folder).resolve()), "", None
    for line in Path("/proc/self/mounts").read_text().splitlines():
        point, found = line.split()[1:3]
        point = point.encode().decode("unicode_escape")
        inside = there == point or there.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):
            best, kind = point, found
    return kind


def nics() -> list[Nic]:
    """Return the Ethernet interfaces by name, without loopback."""
    found: list[Nic] = []
    for _, name in sorted(socket.if_nameindex(), key=lambda entry: entry[1]):
        folder = Path("/sys/class/net") / name
        if _word(folder / "type") != ARPHRD_ETHER:
            continue
        flags = int(_word(folder / "flags") or "0", 16)
        carrier = _word(folder / "carrier")
        found.append(Nic(
            name=name, up=bool(flags & 1), address=_address(name),
            carrier=None if carrier is None else carrier == "1",
            virtual=not (folder / "device").exists(),
        ))  # fmt: skip
    return found


def _address(name: str) -> str | None:
    try:
        return interface_address(name)
    except LocalError:
        return None


def _word(path: Path) -> str | None:
    try:
        return path.read_text().strip() or None
    except OSError:
        return None


def port(
    service: str, protocol: str, number: int, listen: str, interface: str | None, ours: bool
) -> Port:
    """Look whether a port can be had, by taking it for a moment; ``ours``: it is not tried."""
    where = f"{protocol.upper()} {number} of {interface or listen}"
    if ours:
        return Port(service=service, where=where, number=number, held=None, ours=True)
    held = refused = None
    try:
        if protocol == "udp":
            udp_socket(service, listen if interface is None else "", number, interface).close()
        else:
            _take_tcp(listen, number)
    except (LocalError, OSError) as exc:
        cause = exc.__cause__ if isinstance(exc, LocalError) else exc
        if isinstance(cause, OSError) and cause.errno == errno.EADDRINUSE:
            held = " and ".join(holders(protocol, number)) or "another process"
        else:
            refused = getattr(cause, "strerror", None) or str(exc)
    return Port(
        service=service, where=where, number=number, held=held, ours=False, refused=refused
    )


def _take_tcp(listen: str, number: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((listen, number))
        sock.listen(1)  # a listener of another with SO_REUSEADDR shows only here


def synchronised() -> bool | None:
    """Return whether the kernel's clock is kept right (adjtimex(2)); None: it does not say."""
    buffer = ctypes.create_string_buffer(TIMEX_BYTES)
    answer = ctypes.CDLL(None, use_errno=True).adjtimex(buffer)
    return None if answer < 0 else answer != TIME_ERROR


def built_ms() -> int:
    """Return when this program was put here, Unix ms: no clock can be earlier."""
    return int(Path(__file__).stat().st_mtime * 1000)


def names_in(folder: Path) -> list[str] | None:
    """Return the names of the files of a folder; None when it cannot be read."""
    try:
        return sorted(entry.name for entry in folder.iterdir() if entry.is_file())
    except OSError:
        return None


def arp(address: str) -> str | None:
    """Return the MAC address that the kernel knows for an IPv4 address."""
    for line in (Path("/proc/thread-self/net/arp").read_text().splitlines())[1:]:
        columns = line.split()
        if columns[0] == address and columns[3] != "00:00:00:00:00:00":
            return columns[3]
    return None


def cores() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0))
