"""What detectors say to each other, as bytes.

It knows no state. The first byte is the kind: BEAT, PING and PONG are that byte alone (over UDP
or the link), an opinion (over the link only, where nothing is lost or overtaken) adds what is
thought of whom. Rules: anything longer than ``MESSAGE_BYTES_MAX``, of an unknown kind or
malformed is a CodecError; bytes after a BEAT, PING or PONG are a later release's and ignored.
"""

from dataclasses import dataclass
from typing import Final, Literal

from mesh.errors import CodecError

BEAT: Final = b"\x01"
PING: Final = b"\x02"
PONG: Final = b"\x03"
_OPINION: Final = 4

State = Literal[0, 1, 2]
MUTE: Final = 0
"""I say nothing of it (any more)."""
HEARD: Final = 1
SUSPECT: Final = 2

MESSAGE_BYTES_MAX: Final = 256
MEMBER_BYTES_MAX: Final = 64
AGE_MS_MAX: Final = (1 << 32) - 1
_HEADER_BYTES: Final = 6


@dataclass(frozen=True, slots=True)
class Opinion:
    """What the sender thinks of a member, which it last heard ``age_s`` ago."""

    of: str
    state: State
    age_s: float


Message = Literal["beat", "ping", "pong"] | Opinion


def encode_opinion(opinion: Opinion) -> bytes:
    """Return the bytes of an opinion."""
    age_ms = int(min(max(0.0, opinion.age_s * 1000), AGE_MS_MAX))
    return bytes((_OPINION, opinion.state)) + age_ms.to_bytes(4, "big") + opinion.of.encode()


def decode(data: object) -> Message:
    """Return what received bytes say, or raise CodecError."""
    if not isinstance(data, bytes) or not 1 <= len(data) <= MESSAGE_BYTES_MAX:
        raise CodecError("not a message of a detector")
    match data[0]:
        case 1:
            return "beat"
        case 2:
            return "ping"
        case 3:
            return "pong"
        case 4:
            return _opinion(data)
        case _:
            raise CodecError("an unknown kind of message")


def _opinion(data: bytes) -> Opinion:
    of = data[_HEADER_BYTES:]
    if not 1 <= len(of) <= MEMBER_BYTES_MAX or not of.isascii():
        raise CodecError("an opinion of nobody")
    age_s = int.from_bytes(data[2:_HEADER_BYTES], "big") / 1000
    match data[1]:
        case 0 | 1 | 2 as state:
            return Opinion(of.decode("ascii"), state, age_s)
        case _:
            raise CodecError("an unknown state")
