"""How blocks of a transfer reach the wire: many packets with one call where the kernel can.

It knows no protocol but the block header. Rule: what the socket does not take is lost like a
packet; the transfer's own timer sends it again.
"""

import errno
import os
import socket
import struct
from collections.abc import Generator
from contextlib import contextmanager
from typing import Final, Protocol

from node.boot.files import BootFile
from node.proto.tftp import Blocks, data_header

UDP_SEGMENT: Final = 103
"""linux/udp.h: the kernel cuts one message into datagrams of this size (Linux 4.18)."""
SEGMENTS_MAX: Final = 64
BATCH_BYTES_MAX: Final = 65_000
HEADER_BYTES: Final = 4
_SEGMENT: Final = struct.Struct("H")
_UNABLE: Final = frozenset({errno.EIO, errno.EINVAL, errno.ENOPROTOOPT, errno.EOPNOTSUPP})


class Content(Protocol):
    """What is sent: bytes, or anything else that has a length and slices to bytes."""

    def __len__(self) -> int: ...
    def __getitem__(self, part: slice, /) -> bytes: ...


Pieces = list[bytes | memoryview]


class Ahead:
    """What one transfer will most likely send next, made while the client is busy."""

    __slots__ = ("blocks", "pieces")

    def __init__(self) -> None:
        self.blocks = Blocks(0, 0)
        self.pieces: Pieces = []


class BlockSender:
    """Sends blocks over connected sockets; remembers what the kernel cannot do."""

    def __init__(self) -> None:
        self.batches = True
        """UDP_SEGMENT works."""
        self.lost = 0
        """Packets that a socket did not take."""

    def send(
        self, sock: socket.socket, content: Content, blocks: Blocks, size: int, ahead: Ahead
    ) -> None:
        """Send blocks of ``size`` bytes each; raises OSError of the content or the network."""
        pieces = ahead.pieces if blocks == ahead.blocks else _pieces(content, blocks, size)
        most = 2 * min(SEGMENTS_MAX, BATCH_BYTES_MAX // (size + HEADER_BYTES))
        for at in range(0, len(pieces), most):
            part = pieces[at : at + most]
            if not (len(part) > 2 and self.batches and self._batch(sock, part, size)):
                for each in range(0, len(part), 2):
                    self._one(sock, part[each : each + 2])
        if blocks.count > 1:
            last = (len(content) // size + 1) - (blocks.first + blocks.count - 1)
            ahead.blocks = Blocks(blocks.first + blocks.count, min(blocks.count, last))
            ahead.pieces = _pieces(content, ahead.blocks, size)

    def _one(self, sock: socket.socket, pieces: Pieces) -> None:
        try:
            sock.sendmsg(pieces)
        except BlockingIOError:
            self.lost += 1

    def _batch(self, sock: socket.socket, pieces: Pieces, size: int) -> bool:
        segment = _SEGMENT.pack(size + HEADER_BYTES)
        try:
            sock.sendmsg(pieces, [(socket.SOL_UDP, UDP_SEGMENT, segment)])
        except BlockingIOError:
            self.lost += len(pieces) // 2
        except OSError as exc:
            if exc.errno not in _UNABLE:
                raise
            self.batches = False  # an old kernel, or a card without checksums
            return False
        return True


def _pieces(content: Content, blocks: Blocks, size: int) -> Pieces:
    """Return header and content of each block, one after the other."""
    at = (blocks.first - 1) * size
    data = memoryview(content[at : at + blocks.count * size])
    found: Pieces = []
    for each in range(blocks.count):
        found.append(data_header(blocks.first + each))
        found.append(data[each * size : (each + 1) * size])
    return found


@contextmanager
def opened(file: BootFile) -> Generator[Content]:
    """Open a boot file for one transfer; raises OSError."""
    if file.path is None:
        yield file.content
        return
    descriptor = os.open(file.path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield _FileContent(descriptor, os.fstat(descriptor).st_size)
    finally:
        os.close(descriptor)


class _FileContent:
    """An open file as content; not mapped, since a file cut short would kill the process."""

    def __init__(self, descriptor: int, size: int) -> None:
        self._descriptor = descriptor
        self._size = size

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, part: slice, /) -> bytes:
        start, stop, _ = part.indices(self._size)
        data = os.pread(self._descriptor, stop - start, start)
        if len(data) != stop - start:
            raise OSError(errno.EIO, "the file became shorter while it was sent")
        return data
