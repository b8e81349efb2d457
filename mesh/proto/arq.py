"""A small reliable, ordered stream of bytes over datagrams that get lost and reordered.

Theory of operation. Data goes out in packets; every packet, also one that repeats data, has a
number of its own, so what an acknowledgement means is never in doubt (as in QUIC, RFC 9002).
The receiver acknowledges ranges of numbers (selective acknowledgement) and says up to which
offset it takes data; the sender repeats just the data of packets that count as lost: three
later ones have arrived, or the retransmission timer (RFC 6298) went off. The congestion window
grows by what is acknowledged in slow start, by a packet a round trip after it, halves once for
each window that lost something, and begins anew from one packet after a timeout (RFC 5681).

It knows no socket, no key and no clock; what it gets is authentic, but the peer may be hostile.
Rules: bytes come out in order, each once, or the stream breaks; buffers are bounded at both
ends (WINDOW, BUFFER_BYTES); nothing that arrives raises; a sender that hears nothing for DEAD_S
while something is under way gives up.
"""

import struct
from collections import Counter
from dataclasses import dataclass
from typing import Final

from mesh.proto.arq_sender import ACK_S, WINDOW, Sender

DATA: Final = 1
LAST: Final = 2
"""Like DATA, and nothing comes after it."""
ACK: Final = 3
ASK: Final = 4
"""Acknowledge at once: the sender waits for room."""
RESET: Final = 5

_HEAD: Final = struct.Struct(">BI")
_DATA: Final = struct.Struct(">IQ")
_ACK: Final = struct.Struct(">QB")
_RANGE: Final = struct.Struct(">II")

BUFFER_BYTES: Final = 256 << 10
"""Bytes that wait to be sent; writers wait above it."""
PENDING_MAX: Final = 4_096
"""Packets that came too early and wait; more are dropped and come again."""
RANGES_MAX: Final = 32
"""Ranges told in an acknowledgement, the latest first."""
NUMBER_MAX: Final = (1 << 32) - 1

DEAD_S: Final = 15.0


@dataclass(frozen=True, slots=True)
class Post:
    """Send this payload to the peer."""

    payload: bytes


@dataclass(frozen=True, slots=True)
class Delivered:
    """The next bytes; say ``taken`` when the consumer has them."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Ended:
    """The peer has sent all it wanted, and it is here."""


@dataclass(frozen=True, slots=True)
class Broken:
    """The stream is over, whatever was under way."""

    reason: str


Effect = Post | Delivered | Ended | Broken


def stream_id(payload: bytes) -> tuple[int, int] | None:
    """Return kind and stream id of a payload, or None for garbage."""
    if len(payload) < _HEAD.size:
        return None
    kind, number = _HEAD.unpack_from(payload)
    return (kind, number) if DATA <= kind <= RESET else None


def reset_payload(stream: int) -> bytes:
    """Return what tells the peer that there is no such stream."""
    return _HEAD.pack(RESET, stream)


class ArqCore:
    """One end of a stream."""

    def __init__(self, stream: int, now: float) -> None:
        self.stream = stream
        self.deadline: float | None = None
        self.broken: str | None = None
        self.counters: Counter[str] = Counter()
        self._send = Sender(now)
        self._receive = _Receiver()

    @property
    def room(self) -> bool:
        """More may be written."""
        return len(self._send.queue) < BUFFER_BYTES

    @property
    def finished(self) -> bool:
        """All that was written, and that it was all, has arrived."""
        return self._send.finished

    @property
    def round_trip_s(self) -> float | None:
        """The smoothed round trip."""
        return self._send.smoothed_s

    def write(self, data: bytes | bytearray | memoryview, now: float) -> list[Effect]:
        """Send bytes; wait for ``room`` before the next ones."""
        assert not self._send.ending
        self._send.queue += data
        return self._pump(now)

    def finish(self, now: float) -> list[Effect]:
        """Nothing more is written."""
        self._send.ending = True
        return self._pump(now)

    def taken(self, count: int, now: float) -> list[Effect]:
        """The consumer took bytes; the peer hears of it when it matters."""
        if self.broken is None and self._receive.take(count):
            return [self._acknowledge()]
        return []

    def on_payload(self, payload: bytes, now: float) -> list[Effect]:
        """Take a payload of this stream."""
        if self.broken is not None:
            return []
        kind, body = payload[0], payload[_HEAD.size :]
        if kind in (DATA, LAST) and len(body) >= _DATA.size:
            number, offset = _DATA.unpack_from(body)
            return self._on_data(number, offset, body[_DATA.size :], kind == LAST, now)
        if kind == ACK and len(body) >= _ACK.size:
            return self._on_ack(body, now)
        if kind == ASK:
            return [self._acknowledge()]
        if kind == RESET:
            return self._break("the peer broke the stream off")
        self.counters["arq_malformed"] += 1
        return []

    def on_timer(self, now: float) -> list[Effect]:
        """Look at the clock at ``deadline`` (or later)."""
        if self.broken is not None or self.deadline is None or now < self.deadline:
            return []
        effects: list[Effect] = []
        if self._receive.ack_at is not None and now >= self._receive.ack_at:
            effects.append(self._acknowledge())
        if self._send.timer_at is not None and now >= self._send.timer_at:
            if now >= self._send.progress_at + DEAD_S:
                return [*effects, *self._break("the path is gone")]
            if self._send.on_timeout(now):
                effects.append(Post(_HEAD.pack(ASK, self.stream)))
        return effects + self._pump(now)

    # -- within ------------------------------------------------------------------------------

    def _on_data(
        self, number: int, offset: int, data: bytes, last: bool, now: float
    ) -> list[Effect]:
        receive = self._receive
        if not receive.fits(offset, data, last):
            self.counters["arq_overrun"] += 1
            return []
        in_order = receive.note(number)
        effects: list[Effect] = []
        if delivered := receive.add(offset, data, last):
            effects.append(Delivered(delivered))
        if receive.ended_now():
            effects.append(Ended())
        receive.unanswered += 1
        if not in_order or receive.unanswered >= 2 or last or receive.has_gap:
            effects.append(self._acknowledge())
        elif receive.ack_at is None:
            receive.ack_at = now + ACK_S
        self._plan()
        return effects

    def _on_ack(self, body: bytes, now: float) -> list[Effect]:
        limit, count = _ACK.unpack_from(body)
        if len(body) != _ACK.size + count * _RANGE.size or count > RANGES_MAX:
            self.counters["arq_malformed"] += 1
            return []
        ranges = list(_RANGE.iter_unpack(body[_ACK.size :]))
        if not self._send.on_ack(limit, ranges, now):
            self.counters["arq_malformed"] += 1
        return self._pump(now)

    def _pump(self, now: float) -> list[Effect]:
        """Send what may be sent."""
        effects: list[Effect] = []
        if self.broken is None:
            for number, segment in self._send.due(now):
                kind = LAST if segment.last else DATA
                head = _HEAD.pack(kind, self.stream) + _DATA.pack(number, segment.offset)
                effects.append(Post(head + segment.data))
            if self._send.number >= NUMBER_MAX:
                return [*effects, *self._break("the stream has carried all it can")]
        self._plan()
        return effects

    def _acknowledge(self) -> Post:
        ranges = self._receive.answered()
        head = _HEAD.pack(ACK, self.stream) + _ACK.pack(self._receive.limit, len(ranges))
        self._plan()
        return Post(head + b"".join(_RANGE.pack(first, last) for first, last in ranges))

    def _break(self, reason: str) -> list[Effect]:
        self.broken = reason
        self.deadline = None
        return [Broken(reason)]

    def _plan(self) -> None:
        times = (self._receive.ack_at, self._send.timer_at)
        self.deadline = min((one for one in times if one is not None), default=None)


class _Receiver:
    """What came in, and what of it was answered."""

    def __init__(self) -> None:
        self.limit = WINDOW
        self.unanswered = 0
        self.ack_at: float | None = None
        self._next = 0  # offset of the next byte to deliver
        self._taken = 0
        self._end: int | None = None
        self._told_end = False
        self._pending: dict[int, bytes] = {}
        self._ranges: list[list[int]] = []  # numbers that came, latest range first

    @property
    def has_gap(self) -> bool:
        """Something came that cannot be delivered yet."""
        return bool(self._pending)

    def fits(self, offset: int, data: bytes, last: bool) -> bool:
        """Tell whether data is within what we granted, and before the end."""
        end = offset + len(data)
        if end > self.limit or (not data and not last):
            return False
        if self._end is not None and (end > self._end or (last and end != self._end)):
            return False
        return offset <= self._next or len(self._pending) < PENDING_MAX

    def note(self, number: int) -> bool:
        """Remember a packet's number; True when it follows the latest one."""
        ranges = self._ranges
        if ranges and number == ranges[0][1] + 1:
            ranges[0][1] = number
            return True
        for at, (first, last) in enumerate(ranges):
            if number > last:
                ranges.insert(at, [number, number])
                break
            if number >= first:
                return False
        else:
            ranges.append([number, number])
        self._merge()
        del ranges[RANGES_MAX:]
        return len(ranges) == 1 and number == ranges[0][1]

    def _merge(self) -> None:
        merged: list[list[int]] = []
        for first, last in self._ranges:
            if merged and merged[-1][0] == last + 1:
                merged[-1][0] = first
            else:
                merged.append([first, last])
        self._ranges[:] = merged

    def add(self, offset: int, data: bytes, last: bool) -> bytes:
        """Take data and return what can be delivered now."""
        if last:
            self._end = offset + len(data)
        if offset > self._next:
            if len(data) > len(self._pending.get(offset, b"")):
                self._pending[offset] = data
            return b""
        out = bytearray(data[self._next - offset :])
        reached = self._next + len(out)
        while self._pending:
            early = min(self._pending) if reached not in self._pending else reached
            if early > reached:
                break
            out += self._pending.pop(early)[reached - early :]
            reached = self._next + len(out)
        self._next = reached
        return bytes(out)

    def ended_now(self) -> bool:
        """Tell, once, that all has been delivered."""
        ended = self._end is not None and self._next >= self._end and not self._told_end
        self._told_end |= ended
        return ended

    def take(self, count: int) -> bool:
        """Count bytes as consumed; True when the peer should hear of the new room."""
        self._taken += count
        assert self._taken <= self._next
        if self._taken + WINDOW - self.limit < WINDOW // 2:
            return False
        self.limit = self._taken + WINDOW
        return True

    def answered(self) -> list[tuple[int, int]]:
        """Return the ranges to tell; the acknowledgement is being sent."""
        self.unanswered = 0
        self.ack_at = None
        return [(first, last) for first, last in self._ranges]
