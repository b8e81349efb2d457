"""Opening the sockets of the boot services, and saying clearly why one cannot be opened.

It knows no protocol. Rule: a service of a provisioning network is bound to its interface and
never shares its port: a second node on the interface fails here, naming the process that holds
it. Every failure is one sentence that says what to do.
"""

import array
import errno
import fcntl
import os
import resource
import socket
import struct
from pathlib import Path
from typing import Final

from mesh.errors import LocalError

SIOCGIFADDR: Final = 0x8915
NAME_BYTES: Final = 16  # IFNAMSIZ, with the zero
HOLDERS_MAX: Final = 4
SO_RCVBUFFORCE: Final = 33
RECEIVE_BUFFER_BYTES: Final = 4 << 20
"""A few thousand packets, as many as a hall sends in half a second."""
OPEN_FILES: Final = 65_536


def allow_many_sockets() -> None:
    """Raise our limit of open files as far as we may, up to ``OPEN_FILES``."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def interface_address(interface: str) -> str:
    """Return the IPv4 address of an interface, or raise LocalError with one sentence."""
    name = interface.encode()
    if not 0 < len(name) < NAME_BYTES:
        raise LocalError(f"{interface!r} is not the name of a network interface")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        request = array.array("B", struct.pack("16s24x", name))
        try:
            fcntl.ioctl(probe.fileno(), SIOCGIFADDR, request)
        except OSError as exc:
            names = ", ".join(sorted(other for _, other in socket.if_nameindex()))
            if exc.errno == errno.ENODEV:
                raise LocalError(
                    f"there is no network interface {interface}; this machine has: {names}"
                ) from exc
            raise LocalError(
                f"the interface {interface} has no IPv4 address; give it one of the "
                f"provisioning subnet (ip address add ADDRESS/LENGTH dev {interface})"
            ) from exc
    return socket.inet_ntoa(request.tobytes()[20:24])


def udp_socket(
    service: str, address: str, port: int, interface: str | None, *, broadcast: bool = False
) -> socket.socket:
    """Open a non-blocking UDP socket that shares its port with nobody; raises LocalError."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
    try:
        sock.setblocking(False)
        _make_room(sock)
        if broadcast:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        if interface is not None:
            name = interface.encode() + b"\0"
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, name)
        sock.bind((address, port))
    except OSError as exc:
        sock.close()
        raise refusal(exc, service, "udp", address, port, interface) from exc
    return sock


def _make_room(sock: socket.socket) -> None:
    """Let packets wait while we are busy: beyond the system's usual limit where we may."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, RECEIVE_BUFFER_BYTES)
    except OSError:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)


def refusal(
    exc: OSError, service: str, protocol: str, address: str, port: int, interface: str | None
) -> LocalError:
    """Return the sentence for a socket that could not be opened."""
    where = f"{protocol.upper()} port {port} on {interface or address}"
    match exc.errno:
        case errno.EADDRINUSE:
            held = holders(protocol, port)
            by = " and ".join(held) if held else "another process"
            return LocalError(
                f"{service} cannot use {where}: it is held by {by}; stop that process, or give "
                f"this node another interface ([interfaces] provisioning)"
            )
        case errno.EACCES | errno.EPERM:
            return LocalError(
                f"{service} may not use {where}: run the node as root or give it the "
                f"capabilities CAP_NET_BIND_SERVICE and CAP_NET_RAW, or set "
                f"[boot] {service.lower()}_port = 0 to try it on a free port"
            )
        case errno.EADDRNOTAVAIL:
            return LocalError(
                f"{service} cannot listen on {address}: no interface of this machine has that "
                f"address; set [boot] listen or [interfaces] provisioning"
            )
        case errno.ENODEV:
            return LocalError(f"there is no network interface {interface}")
        case _:
            return LocalError(f"{service} cannot use {where}: {exc.strerror}")


def holders(protocol: str, port: int) -> list[str]:
    """Return the processes of this network namespace that hold a local port, for people."""
    wanted = f":{port:04X}"
    inodes: list[str] = []
    try:
        lines = Path(f"/proc/thread-self/net/{protocol}").read_text().splitlines()[1:]
    except OSError:
        return []
    for line in lines:
        columns = line.split()
        listening = protocol == "udp" or columns[3] == "0A"
        if columns[1].endswith(wanted) and listening:
            inodes.append(columns[9])
    return [
        _process_of(inode) or f"a process of another user (socket {inode})"
        for inode in inodes[:HOLDERS_MAX]
    ]


def _process_of(inode: str) -> str | None:
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            if not _has_open(entry, f"socket:[{inode}]"):
                continue
            words = (entry / "cmdline").read_bytes().split(b"\0")
            command = b" ".join(words[:4]).decode("utf-8", "replace").strip()[:80]
            return f"process {entry.name} ({command or (entry / 'comm').read_text().strip()})"
        except OSError:
            continue
    return None


def _has_open(process: Path, target: str) -> bool:
    for fd in (process / "fd").iterdir():
        try:
            if os.readlink(fd) == target:
                return True
        except FileNotFoundError:  # closed meanwhile by another thread; the others still count
            continue
    return False
