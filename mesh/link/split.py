"""One port, two protocols: read a request's head, then give the connection to who serves it.

The hub's HTTPS port calls ``read_head`` on every accepted TLS stream. ``/mesh/1`` goes to
``serve_websocket``; for anything else the ReplayStream, which gives the bytes read so far once
more, goes to the web server as if nothing had been read (it has all that Hypercorn's trio
``TCPServer`` asks of a stream). It knows no HTTP beyond the first line. Rule: a client that
sends nothing, slowly or without end is cut off here, by time and by bytes.
"""

from typing import Any, Final

import trio

from mesh.errors import RemoteError

MESH_PATH: Final = "/mesh/1"
HEAD_BYTES_MAX: Final = 32_768
HEAD_S: Final = 15.0


class HeadMissing(RemoteError):
    """No request's head came in time; the connection is to be closed."""


class ReplayStream(trio.abc.Stream):
    """A stream that first gives bytes which were read from it before."""

    def __init__(self, inner: Any, prefix: bytes) -> None:
        self.inner = inner
        self._prefix = prefix

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """Return the replayed bytes first, then what arrives."""
        if self._prefix:
            await trio.lowlevel.checkpoint()
            count = len(self._prefix) if max_bytes is None else max_bytes
            data, self._prefix = self._prefix[:count], self._prefix[count:]
            return data
        data = await self.inner.receive_some(max_bytes)
        assert isinstance(data, (bytes, bytearray))
        return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send."""
        await self.inner.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until sending might not block."""
        await self.inner.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        """Close the connection below."""
        await self.inner.aclose()

    def __getattr__(self, name: str) -> Any:
        """Whatever else the stream below has: TLS handshake, ALPN, sockets, certificates.

        An AttributeError from there is right: Hypercorn tells TLS from plain by it.
        """
        return getattr(self.inner, name)


async def read_head(stream: Any) -> tuple[bytes, ReplayStream]:
    """Read until a request's head is whole; return it and the stream as if unread.

    The bytes are as received and may go beyond the head. Raises HeadMissing.
    """
    head = bytearray()
    try:
        with trio.fail_after(HEAD_S):
            while b"\r\n\r\n" not in head:
                if len(head) > HEAD_BYTES_MAX:
                    raise HeadMissing("a request's head without end")
                data = await stream.receive_some(HEAD_BYTES_MAX)
                if not data:
                    raise HeadMissing("the client went away")
                head += data
    except (trio.BrokenResourceError, trio.ClosedResourceError) as exc:
        raise HeadMissing("the connection broke") from exc
    except trio.TooSlowError as exc:
        raise HeadMissing("no request in time") from exc
    return bytes(head), ReplayStream(stream, bytes(head))


def is_mesh_request(head: bytes) -> bool:
    """Tell whether a request's head asks for the members' WebSocket."""
    words = head.split(b"\r\n", 1)[0].split(b" ")
    return len(words) == 3 and words[0] == b"GET" and words[1] == MESH_PATH.encode()
