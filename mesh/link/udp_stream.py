"""Links over UDP: the reliable stream of mesh/proto/arq.py as a carrier, dialled and accepted.

It knows no key and no address: a path (mesh/link/udp.py) has both. Rules: a stream lives on the
session that it began on, also when the link of that session ends; whoever dialled that session
has the odd numbers, and a number is used once; what belongs to no stream is answered by a
reset; a carrier that is closed goes on for LINGER_S, so that the last words arrive.
"""

import math
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterable
from typing import Final

import trio

from mesh.link.carrier import Carrier, CarrierLost
from mesh.link.level import Level
from mesh.link.tcp import address_text
from mesh.link.udp import UdpEndpoint, UdpPath
from mesh.link.ways import Way
from mesh.proto.arq import (
    DATA,
    LAST,
    RESET,
    ArqCore,
    Broken,
    Delivered,
    Effect,
    Ended,
    Post,
    reset_payload,
    stream_id,
)
from mesh.proto.datagram import STREAM
from mesh.proto.record import RECORD_BYTES_MAX, RecordBuffer

STREAMS_MAX: Final = 4
"""Streams of one session at once that the peer began."""
LINGER_S: Final = 2.0
BUFFER_BYTES: Final = 2 * RECORD_BYTES_MAX

Accept = Callable[[Carrier], Awaitable[None]]


class UdpCarrier:
    """One stream."""

    name = "udp"

    def __init__(self, path: UdpPath, stream: int) -> None:
        self.path = path
        self.core = ArqCore(stream, trio.current_time())
        self.closing = False
        assert path.core.address is not None
        self.address = address_text(*path.core.address)
        self._level = Level()  # bumped by whatever changes
        self._arrived: deque[bytes] = deque()
        self._buffer = RecordBuffer(BUFFER_BYTES)
        self._over: str | None = None

    async def send(self, records: Iterable[bytes | memoryview]) -> None:
        """Send whole records in order."""
        for record in records:
            while not self.core.room and self._over is None and not self.closing:
                await self._level.wait_past(self._level.version)
            if self.core.broken is not None or self.closing:
                raise CarrierLost(self.core.broken or "the stream is closed")
            self.apply(self.core.write(record, trio.current_time()))
        await trio.lowlevel.checkpoint()

    async def receive(self) -> tuple[int, memoryview]:
        """Return kind and body of the next record."""
        while (record := self._buffer.next()) is None:
            while not self._arrived:
                if self._over is not None:
                    raise CarrierLost(self._over)
                await self._level.wait_past(self._level.version)
            room, data = self._buffer.writable(), self._arrived.popleft()
            if len(data) > len(room):
                self._arrived.appendleft(data[len(room) :])
                data = data[: len(room)]
            room[: len(data)] = data
            self._buffer.wrote(len(data))
            self.apply(self.core.taken(len(data), trio.current_time()))
        return record

    def datagram_address(self, _port: int) -> tuple[str, int] | None:
        """Return where the other end takes datagrams: there, where ours arrive."""
        return self.path.core.address

    async def aclose(self) -> None:
        """Close without waiting; what was sent still gets a moment to arrive."""
        if not self.closing:
            self.closing = True
            if self.core.broken is None:
                self.apply(self.core.finish(trio.current_time()))
            self._level.bump()
        await trio.lowlevel.checkpoint()

    def apply(self, effects: list[Effect]) -> None:
        """Carry out what the core wants."""
        for effect in effects:
            match effect:
                case Post(payload):
                    self.path.send(STREAM, payload)
                case Delivered(data):
                    self._arrived.append(data)
                case Ended():
                    self._over = self._over or "the peer ended the stream"
                case Broken(reason):
                    self._over = reason
        self._level.bump()

    async def run(self) -> None:
        """Keep the core's time until the stream is over and nobody holds it any more."""
        end_at = math.inf
        while True:
            version, core = self._level.version, self.core
            if self.closing:
                end_at = min(end_at, trio.current_time() + LINGER_S)
                if core.broken is not None or core.finished:
                    return
            until = math.inf if core.deadline is None else core.deadline
            with trio.move_on_at(min(until, end_at)):
                await self._level.wait_past(version)
            now = trio.current_time()
            if now >= end_at:
                return
            if core.deadline is not None and core.deadline <= now:
                self.apply(core.on_timer(now))


class UdpStreams:
    """All streams of a program."""

    def __init__(self, endpoint: UdpEndpoint, accept: Accept, counters: Counter[str]) -> None:
        self._accept = accept
        self._counters = counters
        self._streams: dict[tuple[int, int], UdpCarrier] = {}
        self._last: dict[int, tuple[int, int]] = {}  # of a session: our and the peer's last
        self._nursery: trio.Nursery | None = None
        endpoint.on_stream = self._on_payload

    async def run(self) -> None:
        """Keep the streams going until cancelled."""
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                await trio.sleep_forever()
        finally:
            self._nursery = None

    def dial(self, path: UdpPath) -> UdpCarrier:
        """Begin a stream on a usable path. Raises CarrierLost."""
        if self._nursery is None or not (path.usable and path.holders):
            raise CarrierLost("there is no usable UDP path")
        ours, theirs = self._last.get(path.session.receiver, (0, 0))
        number = ours + 2 if ours else (1 if path.session.dialled else 2)
        self._last[path.session.receiver] = (number, theirs)
        return self._begin(path, number)

    def ways(self, path: UdpPath | None) -> list[Way]:
        """Return the way to a peer over its UDP path, if that works now."""
        if path is None or not path.usable:
            return []

        async def dial() -> Carrier:
            return self.dial(path)

        return [dial]

    def _begin(self, path: UdpPath, number: int) -> UdpCarrier:
        assert self._nursery is not None
        carrier = UdpCarrier(path, number)
        self._streams[path.session.receiver, number] = carrier
        path.hold()
        self._nursery.start_soon(self._run, carrier)
        return carrier

    async def _run(self, carrier: UdpCarrier) -> None:
        path, number = carrier.path, carrier.core.stream
        try:
            await carrier.run()
        finally:
            if not carrier.core.finished and carrier.core.broken is None:
                path.send(STREAM, reset_payload(number))
            del self._streams[path.session.receiver, number]
            self._counters.update(carrier.core.counters)
            path.release()
            if not path.holders:
                self._last.pop(path.session.receiver, None)

    def _on_payload(self, path: UdpPath, payload: bytes) -> None:
        found = stream_id(payload)
        if found is None:
            self._counters["arq_malformed"] += 1
            return
        kind, number = found
        carrier = self._streams.get((path.session.receiver, number))
        if carrier is None and kind in (DATA, LAST):
            carrier = self._accepted(path, number)
        if carrier is not None:
            carrier.apply(carrier.core.on_payload(payload, trio.current_time()))
        elif kind != RESET:
            path.send(STREAM, reset_payload(number))

    def _accepted(self, path: UdpPath, number: int) -> UdpCarrier | None:
        """Begin a stream that the peer dialled, unless it may not."""
        receiver = path.session.receiver
        ours, theirs = self._last.get(receiver, (0, 0))
        wrong_side = number % 2 == (1 if path.session.dialled else 0)
        if self._nursery is None or not path.usable or wrong_side or number <= theirs:
            return None
        live = [n for of, n in self._streams if of == receiver and n % 2 == number % 2]
        if len(live) >= STREAMS_MAX:
            self._counters["udp_streams_refused"] += 1
            return None
        self._last[receiver] = (ours, number)
        carrier = self._begin(path, number)
        self._nursery.start_soon(self._accept, carrier)
        return carrier
