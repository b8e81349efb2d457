"""Commands to a drive through the kernel: one ioctl, with its buffers at known addresses.

It knows no command set. Rule: what may take minutes runs in a child process, since it cannot be
interrupted and the node must hear from us meanwhile; a real machine's agent is alone in its
process and has no threads, so a fork is safe there. Why ioctls and not nvme-cli and hdparm:
hdparm ends with 0 after a command that the drive has aborted, and both would be two more
packages and a parser each; what is needed are two structures of the kernel's stable interface.
"""

import array
import fcntl
import os
import select
import signal
import struct
from collections.abc import Callable
from typing import Final

TICK_S: Final = 0.5
FAILED: Final = 1
_RESULT: Final = struct.Struct("<iI")
"""errno (0: none) and what the ioctl returned; the changed structure follows."""


def buffer(data: bytes | int) -> "array.array[int]":
    """Return memory with a fixed address: a copy of bytes, or so many zeros."""
    return array.array("B", bytes(data) if isinstance(data, int) else data)


def address(memory: "array.array[int]") -> int:
    """Return where a buffer lies."""
    return memory.buffer_info()[0]


def call(descriptor: int, request: int, command: bytearray) -> int:
    """Do one ioctl that ends soon; ``command`` holds the kernel's answer. Raises OSError."""
    return int(fcntl.ioctl(descriptor, request, command))


def call_slowly(
    descriptor: int,
    request: int,
    command: bytearray,
    tick: Callable[[], None],
    also: "array.array[int] | None" = None,
) -> int:
    """Do one ioctl that may take hours, in a child; ``command`` and ``also`` come back.

    An exception of ``tick`` leaves the child alone: a drive that has begun does not stop.
    """
    reader, writer = os.pipe2(os.O_CLOEXEC)
    child = os.fork()
    if child == 0:
        os._exit(_in_child(descriptor, request, command, writer, also or array.array("B")))
    os.close(writer)
    try:
        while not select.select([reader], [], [], TICK_S)[0]:
            tick()
        found = b""
        while piece := os.read(reader, 4096):
            found += piece
    finally:
        os.close(reader)
    os.waitpid(child, 0)
    size = _RESULT.size + len(command)
    if len(found) != size + len(also or ()):
        raise OSError(FAILED, "the child that asked the drive died")
    number, returned = _RESULT.unpack_from(found)
    if number:
        raise OSError(number, os.strerror(number))
    command[:] = found[_RESULT.size : size]
    if also:
        also[:] = array.array("B", found[size:])
    return int(returned)


def _in_child(
    descriptor: int, request: int, command: bytearray, writer: int, also: "array.array[int]"
) -> int:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    number = returned = 0
    try:
        returned = fcntl.ioctl(descriptor, request, command)
    except OSError as exc:
        number = exc.errno or FAILED
    os.write(writer, _RESULT.pack(number, returned & 0xFFFFFFFF) + bytes(command) + bytes(also))
    return 0
