"""A TFTP read, client side (RFC 1350, 2347, 2348, 2349), as a boot ROM does it.

Knows no socket. Rule: the first answer fixes the server's port; a packet from anywhere else, or
one that makes no sense, is dropped and counted.
"""

from dataclasses import dataclass
from typing import Final

BLOCK_BYTES: Final = 1432
FILE_BYTES_MAX: Final = 16 << 20
RETRY_S: Final = 1.0
TRIES_MAX: Final = 5
REASON_CHARS_MAX: Final = 120

_RRQ, _DATA, _ACK, _ERROR, _OACK = 1, 3, 4, 5, 6

Address = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Send:
    """Send a datagram to the server."""

    datagram: bytes
    to: Address


@dataclass(frozen=True, slots=True)
class Finished:
    """The whole file."""

    content: bytes


@dataclass(frozen=True, slots=True)
class Failed:
    """No file, and why."""

    reason: str


Effect = Send | Finished | Failed


class TftpRead:
    """One file from one server."""

    def __init__(self, server: Address, name: str, block_bytes: int = BLOCK_BYTES) -> None:
        assert 8 <= block_bytes <= 65464, "block size out of RFC 2348"
        self.deadline: float | None = None
        self.dropped = 0
        self._server = server
        self._peer: Address | None = None
        self._block_bytes = 512
        self._block = 0  # the last one that we have
        self._content = bytearray()
        self._tries = 0
        options = f"octet\0blksize\0{block_bytes}\0tsize\0" + "0\0"
        self._wanted = block_bytes
        self._last = _RRQ.to_bytes(2, "big") + f"{name}\0{options}".encode()

    def start(self, now: float) -> list[Effect]:
        """Send the request."""
        self._tries = 1
        self.deadline = now + RETRY_S
        return [Send(self._last, self._server)]

    def on_timer(self, now: float) -> list[Effect]:
        """Send the last packet again, or give up."""
        if self.deadline is None or now < self.deadline:
            return []
        if self._tries >= TRIES_MAX:
            return self._fail(f"no answer after {TRIES_MAX} tries")
        self._tries += 1
        self.deadline = now + RETRY_S * self._tries
        return [Send(self._last, self._peer or self._server)]

    def on_datagram(self, data: bytes, source: Address, now: float) -> list[Effect]:
        """Take one packet."""
        if self.deadline is None or len(data) < 4 or source[0] != self._server[0]:
            return self._drop()
        if self._peer is not None and source != self._peer:
            return self._drop()
        kind, body = int.from_bytes(data[:2], "big"), data[2:]
        if kind == _ERROR:
            text = body[2:].split(b"\0")[0].decode("utf-8", "replace")[:REASON_CHARS_MAX]
            return self._fail(f"error {int.from_bytes(body[:2], 'big')}: {text}")
        if kind == _OACK and self._block == 0 and not self._content:
            return self._on_options(body, source, now)
        if kind == _DATA:
            return self._on_data(int.from_bytes(body[:2], "big"), body[2:], source, now)
        return self._drop()

    def _on_options(self, body: bytes, source: Address, now: float) -> list[Effect]:
        words = body.split(b"\0")[:-1]
        options = {words[i].lower(): words[i + 1] for i in range(0, len(words) - 1, 2)}
        size = options.get(b"blksize", b"512")
        if not size.isdigit() or len(size) > 5 or not 8 <= int(size) <= self._wanted:
            return self._fail("the server changed the block size to one not asked for")
        total = options.get(b"tsize", b"0")
        if not total.isdigit() or len(total) > 12 or int(total) > FILE_BYTES_MAX:
            return self._fail(f"the file is larger than {FILE_BYTES_MAX} bytes")
        self._peer = source
        self._block_bytes = int(size)
        return self._acknowledge(now)

    def _on_data(self, block: int, chunk: bytes, source: Address, now: float) -> list[Effect]:
        if block != (self._block + 1) & 0xFFFF or len(chunk) > self._block_bytes:
            return self._drop()  # a duplicate is answered by the timer, not at once (RFC 1123)
        if len(self._content) + len(chunk) > FILE_BYTES_MAX:
            return self._fail(f"the file is larger than {FILE_BYTES_MAX} bytes")
        self._peer = source
        self._block += 1
        self._content += chunk
        effects = self._acknowledge(now)
        if len(chunk) < self._block_bytes:
            self.deadline = None
            effects.append(Finished(bytes(self._content)))
        return effects

    def _acknowledge(self, now: float) -> list[Effect]:
        assert self._peer is not None
        self._last = _ACK.to_bytes(2, "big") + (self._block & 0xFFFF).to_bytes(2, "big")
        self._tries = 1
        self.deadline = now + RETRY_S
        return [Send(self._last, self._peer)]

    def _drop(self) -> list[Effect]:
        self.dropped += 1
        return []

    def _fail(self, reason: str) -> list[Effect]:
        self.deadline = None
        return [Failed(reason)]
