"""A client that has said all it ever will: a stream for the boot listener, without a port."""

import socket
from typing import Any, cast

import trio

from node.boot.http import HttpServer

CLIENT_IP = "10.77.0.20"


class Wire(trio.abc.HalfCloseableStream):
    """Gives the server one text and then the end; what it sends is in ``answer()``.

    Ends are real sockets, since the kernel sends files.
    """

    def __init__(self, said: bytes) -> None:
        self._said = said
        self._own, self._far = socket.socketpair()
        self._own.setblocking(False)
        self._far.setblocking(False)
        self._got = bytearray()
        self.socket = self

    def getpeername(self) -> tuple[str, int]:
        return CLIENT_IP, 50_000

    def fileno(self) -> int:
        return self._own.fileno()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        piece, self._said = self._said[:max_bytes], self._said[max_bytes:]
        return piece

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        self._drain()
        self._got += data

    async def wait_send_all_might_not_block(self) -> None:
        """It never does."""

    async def send_eof(self) -> None:
        """Nobody looks for it."""

    async def aclose(self) -> None:
        self._drain()
        self._own.close()
        self._far.close()

    def _drain(self) -> None:
        while True:
            try:
                piece = self._far.recv(1 << 16) if self._far.fileno() >= 0 else b""
            except BlockingIOError:
                return
            if not piece:
                return
            self._got += piece

    def answer(self) -> bytes:
        return bytes(self._got)


async def said_to(server: HttpServer, data: bytes) -> bytes:
    """Return all that the server answers to a client that says this and hangs up."""
    wire = Wire(data)
    await server.serve(cast(Any, wire))
    return wire.answer()
