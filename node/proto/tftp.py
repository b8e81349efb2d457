"""TFTP, reading only: requests parsed, one transfer as a state machine.

RFC 1350 with options (2347), blksize (2348), tsize and timeout (2349), windowsize (7440); octet
mode only. It knows no sockets, no file system and no content: it says which blocks to send.
Rules: an OACK holds only what was asked for (UEFI aborts else). Without a window a repeated
acknowledgement never makes us send twice (the Sorcerer's Apprentice, RFC 1123 section 4.2.3.1),
only silence does; with one it means a gap, and the window begins anew, once a round trip. The
window is never made smaller: a client acknowledges when it is full. Block numbers go on at 0
after 65,535.
"""

import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

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
WINDOW_MOST: Final = 64
"""Blocks; what one batch of the kernel takes (UDP_SEGMENT), and more helps no client."""
REQUEST_BYTES_MAX: Final = 1024
OPTIONS_MAX: Final = 16
SILENCE_S_MAX: Final = 25.0
"""A client that gets no further for so long is gone, whatever it says."""
RETRY_S_FIRST: Final = 1.0
RETRY_S_LEAST: Final = 0.05
RETRY_S_MOST: Final = 4.0
DOUBLINGS_MAX: Final = 16
GUARD_S: Final = 0.002
"""A gap that is told again sooner after its window was sent again is still the same one."""


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
class Caps:
    """What a kind of client is granted at most."""

    block_bytes: int = BLOCK_BYTES_MOST
    window: int = WINDOW_MOST


CAPS_BY_ARCH: Final = {"bios-x64": Caps(window=16)}
"""By kind of firmware (``dhcp_boot.ARCHITECTURES``). An option ROM has few receive buffers:
what a longer burst overruns costs a time-out each time."""


def caps_of(arch: str) -> Caps:
    """Return what a kind of firmware is granted at most."""
    return CAPS_BY_ARCH.get(arch, Caps())


@dataclass(frozen=True, slots=True)
class Send:
    """Send this datagram to the client."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Blocks:
    """Send these blocks (from 1) of the content, one DATA packet each, in their order."""

    first: int
    count: int


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


Effect = Send | Blocks | Finished | Aborted


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


def data_header(block: int) -> bytes:
    """Return the four bytes before the content of a block."""
    return _HEADER.pack(DATA, block & 0xFFFF)


_HEADER: Final = struct.Struct(">HH")


class ReadTransfer:
    """One transfer to one client, from the answer to its request until it has all blocks."""

    def __init__(self, size: int, options: dict[str, str], caps: Caps | None = None) -> None:
        """``size``: bytes of the content."""
        self.deadline: float | None = None
        self.retransmitted = 0  # blocks
        self.block_bytes = BLOCK_BYTES
        self._size, self._caps = size, caps or Caps()
        self._granted: dict[str, str] = {}
        self._window = 1
        self._retry_most_s = RETRY_S_MOST
        self._grant(options)
        self._asked = bool(self._granted)  # the OACK waits for its acknowledgement
        self._acked = 0  # the last block that the client has acknowledged
        self._sent = 0  # the last block of the window that is under way
        self._last = size // self.block_bytes + 1
        self._sent_at = self._moved_at = 0.0
        self._tries = 0
        self._rtt_s: float | None = None
        self._again = False  # the window under way was sent before
        self._over = False

    @property
    def granted(self) -> Sequence[tuple[str, str]]:
        """Options of the OACK in the order asked; empty: no OACK is sent."""
        return tuple(self._granted.items())

    def _grant(self, options: dict[str, str]) -> None:
        for name, value in options.items():
            number = int(value) if re.fullmatch("[0-9]{1,11}", value) else -1
            if name == "blksize" and number >= BLOCK_BYTES_LEAST:
                self.block_bytes = min(number, self._caps.block_bytes)
                self._granted[name] = str(self.block_bytes)
            elif name == "tsize" and number >= 0:
                self._granted[name] = str(self._size)
            elif name == "timeout" and 1 <= number <= 255:
                self._retry_most_s = float(number)
                self._granted[name] = value
            elif name == "windowsize" and 1 <= number <= 65535:
                self._window = min(number, self._caps.window)
                self._granted[name] = str(self._window)

    def start(self, now: float) -> list[Effect]:
        """Answer the request."""
        self._moved_at = now
        return [self._next(now)]

    def on_datagram(self, data: bytes, now: float) -> list[Effect]:
        """Take a datagram of this client; what does not belong here is ignored."""
        if self._over or len(data) < 4 or data[0] != 0:
            return []
        number = data[2] << 8 | data[3]
        if data[1] == ERROR:
            return self._on_error(number, data[4:])
        if data[1] != ACK:
            return []
        block = self._acked + (number - self._acked & 0xFFFF)
        if block > self._sent or (self._asked and number != 0):
            return []
        if block == self._acked and not self._asked and self._window == 1:
            return []
        gap = block < self._sent
        soon = self._again and now < self._sent_at + max(GUARD_S, self._rtt_s or 0.0)
        told = soon and block == self._acked  # before what was sent again could be there
        once = not gap and not self._again and self._tries == 1
        if once:  # Karn: only what was sent once tells the round trip
            sample = max(0.0, now - self._sent_at)
            old = sample if self._rtt_s is None else self._rtt_s
            self._rtt_s = old + (sample - old) / 8
        if block > self._acked or self._asked:
            self._acked, self._asked, self._tries = block, False, 0
            self._moved_at = now  # telling one gap for ever holds no place
        if block == self._last:
            return self._end(Finished(self._size))
        if gap and told:
            return []
        self.retransmitted += self._sent - block
        self._again = gap
        return [self._next(now)]

    def on_timer(self, now: float) -> list[Effect]:
        """Send again after silence, or give up."""
        if self._over or self.deadline is None or now < self.deadline:
            return []
        if now >= self._moved_at + SILENCE_S_MAX:
            return self._end(Aborted("the client went silent", failure=True))
        self.retransmitted += 1
        effect = self._next(now)
        self._again = False  # whatever comes now answers this, however soon
        # The last block alone: it is what the client waits for, or shows it where its gap is. A
        # whole window that it has in part would be a gap with every block.
        return [Blocks(self._sent, 1) if isinstance(effect, Blocks) else effect]

    def _on_error(self, code: int, raw: bytes) -> list[Effect]:
        looked = self._acked == 0 and code in {NOT_DEFINED, OPTIONS_DECLINED}
        said = raw.partition(b"\0")[0][:80].decode("ascii", "replace")
        return self._end(Aborted(f"client error {code} {said}".rstrip(), failure=not looked))

    def _next(self, now: float) -> Effect:
        """Send what follows the last acknowledged block, or the OACK before all blocks."""
        self._sent_at = now
        self._tries += 1
        base_s = RETRY_S_FIRST if self._rtt_s is None else max(2 * self._rtt_s, RETRY_S_LEAST)
        wait_s = min(base_s * 2 ** min(self._tries - 1, DOUBLINGS_MAX), self._retry_most_s)
        self.deadline = min(now + wait_s, self._moved_at + SILENCE_S_MAX)
        if self._asked:
            fields = (text.encode() for pair in self._granted.items() for text in pair)
            return Send(bytes((0, OACK)) + b"\0".join(fields) + b"\0")
        first, self._sent = self._acked + 1, min(self._acked + self._window, self._last)
        return Blocks(first, self._sent - self._acked)

    def _end(self, effect: Finished | Aborted) -> list[Effect]:
        self._over = True
        self.deadline = None
        return [effect]
