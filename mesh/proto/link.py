"""One link's conversation: HELLO, services, calls, streams with credit, keepalive, closing.

Theory of operation. Each side starts with HELLO (the dialler first, the acceptor answers with
the dialler's kind); the wire version is the lower of both maxima. Then *services* (sync, ...),
*calls* with an id and a deadline, and *streams* share the link. Nothing
ever stops the reading of a link: whatever can pile up has credit. A flow (a stream, or a
service, which is a stream that is always open) may carry messages while its credit is above
zero; a message is charged its length plus 64 bytes; the receiver grants again what its consumer
took. Calls are bounded by number and by bytes. So a slow consumer stops its own flow only.

It knows no socket, no key and no clock. Rules: whatever the peer sends, ``on_message`` returns
effects and never raises; what makes no sense is counted and dropped, and so much of it, or an
overrun of credit, closes the link; after Closed there are no more effects.
"""

from collections import Counter
from dataclasses import dataclass, replace
from typing import Any, Final

from mesh.errors import CodecError
from mesh.proto.frames import (
    DEADLINE_MS_MAX,
    SERVICES,
    TEXT_CHARS_MAX,
    Answer,
    Bye,
    Call,
    Credit,
    Data,
    End,
    Forget,
    Frame,
    Hello,
    Open,
    Ping,
    Pong,
    Refusal,
    Reset,
    Service,
    decode,
    encode,
)
from mesh.proto.link_effects import (
    Answered,
    CallDropped,
    Called,
    CallRefused,
    Closed,
    Effect,
    Ended,
    Granted,
    Opened,
    Ready,
    Received,
    Send,
)

HELLO_S: Final = 10.0
PING_S: Final = 10.0
"""The dialler pings after so long a silence of its own; below a third of SILENCE_S."""
ANSWERER_PING_S: Final = 15.0
"""The other side after so long: it answers the dialler's pings, which do for both."""
MEASURE_S: Final = 60.0
"""Each side pings at least so often, to know the round trip; the first time after PING_S."""
SILENCE_S: Final = 35.0
"""A peer that was silent so long is gone."""
CALLS_MAX: Final = 64
"""Calls of one side under way at once on a link; the peer refuses more."""
CALL_BYTES_MAX: Final = 8 << 20
"""Bytes of the peer's calls under way at once; more are refused."""
STREAMS_MAX: Final = 64
"""Streams that the peer may have open at once on a link."""
SERVICE_WINDOW: Final = 4 << 20
STREAM_WINDOW: Final = 1 << 20
BULK_STREAM_WINDOW: Final = 8 << 20
STREAM_DATA_BYTES_MAX: Final = 65_514
"""Longest data of one stream message: with its 5 bytes of header just one record."""
MESSAGE_OVERHEAD: Final = 64
NONSENSE_MAX: Final = 64
"""Malformed or senseless frames from one peer before the link is closed."""
FIRST_STREAM_ID: Final = 16


@dataclass(slots=True)
class _Flow:
    """Both directions of a flow."""

    window: int
    may_send: int
    may_receive: int
    owed: int = 0
    sending: bool = True
    receiving: bool = True


class LinkCore:
    """One side of one link."""

    def __init__(self, hello: Hello, *, dialled: bool) -> None:
        self._hello = hello
        self._dialled = dialled
        self.peer_hello: Hello | None = None
        self.deadline: float | None = None
        self.closed: str | None = None
        self.counters: Counter[str] = Counter()
        self.round_trip_s: float | None = None
        self._flows: dict[int, _Flow] = {}
        self._ours: set[int] = set()  # our calls that wait
        self._theirs: dict[int, int] = {}  # the peer's calls, with their bytes
        self._their_bytes = 0
        self._next_call = 1
        self._next_stream = FIRST_STREAM_ID + (1 if dialled else 0)
        self._last_peer_stream = 0
        self._peer_streams = 0
        self._sent_at = 0.0
        self._received_at = 0.0
        self._ping: tuple[int, float] | None = None
        self._pings = 0
        self._ping_s = PING_S if dialled else ANSWERER_PING_S
        self._measure_at = 0.0

    # -- events ----------------------------------------------------------------------------

    def start(self, now: float) -> list[Effect]:
        """Begin; the dialler speaks first."""
        assert self.deadline is None, "started twice"
        self._sent_at = self._received_at = now
        self.deadline = now + HELLO_S
        return [self._send(self._hello)] if self._dialled else []

    def on_message(self, message: bytes | memoryview, now: float) -> list[Effect]:
        """Take one message from the wire."""
        if self.closed is not None:
            return []
        self._received_at = now
        try:
            frame = decode(message)
        except CodecError:
            return self._nonsense("malformed")
        if self.peer_hello is None:
            return self._on_hello(frame, now)
        self.deadline = self._next_look()
        match frame:
            case None:
                self.counters["unknown_frames"] += 1
                return []
            case Service(kind, body):
                return self._on_flow(SERVICES[kind], body, len(message))
            case Data(flow, data):
                return self._on_flow(flow, data, len(message))
            case Call():
                return self._on_call(frame, len(message))
            case Answer(call_id, body):
                return self._on_answer(call_id, Answered(call_id, body))
            case Refusal(call_id, sentence, failed):
                return self._on_answer(call_id, CallRefused(call_id, sentence, failed))
            case Forget(call_id):
                return [CallDropped(call_id)] if self._finish_call(call_id) else []
            case Open():
                return self._on_open(frame)
            case Credit(flow, amount):
                return self._on_credit(flow, amount)
            case End(flow):
                return self._on_end(flow)
            case Reset(flow, reason):
                return self._on_reset(flow, reason)
            case Ping(number):
                return [self._send(Pong(number))]
            case Pong(number):
                self._on_pong(number, now)
                return []
            case Bye(reason):
                return self._close(reason, by_peer=True)
            case Hello():
                return self._nonsense("second_hello")

    def on_sent(self, now: float) -> None:
        """Something went out on the wire."""
        self._sent_at = now

    def on_timer(self, now: float) -> list[Effect]:
        """Look at the clock at ``deadline`` (or later)."""
        if self.closed is not None or self.deadline is None or now < self.deadline:
            return []
        if self.peer_hello is None:
            return self._close("no HELLO in time")
        if now >= self._received_at + SILENCE_S:
            return self._close("the peer is silent")
        effects: list[Effect] = []
        if now >= min(self._sent_at + self._ping_s, self._measure_at):
            self._pings = (self._pings + 1) % (1 << 32)
            self._ping = (self._pings, now)
            self._sent_at = now
            self._measure_at = now + MEASURE_S
            effects.append(self._send(Ping(self._pings)))
        self.deadline = self._next_look()
        return effects

    def _next_look(self) -> float:
        ping_at = min(self._sent_at + self._ping_s, self._measure_at)
        return min(ping_at, self._received_at + SILENCE_S)

    # -- what our side does ------------------------------------------------------------------

    def may_send(self, flow: int) -> bool:
        """Tell whether a flow has credit for one more message."""
        state = self._flows.get(flow)
        return state is not None and state.sending and state.may_send > 0

    def alive(self, flow: int) -> bool:
        """Tell whether a flow still exists in either direction."""
        return flow in self._flows

    def service(self, kind: str, body: Any) -> list[Effect]:
        """Send a message of a service; only while ``may_send``."""
        return self._send_on(SERVICES[kind], encode(Service(kind, body)))

    def send_data(self, flow: int, data: bytes) -> list[Effect]:
        """Send data on a stream; only while ``may_send``."""
        assert flow >= FIRST_STREAM_ID
        assert len(data) <= STREAM_DATA_BYTES_MAX
        return self._send_on(flow, encode(Data(flow, data)))

    def taken(self, flow: int, charge: int) -> list[Effect]:
        """The consumer took a received message; grants when a quarter of the window is owed."""
        state = self._flows.get(flow)
        if state is None or self.closed is not None:
            return []
        state.owed += charge
        if not state.receiving or state.owed * 4 < state.window:
            return []
        amount, state.owed = state.owed, 0
        state.may_receive += amount
        return [self._send(Credit(flow, amount))]

    def call(self, method: str, body: Any, timeout_s: float) -> tuple[int, list[Effect]]:
        """Ask the peer; at most CALLS_MAX at once."""
        assert len(self._ours) < CALLS_MAX
        call_id = self._next_call
        deadline_ms = min(max(1, round(timeout_s * 1000)), DEADLINE_MS_MAX)
        effects: list[Effect] = [self._send(Call(call_id, method, deadline_ms, body))]
        self._next_call = call_id % ((1 << 32) - 1) + 1
        self._ours.add(call_id)
        return call_id, effects

    def forget(self, call_id: int) -> list[Effect]:
        """Wait no longer for an answer."""
        if call_id not in self._ours or self.closed is not None:
            return []
        self._ours.discard(call_id)
        return [self._send(Forget(call_id))]

    def answer(self, call_id: int, body: Any) -> list[Effect]:
        """Answer the peer's call (nothing is sent when it waits no longer)."""
        if call_id not in self._theirs or self.closed is not None:
            return []
        message = self._send(Answer(call_id, body))
        self._finish_call(call_id)
        return [message]

    def refuse(self, call_id: int, sentence: str, *, failed: bool = False) -> list[Effect]:
        """Refuse the peer's call, or say that it failed here."""
        known = self._finish_call(call_id)
        if not known or self.closed is not None:
            return []
        return [self._send(Refusal(call_id, sentence, failed))]

    def open(self, name: str, body: Any) -> tuple[int, list[Effect]]:
        """Open a stream; it may send once the peer has granted credit."""
        flow = self._next_stream
        window = self._stream_window()
        effects: list[Effect] = [self._send(Open(flow, name, window, body))]
        self._next_stream += 2
        self._flows[flow] = _Flow(window, may_send=0, may_receive=window)
        return flow, effects

    def accept(self, flow: int) -> list[Effect]:
        """Take a stream that the peer opened: grant it its first credit."""
        state = self._flows.get(flow)
        if state is None or self.closed is not None:
            return []
        state.may_receive += state.window
        return [self._send(Credit(flow, state.window))]

    def end(self, flow: int) -> list[Effect]:
        """Say that we send no more on this stream."""
        state = self._flows.get(flow)
        if state is None or not state.sending or self.closed is not None:
            return []
        state.sending = False
        self._sweep(flow, state)
        return [self._send(End(flow))]

    def reset(self, flow: int, reason: str) -> list[Effect]:
        """Break a stream off in both directions."""
        assert flow >= FIRST_STREAM_ID
        if flow not in self._flows or self.closed is not None:
            return []
        self._drop(flow)
        return [self._send(Reset(flow, reason))]

    def close(self, reason: str) -> list[Effect]:
        """Close the link, saying why."""
        return self._close(reason)

    # -- within ------------------------------------------------------------------------------

    def _on_hello(self, frame: Frame | None, now: float) -> list[Effect]:
        if isinstance(frame, Bye):
            return self._close(frame.reason, by_peer=True)
        if not isinstance(frame, Hello):
            return self._close("the first frame is no HELLO")
        wire = min(frame.wire_max, self._hello.wire_max)
        effects: list[Effect] = []
        if not self._dialled:
            self._hello = replace(self._hello, kind=frame.kind)
            effects.append(self._send(self._hello))
        if wire < max(frame.wire_min, self._hello.wire_min):
            ours = f"{self._hello.wire_min} to {self._hello.wire_max}"
            theirs = f"{frame.wire_min} to {frame.wire_max}"
            sentence = f"no common wire version: {ours} here, {theirs} there"
            return effects + self._close(sentence)
        if frame.kind != self._hello.kind:
            return self._close("the acceptor answered with another kind of link")
        self.peer_hello = frame
        self._measure_at = now + PING_S
        self.deadline = self._next_look()
        for flow in SERVICES.values():
            self._flows[flow] = _Flow(SERVICE_WINDOW, SERVICE_WINDOW, SERVICE_WINDOW)
        return [*effects, Ready(frame, wire)]

    def _on_flow(self, flow: int, body: Any, size: int) -> list[Effect]:
        state = self._flows.get(flow)
        if state is None or not state.receiving:
            self.counters["late_data"] += 1  # it was on its way when we broke the stream off
            return []
        if state.may_receive <= 0:
            return self._close("the peer overran its credit")
        charge = size + MESSAGE_OVERHEAD
        state.may_receive -= charge
        return [Received(flow, body, charge)]

    def _on_call(self, frame: Call, size: int) -> list[Effect]:
        if frame.id in self._theirs:
            return self._nonsense("repeated_call")
        if len(self._theirs) >= CALLS_MAX or self._their_bytes + size > CALL_BYTES_MAX:
            self.counters["calls_refused"] += 1
            return [self._send(Refusal(frame.id, "too many calls at once", failed=False))]
        self._theirs[frame.id] = size
        self._their_bytes += size
        return [Called(frame.id, frame.method, frame.deadline_ms / 1000, frame.body)]

    def _on_answer(self, call_id: int, effect: Answered | CallRefused) -> list[Effect]:
        if call_id not in self._ours:
            self.counters["late_answers"] += 1
            return []
        self._ours.discard(call_id)
        return [effect]

    def _finish_call(self, call_id: int) -> bool:
        size = self._theirs.pop(call_id, None)
        self._their_bytes -= size or 0
        return size is not None

    def _on_open(self, frame: Open) -> list[Effect]:
        ours = frame.id % 2 == (1 if self._dialled else 0)
        if ours or frame.id <= max(self._last_peer_stream, FIRST_STREAM_ID - 1):
            return self._nonsense("wrong_stream_id")
        self._last_peer_stream = frame.id
        if self._peer_streams >= STREAMS_MAX:
            self.counters["streams_refused"] += 1
            return [self._send(Reset(frame.id, "too many streams at once"))]
        self._peer_streams += 1
        window = self._stream_window()
        self._flows[frame.id] = _Flow(window, may_send=frame.credit, may_receive=0)
        return [Opened(frame.id, frame.name, frame.body)]

    def _on_credit(self, flow: int, amount: int) -> list[Effect]:
        state = self._flows.get(flow)
        if state is None:
            self.counters["late_data"] += 1
            return []
        state.may_send = min(state.may_send + amount, 1 << 40)
        return [Granted(flow)]

    def _on_end(self, flow: int) -> list[Effect]:
        state = self._flows.get(flow)
        if state is None or not state.receiving or flow < FIRST_STREAM_ID:
            return self._nonsense("wrong_end")
        state.receiving = False
        self._sweep(flow, state)
        return [Ended(flow, None)]

    def _on_reset(self, flow: int, reason: str) -> list[Effect]:
        if flow not in self._flows or flow < FIRST_STREAM_ID:
            self.counters["late_data"] += 1
            return []
        self._drop(flow)
        return [Ended(flow, reason or "broken off")]

    def _on_pong(self, number: int, now: float) -> None:
        if self._ping is not None and self._ping[0] == number:
            self.round_trip_s = now - self._ping[1]
            self._ping = None

    def _sweep(self, flow: int, state: _Flow) -> None:
        if not state.sending and not state.receiving:
            self._drop(flow)

    def _drop(self, flow: int) -> None:
        del self._flows[flow]
        if flow % 2 != (1 if self._dialled else 0):
            self._peer_streams -= 1

    def _send_on(self, flow: int, message: bytes) -> list[Effect]:
        assert self.may_send(flow), "no credit"
        self._flows[flow].may_send -= len(message) + MESSAGE_OVERHEAD
        return [Send(message)]

    def _send(self, frame: Frame) -> Send:
        return Send(encode(frame))

    def _stream_window(self) -> int:
        return BULK_STREAM_WINDOW if self._hello.kind == "bulk" else STREAM_WINDOW

    def _nonsense(self, what: str) -> list[Effect]:
        self.counters[what] += 1
        self.counters["nonsense"] += 1
        if self.counters["nonsense"] > NONSENSE_MAX or self.peer_hello is None:
            return self._close("the peer talks nonsense")
        return []

    def _close(self, reason: str, *, by_peer: bool = False) -> list[Effect]:
        if self.closed is not None:
            return []
        self.closed = reason
        self.deadline = None
        reason = reason[:TEXT_CHARS_MAX]
        effects: list[Effect] = [] if by_peer else [self._send(Bye(reason))]
        return [*effects, Closed(reason, by_peer)]
