"""The daemon's unix socket: only root and the daemon's own user get an answer.

It knows nothing of what is spoken there. Rules: the socket is 0600 from its first moment, and
the kernel says who is at the other end.
"""

import os
import socket
import struct
from pathlib import Path
from typing import Final

import trio

from mesh.errors import Refused

BACKLOG: Final = 64


async def listen_local(path: Path) -> trio.SocketListener:
    """Bind the socket; Refused with one sentence when that cannot be."""
    path.unlink(missing_ok=True)
    sock = trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        await sock.bind(str(path))
    except OSError as exc:
        sock.close()
        raise Refused(f"the socket {path} cannot be made: {exc.strerror or exc}") from exc
    finally:
        os.umask(before)
    sock.listen(BACKLOG)
    return trio.SocketListener(sock)


def peer_uid(sock: trio.socket.SocketType) -> int:
    """Return the user at the other end of a unix socket, as the kernel knows it."""
    raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return int(struct.unpack("3i", raw)[1])


def may_ask(sock: trio.socket.SocketType) -> bool:
    """Tell whether the peer is root or our own user."""
    return peer_uid(sock) in (0, os.geteuid())
