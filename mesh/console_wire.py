"""What goes between who watches a server's console, hubs, and the node that has it open.

It knows messages and how they are carried, no BMC and no rights. Bytes are characters, text is
a JSON object, both ways: from the node ``{"state": "opening" | "open" | "ended", "text",
"writer", "you_write", "may_write", "watchers", "missed", "server", "node"}``, to the node
``{"do": "write" | "take" | "read" | "break"}``. Rule: what a stranger sends is bounded, and odd
text counts as {}.
"""

import json
from typing import Any, Final, Protocol

import trio

from mesh.errors import RemoteError, Unreachable

STREAM: Final = "console"
"""Name of the stream between members; its body is {"server", "who", "write", "take", "steal",
"forwarded"}."""
CHUNK_BYTES: Final = 16 << 10
"""Most characters of a message."""
CONTROL_CHARS_MAX: Final = 4096
WHO_CHARS_MAX: Final = 100
_DATA: Final = b"D"
_TEXT: Final = b"J"

Message = bytes | str
Json = dict[str, Any]


class Wire(Protocol):
    """A connection that carries the messages of one watcher."""

    async def send(self, message: Message) -> None:
        """Send one message; raises RemoteError or Unreachable when nobody takes it."""
        ...

    async def receive(self) -> Message | None:
        """Return the next message, None at the end; raises as ``send``."""
        ...


class Stream(Protocol):
    """A stream between members (mesh/link/flow.py)."""

    async def send(self, data: bytes) -> None: ...  # noqa: D102

    async def receive(self) -> bytes: ...  # noqa: D102


class StreamWire:
    """Messages over a stream between members: a letter, then the characters or the text."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    async def send(self, message: Message) -> None:
        """Send one message."""
        whole = _DATA + message if isinstance(message, bytes) else _TEXT + message.encode()
        await self._stream.send(whole)

    async def receive(self) -> Message | None:
        """Return the next message that makes sense."""
        while True:
            try:
                raw = await self._stream.receive()
            except trio.EndOfChannel:
                return None
            kind, rest = raw[:1], raw[1:]
            if kind == _DATA:
                return rest
            if kind == _TEXT:
                return rest.decode("utf-8", "replace")


def control(text: str) -> Json:
    """Return the object in a text message; {} for anything else."""
    if len(text) > CONTROL_CHARS_MAX:
        return {}
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def ended(text: str, code: str = "conflict") -> str:
    """Return the message that a console is over, and why, with the API's word for it."""
    return json.dumps({"state": "ended", "text": text, "code": code})


async def splice(one: Wire, other: Wire) -> None:
    """Carry messages both ways until one side ends; what breaks is an end."""
    async with trio.open_nursery() as nursery:

        async def carry(source: Wire, sink: Wire) -> None:
            try:
                while (message := await source.receive()) is not None:
                    await sink.send(message)
            except (RemoteError, Unreachable):
                pass  # gone: the other side is told by the end
            nursery.cancel_scope.cancel()

        nursery.start_soon(carry, one, other)
        nursery.start_soon(carry, other, one)
