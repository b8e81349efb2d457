"""What a consumer holds of a link: the received messages of a flow, and a stream.

It knows no wire. Rule: every message taken here is told to the core, which grants the sender
new credit; so what waits in an Inbox is bounded by the window, and a slow consumer stops only
its own flow.
"""

from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final, Protocol, Self

import trio

from mesh.errors import RemoteError, Unreachable
from mesh.proto.link import STREAM_DATA_BYTES_MAX

YIELD_MESSAGES: Final = 8
"""Who sends or receives without having to wait lets others run after so many messages: a turn
of the scheduler costs as much as sealing 64 KiB."""


class LinkClosed(Unreachable):
    """The link ended; what was under way has an unknown outcome there."""


class StreamBroken(RemoteError):
    """The peer broke the stream off; ``str(error)`` says why. The link goes on."""


class Inbox(trio.abc.ReceiveChannel[Any]):
    """Messages of one flow, in order."""

    def __init__(self, taken: Callable[[int], None]) -> None:
        self._taken = taken
        self._waiting: deque[tuple[Any, int]] = deque()
        self._unyielded = 0
        self._end: Exception | None = None
        self._lot = trio.lowlevel.ParkingLot()

    def put(self, body: Any, charge: int) -> None:
        """Add a message (called by the link)."""
        self._waiting.append((body, charge))
        self._lot.unpark()

    def end(self, error: Exception | None = None) -> None:
        """Nothing more comes; consumers see the end or the error after what is here."""
        if self._end is None:
            self._end = error or trio.EndOfChannel()
            self._lot.unpark_all()

    def receive_nowait(self) -> Any:
        """Return the next message; raise trio.WouldBlock, or how the flow ended."""
        if self._waiting:
            body, charge = self._waiting.popleft()
            self._taken(charge)
            return body
        if self._end is not None:
            raise self._end
        raise trio.WouldBlock

    async def receive(self) -> Any:
        """Return the next; raise EndOfChannel, StreamBroken or LinkClosed at the end."""
        await trio.lowlevel.checkpoint_if_cancelled()
        while not self._waiting and self._end is None:
            await self._lot.park()
        body = self.receive_nowait()
        self._unyielded = (self._unyielded + 1) % YIELD_MESSAGES
        if not self._unyielded:
            await trio.lowlevel.cancel_shielded_checkpoint()
        return body

    async def aclose(self) -> None:
        """Nothing to do: the flow belongs to the link."""
        await trio.lowlevel.checkpoint()


class _StreamOwner(Protocol):
    async def send_on_stream(self, flow: int, data: bytes) -> None: ...

    def end_stream(self, flow: int) -> None: ...

    def reset_stream(self, flow: int, reason: str) -> None: ...

    def drop_stream(self, flow: int, reason: str) -> None: ...


class MessageStream:
    """One stream: byte messages both ways, with credit; a context that breaks it off.

    Messages keep their borders up to 65,514 bytes; longer data is cut into several.
    """

    def __init__(self, owner: _StreamOwner, flow: int, peer: str, inbox: Inbox) -> None:
        self.peer = peer
        self._owner = owner
        self._flow = flow
        self._inbox = inbox

    async def send(self, data: bytes) -> None:
        """Send data; waits for the receiver. Raises StreamBroken or LinkClosed."""
        for start in range(0, max(len(data), 1), STREAM_DATA_BYTES_MAX):
            part = data[start : start + STREAM_DATA_BYTES_MAX]
            await self._owner.send_on_stream(self._flow, part)

    def send_eof(self) -> None:
        """Say that we send no more; receiving goes on."""
        self._owner.end_stream(self._flow)

    async def receive(self) -> bytes:
        """Return the next data; raise EndOfChannel, StreamBroken or LinkClosed at the end."""
        data = await self._inbox.receive()
        assert isinstance(data, bytes)
        return data

    def close(self, reason: str = "closed") -> None:
        """Break the stream off, unless both sides have ended it."""
        self._owner.reset_stream(self._flow, reason)

    def drop(self) -> None:
        """Be done with the stream; whoever still waits on it hears that it is closed."""
        self._owner.drop_stream(self._flow, "closed")

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        try:
            return await self.receive()
        except trio.EndOfChannel:
            raise StopAsyncIteration from None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
