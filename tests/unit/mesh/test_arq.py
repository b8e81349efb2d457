"""The reliable stream over lossy paths: all bytes, in order, once, or a broken stream."""

import random
from collections.abc import Callable
from heapq import heappop, heappush

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.proto import arq
from mesh.proto.arq import (
    BUFFER_BYTES,
    DEAD_S,
    RANGES_MAX,
    ArqCore,
    Broken,
    Delivered,
    Effect,
    Ended,
    Post,
)
from mesh.proto.arq_sender import HEAD_BYTES, RTO_MAX_S, SEGMENT_BYTES, WINDOW
from mesh.proto.datagram import PAYLOAD_BYTES_MAX

STREAM = 7


class End:
    """One end with its program: writes what it has, takes what comes."""

    def __init__(self, data: bytes) -> None:
        self.core = ArqCore(STREAM, 0.0)
        self.left = data
        self.got = bytearray()
        self.untaken = 0
        self.ended = False
        self.told_end = False
        self.slow = False


class Pipe:
    """Two ends and a bad path between them."""

    def __init__(
        self, seed: int, one: bytes, two: bytes = b"", *, loss: float = 0.0, late: float = 0.0
    ) -> None:
        self.rng = random.Random(seed)
        self.loss, self.late = loss, late
        self.one_way_s = 0.03
        self.now = 0.0
        self.ends = (End(one), End(two))
        self.posts = 0
        self.cut = False
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0

    def apply(self, at: int, effects: list[Effect]) -> None:
        end = self.ends[at]
        for effect in effects:
            match effect:
                case Post(payload):
                    self.post(1 - at, payload)
                case Delivered(data):
                    end.got += data
                    end.untaken += len(data)
                case Ended():
                    assert not end.ended
                    end.ended = True
                case Broken():
                    pass

    def post(self, to: int, payload: bytes) -> None:
        assert len(payload) <= PAYLOAD_BYTES_MAX
        self.posts += 1
        if self.cut or self.rng.random() < self.loss:
            return
        for _ in range(2 if self.rng.random() < self.loss / 4 else 1):
            delay = self.one_way_s
            if self.rng.random() < self.late:
                delay += self.rng.random() * 0.2

            def arrive(payload: bytes = payload) -> None:
                self.apply(to, self.ends[to].core.on_payload(payload, self.now))

            self._count += 1
            heappush(self._queue, (self.now + delay, self._count, arrive))

    def work(self) -> None:
        for at, end in enumerate(self.ends):
            while end.left and end.core.room and end.core.broken is None:
                part, end.left = end.left[:5000], end.left[5000:]
                self.apply(at, end.core.write(part, self.now))
            if not end.left and not end.told_end:
                end.told_end = True
                self.apply(at, end.core.finish(self.now))
            if end.untaken and not end.slow:
                count, end.untaken = end.untaken, 0
                self.apply(at, end.core.taken(count, self.now))

    def run(self, until: float) -> float:
        """Run until all is done or the time is over; return the time."""
        while True:
            self.work()
            cores = [end.core for end in self.ends]
            if all(core.finished for core in cores) and all(end.ended for end in self.ends):
                return self.now
            times = [core.deadline for core in cores if core.deadline is not None]
            if self._queue:
                times.append(self._queue[0][0])
            if not times or min(times) > until:
                return until
            self.now = max(self.now, min(times))
            while self._queue and self._queue[0][0] <= self.now:
                heappop(self._queue)[2]()
            for at, core in enumerate(cores):
                self.apply(at, core.on_timer(self.now))


def noise(seed: int, size: int) -> bytes:
    return random.Random(seed).randbytes(size)


def test_a_full_packet_fits_a_datagram():
    assert arq._HEAD.size + arq._DATA.size == HEAD_BYTES
    assert SEGMENT_BYTES == PAYLOAD_BYTES_MAX - HEAD_BYTES == 1150


def test_a_clean_path_carries_each_byte_once_at_a_good_pace():
    data = noise(1, 2_000_000)
    pipe = Pipe(1, data)
    took = pipe.run(60)
    assert pipe.ends[1].got == data
    packets = -(-len(data) // SEGMENT_BYTES)
    assert pipe.posts < packets * 1.6  # with acknowledgements
    assert took < 1.5  # 25 round trips of 60 ms
    assert pipe.ends[0].core.round_trip_s == pytest.approx(0.06, rel=0.2)


@pytest.mark.parametrize("seed", range(12))
def test_bad_paths_carry_everything_both_ways_by_seed(seed: int):
    one, two = noise(seed, 120_000), noise(seed + 1, 50_000)
    pipe = Pipe(seed, one, two, loss=0.03 * (seed % 8), late=0.1 * (seed % 3))
    took = pipe.run(600)
    assert (pipe.ends[0].got, pipe.ends[1].got) == (two, one)
    assert all(end.ended for end in pipe.ends)
    assert took < 600


def test_a_reader_that_stands_still_stops_the_writer_and_nothing_is_lost():
    data = noise(2, 2 * WINDOW)
    pipe = Pipe(2, data, loss=0.02)
    reader = pipe.ends[1]
    reader.slow = True
    pipe.run(120)
    assert len(reader.got) <= WINDOW
    assert len(pipe.ends[0].core._send.queue) <= BUFFER_BYTES + 5000
    assert pipe.ends[0].core.broken is None  # slow is not gone
    reader.slow = False
    pipe.run(240)
    assert reader.got == data


def test_a_path_that_is_cut_breaks_the_stream_in_time():
    pipe = Pipe(3, noise(3, 100_000))
    pipe.cut = True
    pipe.run(DEAD_S - 1)
    assert pipe.ends[0].core.broken is None
    pipe.run(DEAD_S + RTO_MAX_S + 1)
    assert pipe.ends[0].core.broken == "the path is gone"
    assert pipe.ends[0].core.deadline is None
    assert pipe.posts < 40


def test_a_short_cut_is_survived():
    data = noise(4, 1_000_000)
    pipe = Pipe(4, data)
    pipe.run(0.2)
    pipe.cut = True
    pipe.run(6)
    pipe.cut = False
    pipe.run(60)
    assert pipe.ends[1].got == data


def test_one_lost_packet_costs_one_packet():
    data = noise(5, 40 * SEGMENT_BYTES)
    clean = Pipe(5, data)
    clean.run(10)
    pipe = Pipe(5, data)
    dropped = 0
    honest = pipe.post

    def lossy(to: int, payload: bytes) -> None:
        nonlocal dropped
        if to == 1 and payload[0] == arq.DATA and payload[5:9] == (12).to_bytes(4, "big"):
            dropped += 1
            return
        honest(to, payload)

    pipe.post = lossy  # type: ignore[method-assign]
    took = pipe.run(10)
    assert pipe.ends[1].got == data
    assert dropped == 1
    assert pipe.ends[0].core._send.number == clean.ends[0].core._send.number + 1
    assert took < 1


def test_after_a_reset_both_sides_are_over():
    core = ArqCore(STREAM, 0.0)
    assert core.on_payload(arq.reset_payload(STREAM), 0.0) == [
        Broken("the peer broke the stream off")
    ]
    assert core.on_payload(arq.reset_payload(STREAM), 0.0) == []
    assert core.on_timer(1e9) == []


def test_an_acknowledgement_of_what_was_never_sent_changes_nothing():
    core = ArqCore(STREAM, 0.0)
    core.write(b"x" * 5000, 0.0)
    before = core._send.number
    bad = arq._HEAD.pack(arq.ACK, STREAM) + arq._ACK.pack(WINDOW, 1) + arq._RANGE.pack(0, 999)
    assert core.on_payload(bad, 0.1) == []
    assert core.counters["arq_malformed"] == 1
    assert core._send.number == before
    assert len(core._send._flight) == before


@settings(max_examples=300)
@given(st.integers(0, 2**32), st.integers(1, 300))
def test_garbage_never_raises_and_buffers_stay_bounded(seed: int, count: int):
    """A hostile member: well-formed heads, any numbers, any offsets, any order."""
    rng = random.Random(seed)
    core = ArqCore(STREAM, 0.0)
    core.write(rng.randbytes(50_000), 0.0)
    now = 0.0
    got = 0

    def number(bits: int) -> int:
        return rng.choice((rng.randrange(40), rng.getrandbits(bits), (1 << bits) - 1))

    for _ in range(count):
        now += rng.random() * 0.1
        kind = rng.randrange(1, 6 if rng.random() < 0.01 else 5)
        body = rng.choice(
            (
                rng.randbytes(rng.randrange(40)),
                arq._DATA.pack(number(32), rng.choice((rng.randrange(2000), number(64))))
                + rng.randbytes(rng.randrange(1200)),
                arq._ACK.pack(number(64), 2)
                + b"".join(arq._RANGE.pack(*sorted((number(32), number(32)))) for _ in "ab"),
            )
        )
        effects = core.on_payload(arq._HEAD.pack(kind, STREAM) + body, now)
        effects += core.on_timer(now)
        for effect in effects:
            if isinstance(effect, Delivered):
                got += len(effect.data)
    assert got <= WINDOW
    assert len(core._receive._ranges) <= RANGES_MAX
    assert sum(map(len, core._receive._pending.values())) <= arq.PENDING_MAX * 1200


@given(st.binary(max_size=20))
def test_what_is_no_payload_of_a_stream_is_told(payload: bytes):
    found = arq.stream_id(payload)
    assert (found is None) == (len(payload) < 5 or not 1 <= payload[0] <= 5)
