"""Serial over LAN (IPMI 2.0 revision 1.1, chapters 15, 24 and 26) without I/O.

Knows the characters and their acknowledgement, no session and no cipher. The rules: one packet
of ours is under way at a time; what the BMC has not accepted is sent again, in a new packet
when it took a part; what it repeats is delivered once; garbage is dropped; a BMC that says
nothing any more, or that says that the console is over, ends the channel with one sentence.
"""

from collections import deque
from dataclasses import dataclass
from typing import Final

from drivers.proto.ipmi import Command, NotIpmi

HEADER_BYTES: Final = 4
CHUNK_BYTES_MAX: Final = 200
"""Most characters in a packet of ours; the count that a BMC accepts has one byte."""
CHUNK_BYTES_SAFE: Final = 32
"""Where a BMC states a size that makes no sense (some swap its bytes)."""
ACCEPT_BYTES_MAX: Final = 255
QUEUE_BYTES_MAX: Final = 16 << 10
"""Characters that wait to be sent; a full queue takes no more."""
RESEND_S: Final = (0.5, 1.0, 1.0, 2.0, 2.0, 2.0, 2.0, 2.0)
"""Silence before the first, second, ... repetition of a packet; then the console is lost."""
HELD_RETRY_S: Final = 0.5
"""Until a BMC that took nothing is asked again."""
HELD_S_MAX: Final = 10.0
"""How long characters wait for a server that cannot take any; then they are dropped."""
KEEPALIVE_S: Final = 10.0
"""Silence of the BMC after which it is asked whose the console is; sessions end after 60 s of
silence from our side (6.12.15)."""
KEEPALIVE_TRIES: Final = 5
KEEPALIVE_RETRY_S: Final = 3.0

_PAYLOAD_SOL: Final = 1
_INSTANCE: Final = 1
_NACK, _UNAVAILABLE, _DEACTIVATED, _OVERRUN, _BREAK = 0x40, 0x20, 0x10, 0x08, 0x04
_SEND_BREAK: Final = 0x10
_WHICH: Final = bytes((_PAYLOAD_SOL, _INSTANCE))

ACTIVATE: Final = Command("Activate Payload", 0x06, 0x48, _WHICH + b"\xc0\0\0\0")
"""Encrypted and authenticated, no shared serial alerts (24.1)."""
DEACTIVATE: Final = Command("Deactivate Payload", 0x06, 0x49, _WHICH + bytes(4))
OWNER: Final = Command("Get Payload Instance Info", 0x06, 0x4B, _WHICH)
"""Says which session has the console (24.5); also the sign of life."""
ACTIVE_ELSEWHERE: Final = 0x80
_WHY_NOT: Final = {
    0x80: "its console is in use by another client; take it from there with --steal",
    0x81: "its console is switched off (SOL payload disabled)",
    0x82: "it has no free console session",
    0x83: "its console refuses encryption, and in the clear it is not used",
    0xC1: "it has no console over IPMI",
    0xD4: "this user may not use the console",
}


@dataclass(frozen=True, slots=True)
class Send:
    """Send this SOL payload to the BMC."""

    payload: bytes


@dataclass(frozen=True, slots=True)
class AskOwner:
    """Send ``OWNER`` and tell ``on_owner`` the answer; a lost one is asked for again."""


@dataclass(frozen=True, slots=True)
class Received:
    """What the server wrote."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Notice:
    """Something that a person at the console wants to know."""

    text: str


@dataclass(frozen=True, slots=True)
class Ended:
    """The console is over; ``text`` says why, ``lost`` that the BMC did not say so itself."""

    text: str
    lost: bool


Effect = Send | AskOwner | Received | Notice | Ended


def why_refused(code: int) -> str | None:
    """Return what a completion code of ``ACTIVATE`` means for people, None for success."""
    if code == 0:
        return None
    said = _WHY_NOT.get(code, "it refused the console")
    return f"{said} (completion code 0x{code:02x})"


def parse_activated(data: bytes) -> int:
    """Return the characters that a packet of ours may have, from the answer to ``ACTIVATE``.

    Raises NotIpmi when it cannot be one (24.1). The UDP port in it is not looked at: it is the
    session's own, and another number where the way there changes ports.
    """
    if len(data) < 10:
        raise NotIpmi(f"an answer of {len(data)} bytes, where 12 are due")
    size = int.from_bytes(data[4:6], "little") - HEADER_BYTES
    return min(size, CHUNK_BYTES_MAX) if 1 <= size <= 1024 else CHUNK_BYTES_SAFE


def parse_owner(code: int, data: bytes) -> int | None:
    """Return the id of the session that has the console, 0 for none, None when not told."""
    if code != 0 or len(data) < 4:
        return None
    return int.from_bytes(data[:4], "little")


@dataclass(slots=True)
class _Packet:
    """What is under way: a number, characters, or a break."""

    number: int
    data: bytes
    is_break: bool
    tries: int = 0

    def payload(self) -> bytes:
        control = _SEND_BREAK if self.is_break else 0
        return bytes((self.number, 0, 0, control)) + self.data


class SolChannel:
    """One open console."""

    def __init__(self, chunk_bytes: int, session_id: int) -> None:
        """``session_id`` is the BMC's number of our session."""
        assert 0 < chunk_bytes <= CHUNK_BYTES_MAX
        self.deadline: float | None = None
        self.dropped = 0
        self._chunk = chunk_bytes
        self._session_id = session_id
        self._was_ours = False
        self._queue: deque[bytes | None] = deque()  # None is a break
        self._queued = 0
        self._packet: _Packet | None = None
        self._next_number = 1
        self._resend_at: float | None = None
        self._held_since: float | None = None
        self._last_number = 0
        self._last_bytes = 0
        self._alive_at = 0.0
        self._asked = 0
        self._ask_at: float | None = None
        self._over = False

    @property
    def room(self) -> int:
        """Characters that the queue has room for."""
        return max(QUEUE_BYTES_MAX - self._queued, 0)

    @property
    def idle(self) -> bool:
        """Tell whether everything that was to be sent has been accepted or given up."""
        return self._packet is None and not self._queue

    def start(self, now: float) -> list[Effect]:
        """Begin; the console has just been activated."""
        self._alive_at = now
        self._ask_at = now  # what it says of the owner now, it must say later
        return self._done([])

    def send(self, data: bytes, now: float) -> list[Effect]:
        """Send characters to the server; at most ``room`` of them."""
        assert len(data) <= self.room
        if self._over or not data:
            return []
        self._queue.append(data)
        self._queued += len(data)
        return self._done(self._go_on(now))

    def send_break(self, now: float) -> list[Effect]:
        """Send a break after what is queued; one at a time waits."""
        if self._over or None in self._queue:
            return []
        self._queue.append(None)
        return self._done(self._go_on(now))

    def on_payload(self, payload: bytes, now: float) -> list[Effect]:
        """Take one SOL payload of the BMC, whatever it is (15.9)."""
        if self._over:
            return []
        if len(payload) < HEADER_BYTES:
            self.dropped += 1
            return []
        self._alive(now)
        number, ack = payload[0] & 0x0F, payload[1] & 0x0F
        accepted, status = payload[2], payload[3]
        effects: list[Effect] = []
        if number:
            effects += self._take(number, payload[HEADER_BYTES:])
        if status & _OVERRUN:
            effects.append(Notice("the BMC was too slow and lost characters of the server"))
        if status & _BREAK:
            effects.append(Notice("the server sent a break"))
        if status & _DEACTIVATED:
            text = "the console was taken over by another client, or closed by the BMC"
            return self._done([*effects, *self._end(text, lost=False)])
        if ack:
            effects += self._on_ack(ack, accepted, status, now)
        elif not status & (_NACK | _UNAVAILABLE) and self._held_since is not None:
            self._resend_at = now  # it writes again, so it may take again
            effects += self._resend(now)
        return self._done(effects)

    def on_owner(self, code: int, data: bytes, now: float) -> list[Effect]:
        """Take the answer to ``OWNER``; any is a sign of life.

        Another owner counts only when the BMC once named us: some number sessions otherwise.
        """
        if self._over:
            return []
        self._alive(now)
        owner = parse_owner(code, data)
        self._was_ours = self._was_ours or owner == self._session_id
        if owner is not None and owner != self._session_id and self._was_ours:
            text = "the console was taken over by another client, or closed by the BMC"
            return self._done(self._end(text, lost=False))
        return self._done([])

    def on_timer(self, now: float) -> list[Effect]:
        """Send again what got no answer; ask for a sign of life."""
        if self._over:
            return []
        effects: list[Effect] = []
        if self._resend_at is not None and now >= self._resend_at:
            effects += self._resend(now)
        if not self._over and self._ask_at is not None and now >= self._ask_at:
            if self._asked >= KEEPALIVE_TRIES:
                return self._done(self._end(self._silence(now), lost=True))
            self._asked += 1
            self._ask_at = now + KEEPALIVE_RETRY_S
            effects.append(AskOwner())
        return self._done(effects)

    def _take(self, number: int, data: bytes) -> list[Effect]:
        """Deliver what is new in a packet, and acknowledge it."""
        data = data[:ACCEPT_BYTES_MAX]
        new = data
        if number == self._last_number:  # a repetition, to which it may have added
            new = data[self._last_bytes :]
            self._last_bytes = max(self._last_bytes, len(data))
        else:
            self._last_number, self._last_bytes = number, len(data)
        effects: list[Effect] = [Send(bytes((0, number, len(data), 0)))]
        if new:
            effects.append(Received(new))
        return effects

    def _on_ack(self, ack: int, accepted: int, status: int, now: float) -> list[Effect]:
        packet = self._packet
        if packet is None or ack != packet.number:
            return []  # an answer to what was answered before
        left = packet.data[min(accepted, len(packet.data)) :]
        refused = bool(status & _NACK)
        if not left and not (refused and packet.is_break):
            self._packet, self._resend_at, self._held_since = None, None, None
            return self._go_on(now)
        if accepted and packet.data:  # it has room, but not for all
            self._held_since = None
        elif self._held_since is None:
            self._held_since = now
        self._next_packet(left, is_break=packet.is_break)
        if self._held_since is None:
            return self._transmit(now)
        if now - self._held_since < HELD_S_MAX:
            self._resend_at = now + HELD_RETRY_S
            return []
        return self._give_up(status)

    def _give_up(self, status: int) -> list[Effect]:
        assert self._packet is not None
        count = self._queued + len(self._packet.data)
        self._queue.clear()
        self._queued = 0
        self._packet, self._resend_at, self._held_since = None, None, None
        why = (
            "its power is off or its port is closed" if status & _UNAVAILABLE else "it is busy"
        )
        return [Notice(f"the server takes no characters ({why}); {count} were dropped")]

    def _resend(self, now: float) -> list[Effect]:
        packet = self._packet
        if packet is None:
            self._resend_at = None
            return []
        if packet.tries >= len(RESEND_S):
            return self._end(self._silence(now), lost=True)
        if packet.tries == 1:  # another client may have the console by now
            self._ask_at = now
        return self._transmit(now)

    def _go_on(self, now: float) -> list[Effect]:
        """Send the next packet when nothing is under way."""
        if self._packet is not None or not self._queue:
            return []
        first = self._queue.popleft()
        if first is None:
            self._next_packet(b"", is_break=True)
            return self._transmit(now)
        data = bytearray(first)
        while self._queue and len(data) < self._chunk:
            more = self._queue[0]
            if more is None:
                break
            data += more
            self._queue.popleft()
        if len(data) > self._chunk:
            self._queue.appendleft(bytes(data[self._chunk :]))
        part = bytes(data[: self._chunk])
        self._queued -= len(part)
        self._next_packet(part, is_break=False)
        return self._transmit(now)

    def _next_packet(self, data: bytes, *, is_break: bool) -> None:
        self._packet = _Packet(self._next_number, data, is_break)
        self._next_number = self._next_number % 15 + 1

    def _transmit(self, now: float) -> list[Effect]:
        packet = self._packet
        assert packet is not None
        self._resend_at = now + RESEND_S[min(packet.tries, len(RESEND_S) - 1)]
        packet.tries += 1
        return [Send(packet.payload())]

    def _alive(self, now: float) -> None:
        self._alive_at = now
        self._asked = 0
        self._ask_at = now + KEEPALIVE_S

    def _silence(self, now: float) -> str:
        return f"the BMC has not answered for {now - self._alive_at:.0f} s"

    def _end(self, text: str, *, lost: bool) -> list[Effect]:
        self._over = True
        return [Ended(text, lost)]

    def _done(self, effects: list[Effect]) -> list[Effect]:
        """Set the deadline anew after anything happened."""
        times = [at for at in (self._resend_at, self._ask_at) if at is not None]
        self.deadline = None if self._over or not times else min(times)
        return effects
