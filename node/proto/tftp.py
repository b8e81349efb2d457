"""TFTP, reading only: requests parsed, one transfer as a state machine.

RFC 1350 with options (2347), blksize (2348), tsize and timeout (2349); octet mode only, no
window. It knows no sockets and no file system. Rules: an OACK holds only what was asked for
(UEFI aborts otherwise); a repeated acknowledgement never makes us send twice (the Sorcerer's
Apprentice, RFC 1123 section 4.2.3.1), only silence does; block numbers go on at 0 after 65,535.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

RRQ, WRQ, DATA, ACK, ERROR, OACK = 1, 2, 3, 4, 5, 6

NOT_DEFINED: Final = 0
NOT_FOUND: Final = 1
ACCESS_VIOLATION: Final = 2
ILLEGAL: Final = 4
UNKNOWN_TRANSFER: Final = 5
OPTIONS_DECLINED: Final = 8

BLOCK_BYTES: Final = 512
BLOCK_BYTES_LEAST: Final = 8
BLOCK_BYTES_MOST: Final = 1468  # an Ethernet frame less IP, UDP and TFTP headers
REQUEST_BYTES_MAX: Final = 1024
OPTIONS_MAX: Final = 16
RETRIES_MAX: Final = 6
RETRY_S_FIRST: Final = 1.0
RETRY_S_LEAST: Final = 0.2
RETRY_S_MOST: Final = 4.0


@dataclass(frozen=True, slots=True)
class ReadRequest:
    """A read request; ``options`` have lower case names and values as text, first one wins."""

    name: str
    options: dict[str, str]


@dataclass(frozen=True, slots=True)
class Refusal:
    """What a request is answered with when it is not served."""

    code: int
    sentence: str

    def datagram(self) -> bytes:
        """Return the ERROR packet."""
        return error(self.code, self.sentence)


@dataclass(frozen=True, slots=True)
class Send:
    """Send this datagram to the client."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Finished:
    """The client has everything."""

    bytes_sent: int


@dataclass(frozen=True, slots=True)
class Aborted:
    """The transfer ended early; ``failure`` is False when the client only wanted to look.

    OVMF asks for the size, reads the OACK and goes away with ERROR 8; that is no failure.
    """

    sentence: str
    failure: bool


Effect = Send | Finished | Aborted


def parse_request(data: bytes) -> ReadRequest | Refusal | None:
    """Return a read request, a refusal to send, or None: not worth an answer."""
    if len(data) < 4 or len(data) > REQUEST_BYTES_MAX or data[0] != 0:
        return None
    if data[1] == WRQ:
        return Refusal(ACCESS_VIOLATION, "this server only gives files out")
    if data[1] != RRQ or data[-1] != 0:
        return None
    parts = data[2:-1].split(b"\0")
    if len(parts) < 2:
        return None
    try:
        name, mode, *rest = (part.decode("ascii") for part in parts)
    except UnicodeDecodeError:
        return Refusal(NOT_FOUND, "there is no such file")
    if mode.lower() != "octet":
        return Refusal(ILLEGAL, "only octet mode is served")
    options: dict[str, str] = {}
    for key, value in zip(rest[::2], rest[1::2], strict=False):
        if len(options) < OPTIONS_MAX:
            options.setdefault(key.lower(), value)
    return ReadRequest(name, options)


def error(code: int, sentence: str) -> bytes:
    """Return an ERROR packet."""
    return bytes((0, ERROR, 0, code)) + sentence.encode("ascii", "replace") + b"\0"


class Content(Protocol):
    """What is sent: bytes, or anything else that has a length and slices to bytes."""

    def __len__(self) -> int: ...
    def __getitem__(self, part: slice, /) -> bytes: ...


class ReadTransfer:
    """One transfer to one client, from the answer to its request until it has all blocks."""

    def __init__(self, content: Content, options: dict[str, str]) -> None:
        self.deadline: float | None = None
        self.retransmitted = 0
        self._content = content
        self._size = len(content)
        self._granted: dict[str, str] = {}
        self._block_bytes = BLOCK_BYTES
        self._fixed_retry_s: float | None = None
        self._grant(options)
        self._block = 0  # the block that waits for its acknowledgement; 0: the OACK
        self._last = self._size // self._block_bytes + 1
        self._pending = b""
        self._sent_at = 0.0
        self._tries = 0
        self._rtt_s: float | None = None
        self._over = False

    @property
    def granted(self) -> Sequence[tuple[str, str]]:
        """Options of the OACK in the order asked; empty: no OACK is sent."""
        return tuple(self._granted.items())

    def _grant(self, options: dict[str, str]) -> None:
        for name, value in options.items():
            number = int(value) if re.fullmatch("[0-9]{1,11}", value) else -1
            if name == "blksize" and number >= BLOCK_BYTES_LEAST:
                self._block_bytes = min(number, BLOCK_BYTES_MOST)
                self._granted[name] = str(self._block_bytes)
            elif name == "tsize" and number >= 0:
                self._granted[name] = str(self._size)
            elif name == "timeout" and 1 <= number <= 255:
                self._fixed_retry_s = float(number)
                self._granted[name] = value

    def start(self, now: float) -> list[Effect]:
        """Answer the request."""
        if not self._granted:
            return self._next_block(now)
        fields = (text.encode() for pair in self._granted.items() for text in pair)
        return self._first_send(bytes((0, OACK)) + b"\0".join(fields) + b"\0", now)

    def on_datagram(self, data: bytes, now: float) -> list[Effect]:
        """Take a datagram of this client; what does not belong here is ignored."""
        if self._over or len(data) < 4 or data[0] != 0:
            return []
        number = int.from_bytes(data[2:4], "big")
        if data[1] == ERROR:
            return self._on_error(number, data[4:])
        if data[1] != ACK or number != self._block & 0xFFFF:
            return []
        if self._tries == 1:  # Karn: only what was sent once tells the round trip
            sample = max(0.0, now - self._sent_at)
            old = sample if self._rtt_s is None else self._rtt_s
            self._rtt_s = old + (sample - old) / 8
        if self._block == self._last:
            return self._end(Finished(self._size))
        return self._next_block(now)

    def on_timer(self, now: float) -> list[Effect]:
        """Send again after silence, or give up."""
        if self._over or self.deadline is None or now < self.deadline:
            return []
        if self._tries > RETRIES_MAX:
            return self._end(Aborted("the client went silent", failure=True))
        self._tries += 1
        self.retransmitted += 1
        self.deadline = now + self._retry_s()
        return [Send(self._pending)]

    def _on_error(self, code: int, raw: bytes) -> list[Effect]:
        looked = self._block == 0 and code in {NOT_DEFINED, OPTIONS_DECLINED}
        said = raw.partition(b"\0")[0][:80].decode("ascii", "replace")
        return self._end(Aborted(f"client error {code} {said}".rstrip(), failure=not looked))

    def _next_block(self, now: float) -> list[Effect]:
        self._block += 1
        assert self._block <= self._last
        at = (self._block - 1) * self._block_bytes
        head = bytes((0, DATA)) + (self._block & 0xFFFF).to_bytes(2, "big")
        return self._first_send(head + self._content[at : at + self._block_bytes], now)

    def _first_send(self, data: bytes, now: float) -> list[Effect]:
        self._pending = data
        self._sent_at = now
        self._tries = 1
        self.deadline = now + self._retry_s()
        return [Send(data)]

    def _retry_s(self) -> float:
        """Fixed when the client asked for a time, else from the round trip, doubling."""
        if self._fixed_retry_s is not None:
            return self._fixed_retry_s
        base = RETRY_S_FIRST if self._rtt_s is None else max(2 * self._rtt_s, RETRY_S_LEAST)
        return float(min(base * 2 ** (self._tries - 1), RETRY_S_MOST))

    def _end(self, effect: Finished | Aborted) -> list[Effect]:
        self._over = True
        self.deadline = None
        return [effect]
