"""The sending half of a reliable stream: what goes out, and how much of it at once.

It knows no byte of the wire: mesh/proto/arq.py makes packets of its segments. Rules: never more
under way than the congestion window (RFC 5681), never past what the peer granted; a packet
counts as lost when LOST_AFTER later ones have arrived, or all when the timer goes off
(RFC 6298); what was lost goes out again before anything new.
"""

from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Final

from mesh.proto.datagram import PAYLOAD_BYTES_MAX

HEAD_BYTES: Final = 17
"""What a packet says before its data: kind, stream, number, offset."""
SEGMENT_BYTES: Final = PAYLOAD_BYTES_MAX - HEAD_BYTES
WINDOW: Final = 512 << 10
"""Bytes that the peer may send before our consumer takes them."""
OFFSET_MAX: Final = 1 << 62
WINDOW_FIRST: Final = 10 * SEGMENT_BYTES
"""Congestion window at the start (RFC 6928)."""
WINDOW_MAX: Final = 1 << 20
LOST_AFTER: Final = 3
"""A packet is lost when one so many numbers later has arrived."""
RTO_FIRST_S: Final = 1.0
RTO_MIN_S: Final = 0.2
"""Below RFC 6298's one second, as everywhere today."""
RTO_MAX_S: Final = 5.0
ACK_S: Final = 0.02
"""Longest wait of an acknowledgement for a second packet to answer with."""


@dataclass(slots=True)
class Segment:
    """Data on its way."""

    offset: int
    data: bytes
    last: bool
    sent_at: float = 0.0


class Sender:
    """What goes out, and how much of it at once."""

    def __init__(self, now: float) -> None:
        self.queue = bytearray()
        self.ending = False
        self.number = 0  # of the next packet
        self.timer_at: float | None = None
        self.progress_at = now
        self.smoothed_s: float | None = None
        self._variation_s = 0.0
        self._rto_s = RTO_FIRST_S
        self._offset = 0  # of the queue's first byte
        self._ended = False  # the last segment has been cut
        self._limit = WINDOW
        self._flight: dict[int, Segment] = {}  # by number, in order
        self._flight_bytes = 0
        self._lost: list[tuple[int, int, Segment]] = []
        self._window = float(WINDOW_FIRST)
        self._threshold = float(WINDOW_MAX)
        self._recover = 0  # losses below this number have halved the window already

    @property
    def finished(self) -> bool:
        """All has arrived, and that it was all."""
        return self._ended and not (self.queue or self._flight or self._lost)

    def due(self, now: float) -> list[tuple[int, Segment]]:
        """Return the packets to send now, with their numbers."""
        out: list[tuple[int, Segment]] = []
        while self._flight_bytes < self._window:
            segment = heappop(self._lost)[2] if self._lost else self._cut()
            if segment is None:
                break
            if not self._flight and self.timer_at is None:
                self.progress_at = now
            segment.sent_at = now
            self._flight[self.number] = segment
            self._flight_bytes += len(segment.data)
            out.append((self.number, segment))
            self.number += 1
        if self.timer_at is None and (self._flight or self._blocked):
            self.timer_at = now + self._rto_s
        return out

    @property
    def _blocked(self) -> bool:
        """The peer's window alone holds us up."""
        return bool(self.queue) and not self._flight and not self._lost

    def _cut(self) -> Segment | None:
        """Return the next new segment, or None when there is nothing or no room for it."""
        size = min(len(self.queue), SEGMENT_BYTES, self._limit - self._offset)
        last = self.ending and size == len(self.queue)
        if size <= 0 and (not last or self._ended):
            return None
        data = bytes(self.queue[:size])
        del self.queue[:size]
        segment = Segment(self._offset, data, last)
        self._offset += size
        self._ended = last
        return segment

    def on_ack(self, limit: int, ranges: list[tuple[int, int]], now: float) -> bool:
        """Take an acknowledgement; False when it makes no sense."""
        top = -1
        for first, last in ranges:
            if not first <= last < self.number:
                return False
            top = max(top, last)
        if limit > self._limit:
            self._limit = min(limit, OFFSET_MAX)
            self.progress_at = now
        acked = 0
        newest: Segment | None = None
        lowest = next(iter(self._flight), self.number)
        for first, last in ranges:
            for number in range(max(first, lowest), last + 1):
                segment = self._flight.pop(number, None)
                if segment is not None:
                    acked += len(segment.data) or 1
                    self._flight_bytes -= len(segment.data)
                    if number == top:
                        newest = segment
        if newest is not None:
            self._measure(now - newest.sent_at)
        self._find_lost(top)
        if not self._flight:
            self.progress_at = now  # somebody is there, though he may be slow
        if acked:
            self.progress_at = now
            self._grow(acked)
            self._rto_s = self._base_rto()
        if self._flight or self._lost or self._blocked:
            if acked:
                self.timer_at = now + self._rto_s
        else:
            self.timer_at = None
        return True

    def on_timeout(self, now: float) -> bool:
        """The timer went off: repeat all; True when the peer must be asked for room."""
        self._rto_s = min(2 * self._rto_s, RTO_MAX_S)
        self.timer_at = now + self._rto_s
        if not self._flight:
            return self._blocked
        self._threshold = max(self._flight_bytes / 2, 2 * SEGMENT_BYTES)
        self._window = SEGMENT_BYTES
        self._recover = self.number
        for number in list(self._flight):
            self._lose(number)
        return False

    def _find_lost(self, top: int) -> None:
        while self._flight:
            number = next(iter(self._flight))
            if number + LOST_AFTER > top:
                break
            if number >= self._recover:
                self._threshold = max(self._flight_bytes / 2, 2 * SEGMENT_BYTES)
                self._window = self._threshold
                self._recover = self.number
            self._lose(number)

    def _lose(self, number: int) -> None:
        segment = self._flight.pop(number)
        self._flight_bytes -= len(segment.data)
        heappush(self._lost, (segment.offset, number, segment))

    def _grow(self, acked: int) -> None:
        if self._flight_bytes + acked < self._window / 2:
            return  # the window is not what holds us up
        if self._window < self._threshold:
            self._window += acked
        else:
            self._window += SEGMENT_BYTES * acked / self._window
        self._window = min(self._window, WINDOW_MAX)

    def _measure(self, sample_s: float) -> None:
        """Update the round trip (RFC 6298, section 2)."""
        if self.smoothed_s is None:
            self.smoothed_s, self._variation_s = sample_s, sample_s / 2
        else:
            off_s = abs(self.smoothed_s - sample_s)
            self._variation_s = 0.75 * self._variation_s + 0.25 * off_s
            self.smoothed_s = 0.875 * self.smoothed_s + 0.125 * sample_s

    def _base_rto(self) -> float:
        if self.smoothed_s is None:
            return RTO_FIRST_S
        wanted_s = self.smoothed_s + max(4 * self._variation_s, ACK_S)
        return min(max(wanted_s, RTO_MIN_S), RTO_MAX_S)
