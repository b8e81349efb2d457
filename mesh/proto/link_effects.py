"""What the core of a link (mesh/proto/link.py) tells its shell to do."""

from dataclasses import dataclass
from typing import Any

from mesh.proto.frames import Hello


@dataclass(frozen=True, slots=True)
class Send:
    """Put this message on the wire."""

    message: bytes


@dataclass(frozen=True, slots=True)
class Ready:
    """HELLO was exchanged."""

    hello: Hello
    wire: int


@dataclass(frozen=True, slots=True)
class Received:
    """A message for a flow's consumer, who says ``taken(flow, charge)`` when it has it."""

    flow: int
    body: Any
    charge: int


@dataclass(frozen=True, slots=True)
class Granted:
    """A flow may send again."""

    flow: int


@dataclass(frozen=True, slots=True)
class Called:
    """The peer asks; answer with ``answer`` or ``refuse``."""

    id: int
    method: str
    deadline_s: float
    body: Any


@dataclass(frozen=True, slots=True)
class CallDropped:
    """The peer no longer waits for this call of its own."""

    id: int


@dataclass(frozen=True, slots=True)
class Answered:
    """The peer answered our call."""

    id: int
    body: Any


@dataclass(frozen=True, slots=True)
class CallRefused:
    """The peer did not do what we asked; one sentence."""

    id: int
    sentence: str
    failed: bool


@dataclass(frozen=True, slots=True)
class Opened:
    """The peer opened a stream; take it with ``accept`` or refuse it with ``reset``."""

    flow: int
    name: str
    body: Any


@dataclass(frozen=True, slots=True)
class Ended:
    """The peer sends no more on this stream (``reason`` None), or the stream is broken off."""

    flow: int
    reason: str | None


@dataclass(frozen=True, slots=True)
class Closed:
    """The link is over."""

    reason: str
    by_peer: bool


Effect = (
    Send
    | Ready
    | Received
    | Granted
    | Called
    | CallDropped
    | Answered
    | CallRefused
    | Opened
    | Ended
    | Closed
)
