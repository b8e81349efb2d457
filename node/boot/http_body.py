"""Bodies of answers: how bytes and files reach a client without a copy and without blocking.

It knows no requests. Rule: a file goes out by sendfile in slices; before each slice the body's
``wait`` says that these bytes are there, after each one other tasks have their turn, and a
client that takes nothing for ``stall_s`` is given up.
"""

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import trio

from node.boot.ports import WaitRange
from node.proto.http_range import Span

SLICE_BYTES: Final = 256 << 10
"""One sendfile call (measured: equal to larger ones, and fairer)."""


class StreamStalled(Exception):
    """The client took no byte for too long, or the bytes promised never came."""


@dataclass(frozen=True, slots=True)
class FileBody:
    """A file as an answer's body; ``etag`` without quotes names exactly these bytes.

    ``source``: a path, opened while it is sent, or a descriptor, of which a duplicate is sent.
    ``sha256``: 32 bytes of the whole file, when they are known.
    ``wait(offset, length)`` returns when the bytes may be sent (serve while downloading).
    ``done`` is called once when the answer has ended in whatever way.
    """

    source: Path | int
    size: int
    etag: str
    content_type: str = "application/octet-stream"
    sha256: bytes | None = None
    wait: WaitRange | None = None
    done: Callable[[], None] | None = None

    def open(self) -> int:
        """Return a descriptor of our own; raises OSError."""
        if isinstance(self.source, int):
            return os.dup(self.source)
        return os.open(self.source, os.O_RDONLY | os.O_CLOEXEC)

    def close(self, descriptor: int) -> None:
        """Close what ``open`` returned."""
        os.close(descriptor)

    async def send(
        self, stream: trio.SocketStream, descriptor: int, span: Span, stall_s: float
    ) -> None:
        """Send one span; raises StreamStalled, OSError, or what ``wait`` raises."""
        await send_file(stream, descriptor, span, self.wait, stall_s)

    def release(self) -> None:
        """Tell the owner that the answer has ended."""
        if self.done is not None:
            self.done()


async def send_bytes(stream: trio.SocketStream, data: bytes, stall_s: float) -> None:
    """Send bytes, or raise StreamStalled when the client does not take them."""
    if not data:
        return
    with trio.move_on_after(stall_s) as scope:
        await stream.send_all(data)
    if scope.cancelled_caught:
        raise StreamStalled


async def send_file(
    stream: trio.SocketStream,
    descriptor: int,
    span: Span,
    wait: WaitRange | None,
    stall_s: float,
) -> None:
    """Send one span of a file; raises StreamStalled, OSError, or what ``wait`` raises."""
    socket_fd = stream.socket.fileno()
    offset, end = span.offset, span.offset + span.length
    while offset < end:
        length = min(SLICE_BYTES, end - offset)
        if wait is not None:
            try:
                await wait(offset, length)
            except Exception as exc:  # the asset failed; the connection can only end
                raise StreamStalled from exc
        sent = None
        with suppress(BlockingIOError):
            sent = os.sendfile(socket_fd, descriptor, offset, length)
        if sent is None:
            with trio.move_on_after(stall_s) as scope:
                await trio.lowlevel.wait_writable(socket_fd)
            if scope.cancelled_caught:
                raise StreamStalled
            continue
        if not sent:
            raise StreamStalled  # the file is shorter than it was
        offset += sent
        await trio.lowlevel.checkpoint()
