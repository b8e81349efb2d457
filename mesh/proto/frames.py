"""Frames: the messages of a link, above its records.

A frame is a msgpack list ``[type, ...]``; data of a stream is raw instead: the byte 0xc1 (which
msgpack never uses), the stream's id (4 bytes, big-endian), the bytes. It knows no order of
events: that is mesh/proto/link.py. Rules: HELLO is the first frame of each side and its body is
a map that may grow; more list members than a type has today are ignored; an unknown type is not
an error (``None``), since a newer peer may have it; anything malformed is a CodecError. Frames
are neither stored nor signed, so their maps are not put in canonical order.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal

import msgpack

from mesh.errors import CodecError, LocalError
from mesh.proto.codec import unpack
from mesh.proto.record import MESSAGE_BYTES_MAX

ServiceKind = Literal["sync", "broadcast", "receipt", "detect"]
LinkKind = Literal["main", "bulk"]

WIRE: Final = 1
"""Wire version that this program speaks best."""
WIRE_MIN: Final = max(1, WIRE - 2)
"""Oldest wire version that it still speaks (ARCHITECTURE 3: N-2)."""
SCHEMA: Final = 1

FRAME_BYTES_MAX: Final = MESSAGE_BYTES_MAX
BODY_BYTES_MAX: Final = 2 << 20
"""Largest encoded body that surely fits; the rest of a frame needs less than 1 KiB more."""
TEXT_CHARS_MAX: Final = 512
NAME_CHARS_MAX: Final = 64
ID_MAX: Final = (1 << 32) - 1
DEADLINE_MS_MAX: Final = 86_400_000
CREDIT_MAX: Final = 1 << 30

SERVICES: Final[dict[str, int]] = {"sync": 1, "broadcast": 2, "receipt": 3, "detect": 15}
"""By name: the type of a service's frames, which is also the id of its flow (below 16)."""
_SERVICE_NAMES: Final = {code: name for name, code in SERVICES.items()}
_RAW: Final = 0xC1
_RAW_HEADER_BYTES: Final = 5


@dataclass(frozen=True, slots=True)
class Hello:
    """Who speaks what. ``session`` is 8 random bytes of this process: a new one = a restart.

    ``udp`` is the port where it takes datagrams, 0 when it takes none.
    """

    wire_min: int
    wire_max: int
    build: str
    schema: int
    kind: LinkKind
    session: bytes
    udp: int = 0


@dataclass(frozen=True, slots=True)
class Service:
    """A message of one of the link services."""

    kind: str
    body: Any


@dataclass(frozen=True, slots=True)
class Call:
    """Ask the peer to do something; the deadline is what is left of it, in milliseconds."""

    id: int
    method: str
    deadline_ms: int
    body: Any


@dataclass(frozen=True, slots=True)
class Answer:
    """The result of a call."""

    id: int
    body: Any


@dataclass(frozen=True, slots=True)
class Refusal:
    """A call that was not done, with a sentence; ``failed`` = not refused but broken there."""

    id: int
    sentence: str
    failed: bool


@dataclass(frozen=True, slots=True)
class Forget:
    """The caller waits no longer."""

    id: int


@dataclass(frozen=True, slots=True)
class Open:
    """Open a stream; the credit is what the acceptor may send."""

    id: int
    name: str
    credit: int
    body: Any


@dataclass(frozen=True, slots=True)
class Data:
    """Bytes on a stream."""

    id: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Credit:
    """So many more charged bytes may be sent on a stream (ids below 16: a service)."""

    id: int
    amount: int


@dataclass(frozen=True, slots=True)
class End:
    """The sender sends no more on this stream."""

    id: int


@dataclass(frozen=True, slots=True)
class Reset:
    """The stream is over in both directions."""

    id: int
    reason: str


@dataclass(frozen=True, slots=True)
class Ping:
    """Answer with the same number."""

    number: int


@dataclass(frozen=True, slots=True)
class Pong:
    """The answer to a ping."""

    number: int


@dataclass(frozen=True, slots=True)
class Bye:
    """The link closes, and why."""

    reason: str


Frame = (
    Hello
    | Service
    | Call
    | Answer
    | Refusal
    | Forget
    | Open
    | Data
    | Credit
    | End
    | Reset
    | Ping
    | Pong
    | Bye
)


def make_hello(kind: LinkKind, build: str, session: bytes, udp: int = 0) -> Hello:
    """Return what this program says first."""
    return Hello(WIRE_MIN, WIRE, build, SCHEMA, kind, session, udp)


def encode(frame: Frame) -> bytes:
    """Return the bytes of a frame; raise LocalError for a body that no link carries."""
    if isinstance(frame, Data):
        return bytes([_RAW]) + frame.id.to_bytes(4, "big") + frame.data
    try:
        data = bytes(msgpack.packb(_fields(frame), use_bin_type=True) or b"")
    except (TypeError, ValueError, OverflowError) as exc:
        raise LocalError(f"a body that msgpack cannot carry: {exc}") from exc
    if len(data) > FRAME_BYTES_MAX:
        raise LocalError(f"a frame of {len(data)} bytes, {FRAME_BYTES_MAX} is the most")
    return data


def _fields(frame: Frame) -> list[Any]:
    match frame:
        case Hello():
            return [0, {name: getattr(frame, name) for name in Hello.__slots__}]
        case Service(kind, body):
            return [SERVICES[kind], body]
        case Call(call_id, method, deadline_ms, body):
            return [4, call_id, method, deadline_ms, body]
        case Answer(call_id, body):
            return [5, call_id, body]
        case Refusal(call_id, sentence, failed):
            return [6, call_id, sentence[:TEXT_CHARS_MAX], failed]
        case Forget(call_id):
            return [7, call_id]
        case Open(stream_id, name, credit, body):
            return [8, stream_id, name, credit, body]
        case Credit(stream_id, amount):
            return [9, stream_id, amount]
        case End(stream_id):
            return [10, stream_id]
        case Reset(stream_id, reason):
            return [11, stream_id, reason[:TEXT_CHARS_MAX]]
        case Ping(number):
            return [12, number]
        case Pong(number):
            return [13, number]
        case Bye(reason):
            return [14, reason[:TEXT_CHARS_MAX]]
        case Data():
            raise AssertionError("raw frames have no fields")


def decode(data: bytes | memoryview) -> Frame | None:
    """Return the frame in received bytes, None for a type unknown here, or raise CodecError."""
    if data[:1] == b"\xc1":
        if len(data) < _RAW_HEADER_BYTES:
            raise CodecError("a truncated stream frame")
        return Data(
            int.from_bytes(data[1:_RAW_HEADER_BYTES], "big"), bytes(data[_RAW_HEADER_BYTES:])
        )
    value = unpack(bytes(data), FRAME_BYTES_MAX)
    if not isinstance(value, list) or not value:
        raise CodecError("a frame is a list")
    kind = _number(value[0], 255)
    if kind in _SERVICE_NAMES:
        if len(value) < 2:
            raise CodecError("a service frame without a body")
        return Service(_SERVICE_NAMES[kind], value[1])
    parse = _PARSERS.get(kind)
    if parse is None:
        return None
    try:
        return parse(value)
    except IndexError as exc:
        raise CodecError("a frame with too few members") from exc


def _hello(value: list[Any]) -> Hello:
    body = value[1]
    if not isinstance(body, dict):
        raise CodecError("a HELLO without a map")
    kind, session = body.get("kind"), body.get("session")
    if kind not in ("main", "bulk") or not isinstance(session, bytes) or len(session) > 16:
        raise CodecError("a HELLO without a kind or a session")
    return Hello(
        wire_min=_number(body.get("wire_min"), 65_535),
        wire_max=_number(body.get("wire_max"), 65_535),
        build=_text(body.get("build"), NAME_CHARS_MAX),
        schema=_number(body.get("schema"), 65_535),
        kind=kind,
        session=session,
        udp=_number(body.get("udp", 0), 65_535),
    )


def _call(value: list[Any]) -> Call:
    method = _text(value[2], NAME_CHARS_MAX)
    return Call(_id(value), method, _number(value[3], DEADLINE_MS_MAX), value[4])


def _refusal(value: list[Any]) -> Refusal:
    return Refusal(_id(value), _text(value[2], TEXT_CHARS_MAX), value[3] is True)


def _open(value: list[Any]) -> Open:
    name = _text(value[2], NAME_CHARS_MAX)
    return Open(_id(value), name, _number(value[3], CREDIT_MAX), value[4])


_PARSERS: Final[dict[int, Callable[[list[Any]], Frame]]] = {
    0: _hello,
    4: _call,
    5: lambda value: Answer(_id(value), value[2]),
    6: _refusal,
    7: lambda value: Forget(_id(value)),
    8: _open,
    9: lambda value: Credit(_id(value), _number(value[2], CREDIT_MAX)),
    10: lambda value: End(_id(value)),
    11: lambda value: Reset(_id(value), _text(value[2], TEXT_CHARS_MAX)),
    12: lambda value: Ping(_id(value)),
    13: lambda value: Pong(_id(value)),
    14: lambda value: Bye(_text(value[1], TEXT_CHARS_MAX)),
}


def _id(value: list[Any]) -> int:
    return _number(value[1], ID_MAX)


def _number(value: Any, most: int) -> int:
    if type(value) is not int or not 0 <= value <= most:
        raise CodecError("not a number in range")
    return value


def _text(value: Any, chars_max: int) -> str:
    if not isinstance(value, str) or len(value) > chars_max:
        raise CodecError("not a text in range")
    return value
