"""A live link to one member: drives the core (mesh/proto/link.py) over a carrier.

It knows no addresses and no other links. Rules: one task reads, one writes, one keeps the time;
the outbox is bounded (senders wait, control frames may go a little above), and a peer that does
not read for STALL_S loses the link, so it can never hold up anything but itself. Whatever the
peer sends or does ends at worst in ``run`` returning: no exception of its making leaves here.
"""

import math
from collections import Counter, deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

import trio

from mesh.errors import Refused, RemoteError, RemoteRefused, StoreBroken, Unreachable
from mesh.host.log import get_log
from mesh.link.flow import YIELD_MESSAGES, Inbox, LinkClosed, MessageStream, StreamBroken
from mesh.link.pace import Pace
from mesh.link.session import Session
from mesh.proto.frames import SERVICES, Hello
from mesh.proto.link import CALLS_MAX, LinkCore
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
from mesh.proto.record import HEADER_BYTES, PLAINTEXT_BYTES_MAX

RpcHandler = Callable[[str, Any], Awaitable[Any]]
"""``await handler(peer, body)`` returns the answer; raise Refused("sentence") to refuse."""
StreamHandler = Callable[[str, Any, MessageStream], Awaitable[None]]
"""``await handler(peer, body, stream)``; the stream ends when it returns."""

OUTBOX_BYTES: Final = 1 << 19
"""Senders wait while more than this waits to go out, and then until half of it is gone."""
OUTBOX_BYTES_MAX: Final = 16 << 20
"""With control frames on top; above it the link is closed."""
STALL_S: Final = 30.0
"""A peer that takes no byte for so long is gone."""
FAREWELL_S: Final = 1.0
"""Time that a closing link has to say why."""
HANDLER_S_MAX: Final = 600.0
"""Longest run of an rpc handler, whatever deadline the caller names."""
BATCH_BYTES: Final = 1 << 18
"""What the writer seals and sends in one go."""

_LOG = get_log("link")


class _Waiting:
    """A call of ours that waits for its answer."""

    def __init__(self) -> None:
        self.event = trio.Event()
        self.result: Answered | CallRefused | None = None


class Link:
    """One live link. Made and run by Peers; services get it."""

    def __init__(
        self,
        session: Session,
        hello: Hello,
        *,
        rpc: Mapping[str, RpcHandler],
        streams: Mapping[str, StreamHandler],
        counters: Counter[str],
        bytes_per_s: float = 0,
    ) -> None:
        """``bytes_per_s`` caps what sync, streams and bulk answers send; 0: nothing does."""
        self.peer = session.peer
        self.dialled = session.dialled
        self.key = session.key
        self.key_record = session.key_record
        self.address = session.carrier.address
        self.path = session.carrier.name
        self.session = session
        self.bytes_in = 0
        self.bytes_out = 0
        self._core = LinkCore(hello, dialled=session.dialled)
        self._rpc = rpc
        self._streams = streams
        self._counters = counters
        self._hello = hello
        self._outbox: deque[bytes] = deque()
        self._outbox_bytes = 0
        self._unyielded = 0
        self._pace = Pace(bytes_per_s)
        self._work = trio.lowlevel.ParkingLot()  # the writer waits here
        self._room = trio.lowlevel.ParkingLot()  # senders wait here
        self._ready = trio.Event()
        self._idle = trio.Event()  # nothing is left to send
        self._over = trio.Event()
        self._reason = ""
        self._inboxes: dict[int, Inbox] = {}
        self._credit: dict[int, trio.lowlevel.ParkingLot] = {}  # senders wait here
        self._broken: dict[int, str] = {}
        self._answers: dict[int, _Waiting] = {}
        self._handlers: dict[int, trio.CancelScope] = {}
        self._call_slots = trio.Semaphore(CALLS_MAX)
        self._nursery: trio.Nursery | None = None
        for flow in SERVICES.values():
            self._add_flow(flow)

    # -- for services, handlers and callers --------------------------------------------------

    @property
    def kind(self) -> str:
        """``main`` or ``bulk``."""
        hello = self._core.peer_hello or self._hello
        return hello.kind

    @property
    def peer_hello(self) -> Hello:
        """What the peer said first; only once the link is ready."""
        assert self._core.peer_hello is not None
        return self._core.peer_hello

    @property
    def in_use(self) -> bool:
        """Tell whether a call or a stream is under way."""
        return bool(self._answers or self._handlers) or len(self._inboxes) > len(SERVICES)

    @property
    def round_trip_s(self) -> float | None:
        """The last measured round trip."""
        return self._core.round_trip_s

    @property
    def counters(self) -> Counter[str]:
        """What the core counted; added to those of Peers once the link is over."""
        return self._core.counters

    @property
    def closed(self) -> bool:
        """The link is over."""
        return self._over.is_set()

    @property
    def close_reason(self) -> str:
        """Why the link is over."""
        return self._reason

    async def wait_ready(self) -> bool:
        """Wait until HELLO was exchanged; False when the link closed before that."""
        await self._ready.wait()
        return not self.closed

    async def wait_closed(self) -> None:
        """Wait until the link is over."""
        await self._over.wait()

    async def send(self, frame_kind: str, body: Any) -> None:
        """Send a service message; waits for the peer's consumer. Raises LinkClosed."""
        flow = SERVICES[frame_kind]
        capped = frame_kind == "sync"
        if capped:
            await self._pace.wait(self._over)
        await self._wait_credit(flow)
        effects = self._core.service(frame_kind, body)
        self._apply(self._pace.charged(effects) if capped else effects)

    def receive(self, frame_kind: str) -> Inbox:
        """Return the channel of a service's bodies; it ends with the link."""
        return self._inboxes[SERVICES[frame_kind]]

    async def rpc(self, method: str, body: Any, timeout_s: float) -> Any:
        """Call the peer. Raises RemoteRefused with its sentence, or Unreachable."""
        with trio.move_on_after(timeout_s):
            async with self._call_slots:
                await self._wait_room()
                return await self._call(method, body, timeout_s)
        self._counters["calls_timed_out"] += 1
        raise Unreachable(f"{self.peer} did not answer {method} within {timeout_s:g} s")

    @asynccontextmanager
    async def stream(self, name: str, body: Any) -> AsyncGenerator[MessageStream]:
        """Open a stream to the peer's handler of that name; broken off at the end."""
        stream = await self.open_stream(name, body)
        try:
            yield stream
        finally:
            stream.drop()

    async def open_stream(self, name: str, body: Any) -> MessageStream:
        """Open a stream that the caller must ``drop`` in the end."""
        await self._wait_room()
        flow, effects = self._core.open(name, body)
        stream = MessageStream(self, flow, self.peer, self._add_flow(flow))
        self._apply(effects)
        return stream

    def close(self, reason: str) -> None:
        """Close the link: the peer is told why if it reads."""
        if not self.closed:
            self._apply(self._core.close(reason))

    # -- for MessageStream -------------------------------------------------------------------

    async def send_on_stream(self, flow: int, data: bytes) -> None:
        """Send one message of a stream, once there is credit and room."""
        await self._pace.wait(self._over)
        await self._wait_credit(flow)
        self._apply(self._pace.charged(self._core.send_data(flow, data)))

    def end_stream(self, flow: int) -> None:
        """Say that we send no more."""
        self._apply(self._core.end(flow))

    def reset_stream(self, flow: int, reason: str) -> None:
        """Break a stream off, unless it is over."""
        self._apply(self._core.reset(flow, reason))

    def drop_stream(self, flow: int, reason: str) -> None:
        """Our side is done with a stream."""
        if flow in self._inboxes:
            self._apply(self._core.reset(flow, reason))
            self._inboxes.pop(flow).end(StreamBroken(reason))
            self._credit.pop(flow).unpark_all()
            self._broken.pop(flow, None)

    # -- for Peers ---------------------------------------------------------------------------

    async def run(self) -> None:
        """Run until the link is over."""
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                for work in (self._read, self._write, self._keep_time):
                    nursery.start_soon(self._guard, work)
                self._apply(self._core.start(trio.current_time()))
                await self._over.wait()
                with trio.move_on_after(FAREWELL_S):
                    await self._idle.wait()
                nursery.cancel_scope.cancel()
        finally:
            self._finish("stopped")
            self._counters.update(self._core.counters)
            with trio.CancelScope(shield=True):
                await self.session.carrier.aclose()

    async def _guard(self, work: Callable[[], Awaitable[None]]) -> None:
        """Run a task of the link; what the peer does to it ends the link, nothing else."""
        try:
            await work()
        except RemoteError as exc:
            self._counters[f"lost_{type(exc).__name__}"] += 1
            self._idle.set()
            self._finish(str(exc))

    async def _read(self) -> None:
        carrier, opener = self.session.carrier, self.session.opener
        while not self.closed:
            kind, body = await carrier.receive()
            self.bytes_in += HEADER_BYTES + len(body)
            message = opener.open(kind, body)
            if message is not None:
                self._counters["bytes_received"] += len(message)
                self._apply(self._core.on_message(message, trio.current_time()))

    async def _write(self) -> None:
        with trio.CancelScope() as patience:  # one for all batches: making one takes 40 us
            while True:
                while not self._outbox:
                    if self.closed:
                        self._idle.set()
                        return
                    await self._work.park()
                await self._write_batch(patience)
        raise RemoteError("the peer does not read")

    async def _write_batch(self, patience: trio.CancelScope) -> None:
        messages, size = self._take_batch()
        records = len(messages) + size // PLAINTEXT_BYTES_MAX
        patience.deadline = trio.current_time() + STALL_S * records
        await self.session.carrier.send(self._records(messages))
        patience.deadline = math.inf
        self._core.on_sent(trio.current_time())
        self._counters["bytes_sent"] += size
        self._outbox_bytes -= size
        if self._outbox_bytes <= OUTBOX_BYTES // 2:
            self._room.unpark_all()

    def _take_batch(self) -> tuple[list[bytes], int]:
        messages: list[bytes] = []
        size = 0
        while self._outbox and size < BATCH_BYTES:
            messages.append(self._outbox.popleft())
            size += len(messages[-1])
        return messages, size

    def _records(self, messages: list[bytes]) -> Iterator[memoryview]:
        now = trio.current_time()
        for message in messages:
            for record in self.session.sealer.seal(message, now):
                self.bytes_out += len(record)
                yield record

    async def _keep_time(self) -> None:
        while (deadline := self._core.deadline) is not None:
            await trio.sleep_until(deadline)
            self._apply(self._core.on_timer(trio.current_time()))

    # -- effects -----------------------------------------------------------------------------

    def _apply(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case Send(message):
                    self._queue(message)
                case Received(flow, body, charge):
                    self._inboxes[flow].put(body, charge)
                case Granted(flow):
                    self._credit[flow].unpark_all()
                case Answered(call_id) | CallRefused(call_id):
                    self._answers[call_id].result = effect
                    self._answers[call_id].event.set()
                case Called():
                    self._start(self._handle_call, effect)
                case CallDropped(call_id):
                    if call_id in self._handlers:
                        self._handlers[call_id].cancel()
                case Opened(flow):
                    self._add_flow(flow)
                    self._start(self._handle_stream, effect)
                case Ended(flow, reason):
                    self._end_flow(flow, reason)
                case Ready(hello):
                    if hello.kind == "bulk":
                        self.session.sealer.keep_scratch()
                        self.session.opener.keep_scratch()
                    self._ready.set()
                case Closed(reason):
                    self._finish(reason)

    def _queue(self, message: bytes) -> None:
        self._outbox.append(message)
        self._outbox_bytes += len(message)
        self._work.unpark_all()
        if self._outbox_bytes > OUTBOX_BYTES_MAX:
            self._counters["outbox_full"] += 1
            self._outbox.clear()
            self._finish("the peer does not read")

    def _start(self, work: Callable[[Any], Awaitable[None]], effect: Called | Opened) -> None:
        assert self._nursery is not None
        self._nursery.start_soon(work, effect)

    def _add_flow(self, flow: int) -> Inbox:
        def taken(charge: int) -> None:
            self._apply(self._core.taken(flow, charge))

        self._inboxes[flow] = Inbox(taken)
        self._credit[flow] = trio.lowlevel.ParkingLot()
        return self._inboxes[flow]

    def _end_flow(self, flow: int, reason: str | None) -> None:
        if reason is not None:
            self._broken[flow] = reason
            self._credit[flow].unpark_all()
        self._inboxes[flow].end(StreamBroken(reason) if reason else None)

    def _finish(self, reason: str) -> None:
        """The link is over: everyone who waits on it learns it."""
        if self.closed:
            return
        self._reason = reason
        self._core.close(reason)  # nothing more is done with what arrives
        self._over.set()
        self._ready.set()
        for lot in (self._work, self._room, *self._credit.values()):
            lot.unpark_all()
        for flow, inbox in self._inboxes.items():
            is_service = flow in SERVICES.values()
            inbox.end(None if is_service else LinkClosed(reason))
        for waiting in self._answers.values():
            waiting.event.set()

    # -- within ------------------------------------------------------------------------------

    async def _wait_room(self) -> None:
        self._unyielded = (self._unyielded + 1) % YIELD_MESSAGES
        if self._unyielded:
            await trio.lowlevel.checkpoint_if_cancelled()
        else:
            await trio.lowlevel.checkpoint()
        while self._outbox_bytes > OUTBOX_BYTES and not self.closed:
            await self._room.park()
        if self.closed:
            raise LinkClosed(f"the link to {self.peer} is closed: {self._reason}")

    async def _wait_credit(self, flow: int) -> None:
        while True:
            await self._wait_room()
            if flow in self._broken or flow not in self._credit:
                raise StreamBroken(self._broken.get(flow, "the stream is closed"))
            if self._core.may_send(flow):
                return
            await self._credit[flow].park()

    async def _call(self, method: str, body: Any, timeout_s: float) -> Any:
        call_id, effects = self._core.call(method, body, timeout_s)
        waiting = self._answers[call_id] = _Waiting()
        try:
            self._apply(effects)
            await waiting.event.wait()
        finally:
            del self._answers[call_id]
            self._apply(self._core.forget(call_id))
        match waiting.result:
            case Answered(_, answer):
                return answer
            case CallRefused(_, sentence):
                raise RemoteRefused(sentence)
            case None:
                raise LinkClosed(f"the link to {self.peer} closed: {self._reason}")

    async def _handle_call(self, called: Called) -> None:
        seconds = min(called.deadline_s, HANDLER_S_MAX)
        with trio.move_on_after(seconds) as scope:
            self._handlers[called.id] = scope
            try:
                handler = self._rpc.get(called.method)
                if handler is None:
                    raise Refused(f"there is no method {called.method!r} here")
                answer = await handler(self.peer, called.body)
                await self._wait_room()
                if self.kind == "bulk":
                    await self._pace.wait(self._over)
                    self._apply(self._pace.charged(self._core.answer(called.id, answer)))
                else:
                    self._apply(self._core.answer(called.id, answer))
            except LinkClosed:
                pass
            except Refused as exc:
                self._apply(self._core.refuse(called.id, str(exc)))
            except StoreBroken:
                raise
            except Exception as exc:
                self._failed("rpc handler failed", called.method, exc)
                sentence = f"{called.method} failed there"
                self._apply(self._core.refuse(called.id, sentence, failed=True))
            finally:
                del self._handlers[called.id]
        if scope.cancelled_caught:
            self._apply(self._core.refuse(called.id, "it took too long", failed=True))

    async def _handle_stream(self, opened: Opened) -> None:
        reason = "closed"
        stream = MessageStream(self, opened.flow, self.peer, self._inboxes[opened.flow])
        try:
            handler = self._streams.get(opened.name)
            if handler is None:
                raise Refused(f"there is no stream {opened.name!r} here")
            self._apply(self._core.accept(opened.flow))
            await handler(self.peer, opened.body, stream)
            stream.send_eof()
            reason = ""
        except (RemoteError, Unreachable):
            pass  # the peer broke the stream or the link off
        except Refused as exc:
            reason = str(exc)
        except StoreBroken:
            raise
        except Exception as exc:
            reason = f"{opened.name} failed there"
            self._failed("stream handler failed", opened.name, exc)
        finally:
            self.drop_stream(opened.flow, reason)

    def _failed(self, phrase: str, method: str, exc: Exception) -> None:
        self._counters["handlers_failed"] += 1
        _LOG.error(phrase, peer=self.peer, method=method, error=f"{type(exc).__name__}: {exc}")
