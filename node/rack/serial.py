"""The serial port of one simulated server: what it has written last, and who reads along.

It knows lines and characters, no WebSocket. Rules: the last bytes are kept, a slow reader
misses what was pushed out and is told; what is typed is echoed while the power is on.
"""

from typing import Final

import trio

KEPT_BYTES: Final = 64 << 10
TYPED_BYTES_MAX: Final = 4096


class SerialPort:
    """Bytes out with their position since the start; characters in are echoed."""

    def __init__(self, kept: bytes = b"") -> None:
        self._kept = bytearray(kept[-KEPT_BYTES:])
        self.end = len(self._kept)
        self._changed = trio.Event()

    def write(self, data: bytes) -> None:
        """Write what the server says."""
        self._kept += data
        del self._kept[: max(len(self._kept) - KEPT_BYTES, 0)]
        self.end += len(data)
        self._changed.set()
        self._changed = trio.Event()

    def line(self, text: str) -> None:
        """Write one line."""
        self.write(text.rstrip("\n").encode() + b"\r\n")

    def typed(self, data: bytes) -> None:
        """Take what somebody types: there is no shell, so it is only echoed."""
        self.write(data[:TYPED_BYTES_MAX].replace(b"\r", b"\r\n"))

    async def after(self, position: int) -> tuple[bytes, int]:
        """Wait for bytes above a position; return them and the next position."""
        while self.end <= position:
            await self._changed.wait()
        start = max(position, self.end - len(self._kept))
        return bytes(self._kept[len(self._kept) - (self.end - start) :]), self.end
