"""A body put together of bytes and files, sent by range without being made as a whole.

It knows no disc and no request. Rule: a file that is not what it was when the body was made
ends the connection, so nobody gets a mixture of two.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Final

import trio

from node.boot.files import file_etag
from node.boot.http_body import FileBody, StreamStalled, send_bytes, send_file
from node.proto.http_range import Span

NO_DESCRIPTOR: Final = -1
PIECE_BYTES: Final = 256 << 10


@dataclass(frozen=True, slots=True)
class Part:
    """Bytes in memory, or a whole file; ``etag`` names exactly these bytes."""

    size: int
    etag: str
    content: bytes = b""
    path: Path | None = None


class PartsBody(FileBody):
    """Parts one after the other as an answer's body."""

    parts: tuple[Part, ...]

    def __init__(self, parts: Sequence[Part], content_type: str) -> None:
        digest = blake2b(digest_size=12)
        for part in parts:
            digest.update(f"{part.size} {part.etag}\n".encode())
        size = sum(part.size for part in parts)
        super().__init__(NO_DESCRIPTOR, size, digest.hexdigest(), content_type)
        object.__setattr__(self, "parts", tuple(parts))

    def open(self) -> int:
        """Open nothing yet: each file is opened when its turn comes."""
        return NO_DESCRIPTOR

    def close(self, descriptor: int) -> None:
        """Close nothing."""

    async def send(
        self, stream: trio.SocketStream, descriptor: int, span: Span, stall_s: float
    ) -> None:
        """Send the part of each part that lies in the span."""
        at, end = 0, span.offset + span.length
        for part in self.parts:
            first, last = max(span.offset, at), min(end, at + part.size)
            if first < last:
                await _send_part(
                    stream, part, Span(first - at, last - first, partial=True), stall_s
                )
            at += part.size


async def _send_part(stream: trio.SocketStream, part: Part, span: Span, stall_s: float) -> None:
    if part.path is None:
        end = span.offset + span.length
        for at in range(span.offset, end, PIECE_BYTES):
            piece = part.content[at : min(at + PIECE_BYTES, end)]
            await send_bytes(stream, piece, stall_s)
        return
    try:
        descriptor = os.open(part.path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as exc:
        raise StreamStalled from exc
    try:
        if file_etag(os.fstat(descriptor)) != part.etag:
            raise StreamStalled  # another file stands there now
        await send_file(stream, descriptor, span, None, stall_s)
    finally:
        os.close(descriptor)
