"""Records on plain TCP (Noise alone seals them): dialler and carrier.

It knows no keys and no frames. Rule: bytes are read into one buffer and cut where they lie, and
several records go to the socket with one call: nothing is copied for the sake of framing.
"""

from collections.abc import Iterable
from typing import Final

import trio

from mesh.errors import Unreachable
from mesh.link.carrier import CarrierLost
from mesh.proto.record import RECORD_BYTES_MAX, RECORDS_HELD, SMALL_BYTES, RecordBuffer

BUFFER_BYTES: Final = 4 * RECORD_BYTES_MAX
VECTORS_MAX: Final = 64
"""Records in one call, far below what the system takes (1,024)."""
DIAL_S: Final = 10.0


class TcpCarrier:
    """One TCP connection."""

    name = "tcp"

    def __init__(self, stream: trio.SocketStream, address: str) -> None:
        self.address = address
        self._host = peer_host(stream)
        self._stream = stream
        self._buffer = RecordBuffer(BUFFER_BYTES)

    async def send(self, records: Iterable[bytes | memoryview]) -> None:
        """Send whole records in order."""
        held: list[bytes | memoryview] = []
        large = 0
        try:
            for record in records:
                held.append(record)
                large += len(record) > SMALL_BYTES
                if large == RECORDS_HELD or len(held) == VECTORS_MAX:
                    await self._send_all(held)
                    held.clear()
                    large = 0
            if held:
                await self._send_all(held)
        except (OSError, trio.ClosedResourceError) as exc:
            raise CarrierLost("the connection broke while sending") from exc

    async def _send_all(self, records: list[bytes | memoryview]) -> None:
        """Give some records to the socket with as few calls as it takes."""
        sent = await self._stream.socket.sendmsg(records)
        for record in records:
            if sent < len(record):
                rest = memoryview(record)[sent:]
                while rest:
                    rest = rest[await self._stream.socket.send(rest) :]
            sent = max(0, sent - len(record))

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

    def datagram_address(self, port: int) -> tuple[str, int] | None:
        """Return where the other end takes datagrams if its port is this, or None."""
        return (self._host, port) if self._host is not None and port else None

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


def peer_host(stream: trio.SocketStream) -> str | None:
    """Return the IP address of the other end."""
    try:
        return str(stream.socket.getpeername()[0])
    except OSError:
        return None


async def dial_tcp(host: str, port: int) -> TcpCarrier:
    """Connect; raise Unreachable."""
    where = address_text(host, port)
    try:
        with trio.fail_after(DIAL_S):
            stream = await trio.open_tcp_stream(host, port)
    except (OSError, trio.TooSlowError) as exc:
        raise Unreachable(f"no TCP connection to {where}: {exc or 'no answer'}") from exc
    return TcpCarrier(stream, where)
