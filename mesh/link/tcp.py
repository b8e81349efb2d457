"""Records on plain TCP (Noise alone seals them): dialler and carrier.

It knows no keys and no frames. Rule: bytes are read into one buffer and cut where they lie, and
large records go to the socket one by one, so that nothing is copied for the sake of framing.
"""

from collections.abc import Iterable
from typing import Final

import trio

from mesh.errors import Unreachable
from mesh.link.carrier import CarrierLost
from mesh.proto.record import RECORD_BYTES_MAX, RecordBuffer

BUFFER_BYTES: Final = 4 * RECORD_BYTES_MAX
JOIN_BYTES_MAX: Final = 16_384
"""Records up to this size are put together for one send; larger ones go alone."""
DIAL_S: Final = 10.0


class TcpCarrier:
    """One TCP connection."""

    name = "tcp"

    def __init__(self, stream: trio.SocketStream, address: str) -> None:
        self.address = address
        self._stream = stream
        self._buffer = RecordBuffer(BUFFER_BYTES)

    async def send(self, records: Iterable[bytes | memoryview]) -> None:
        """Send whole records in order."""
        try:
            small = bytearray()
            for record in records:
                if len(record) <= JOIN_BYTES_MAX:
                    small += record
                    if len(small) < JOIN_BYTES_MAX:
                        continue
                    record = b""
                if small:
                    await self._stream.send_all(small)
                    small = bytearray()
                if record:
                    await self._stream.send_all(record)
            if small:
                await self._stream.send_all(small)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as exc:
            raise CarrierLost("the connection broke while sending") from exc

    async def receive(self) -> tuple[int, memoryview]:
        """Return kind and body of the next record."""
        while (record := self._buffer.next()) is None:
            try:
                count = await self._stream.socket.recv_into(self._buffer.writable())
            except OSError as exc:
                raise CarrierLost("the connection broke while receiving") from exc
            if not count:
                raise CarrierLost("the connection ended")
            self._buffer.wrote(count)
        return record

    async def aclose(self) -> None:
        """Close at once."""
        await trio.aclose_forcefully(self._stream)


def address_text(host: str, port: int) -> str:
    """Return host and port as people write them."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def peer_address(stream: trio.SocketStream) -> str:
    """Return the other end of a connection."""
    try:
        name = stream.socket.getpeername()
    except OSError:
        return "?"
    return address_text(str(name[0]), int(name[1]))


async def dial_tcp(host: str, port: int) -> TcpCarrier:
    """Connect; raise Unreachable."""
    where = address_text(host, port)
    try:
        with trio.fail_after(DIAL_S):
            stream = await trio.open_tcp_stream(host, port)
    except (OSError, trio.TooSlowError) as exc:
        raise Unreachable(f"no TCP connection to {where}: {exc or 'no answer'}") from exc
    return TcpCarrier(stream, where)
