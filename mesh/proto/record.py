"""Transport records: what a link's bytes look like on TCP and inside a WebSocket.

Wire form of a record: kind (1 byte), length of the body (2 bytes, big-endian), body. Kinds 1
and 2 carry the messages of a Noise handshake (the first byte of a connection says which: 1 is
IK, 2 is XX); DATA ends a message, PART says that more follows, REKEY changes the sender's key.
Their bodies are AES-256-GCM over the plaintext with the three header bytes as associated data
and a 64-bit counter as nonce: a lost, repeated, moved or changed record does not decrypt.

It knows no frames, no socket and no clock. Rules: key(direction, carrier, 0) = HKDF(final
chaining key, label); k(n+1) = BLAKE2b keyed by k(n) over ``rekey``, the old key wiped, counter
back to 0; one direction has one key at a time, each carrier its own. RecordError ends the link.
"""

import hashlib
import hmac
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from mesh.errors import RemoteError
from mesh.proto.noise import KEY_BYTES, TAG_BYTES, nonce

Carrier = Literal["tcp", "udp"]
Direction = Literal["initiator", "responder"]

IK: Final = 1
XX: Final = 2
DATA: Final = 3
REKEY: Final = 4
PART: Final = 5
KINDS: Final = frozenset((IK, XX, DATA, REKEY, PART))

HEADER: Final = struct.Struct(">BH")
HEADER_BYTES: Final = 3
BODY_BYTES_MAX: Final = 65_535
PLAINTEXT_BYTES_MAX: Final = BODY_BYTES_MAX - TAG_BYTES  # 65,519
RECORD_BYTES_MAX: Final = HEADER_BYTES + BODY_BYTES_MAX
SMALL_BYTES: Final = 16_384
RECORDS_HELD: Final = 4
"""Records above SMALL_BYTES that may wait at once to go on the wire with one call."""
BUFFER_BYTES_FIRST: Final = 4096
PARTS_MAX: Final = 33
MESSAGE_BYTES_MAX: Final = PARTS_MAX * PLAINTEXT_BYTES_MAX
"""Longest message over records, a little above 2 MiB: one frame of a link."""

REKEY_S: Final = 600.0
REKEY_RECORDS: Final = 1 << 30
"""A key ends after ten minutes or this many records, whatever comes first."""
RECORDS_MAX: Final = 1 << 32
"""A receiver drops a peer that goes on so long under one key (it should have changed it)."""


class RecordError(RemoteError):
    """Bytes that are no record of this session; the link must be dropped."""


@dataclass(frozen=True, slots=True, repr=False)
class SessionKeys:
    """First keys of the two directions of one carrier."""

    initiator: bytes
    responder: bytes


def session_keys(chaining_key: bytes, carrier: Carrier) -> SessionKeys:
    """Derive a carrier's keys from a handshake's final chaining key.

    HKDF as in RFC 5869 with HMAC-BLAKE2b: extract with the chaining key as salt from nothing,
    expand with the label ``rackmesh/1 <direction> <carrier>``, first 32 bytes.
    """
    return SessionKeys(
        _derive(chaining_key, "initiator", carrier), _derive(chaining_key, "responder", carrier)
    )


def next_key(key: bytes | bytearray) -> bytearray:
    """Return k(n+1) of k(n)."""
    return bytearray(hashlib.blake2b(b"rekey", key=bytes(key), digest_size=KEY_BYTES).digest())


def handshake_record(kind: int, message: bytes) -> bytes:
    """Return the wire form of a handshake message."""
    assert kind in (IK, XX)
    return HEADER.pack(kind, len(message)) + message


class _Ratchet:
    """A direction's key, its counter and its steps."""

    def __init__(self, key: bytes) -> None:
        assert len(key) == KEY_BYTES
        self._key = bytearray(key)
        self._aead = AESGCM(bytes(key))
        self.counter = 0
        self.steps = 0

    def _step(self) -> None:
        new = next_key(self._key)
        self._key[:] = bytes(KEY_BYTES)
        self._key = new
        self._aead = AESGCM(bytes(new))
        self.counter = 0
        self.steps += 1


class Sealer(_Ratchet):
    """Makes the records of one direction."""

    def __init__(self, key: bytes, now: float) -> None:
        super().__init__(key)
        self._rekey_at = now + REKEY_S
        self._rooms: list[memoryview] = []
        self._turn = 0

    def keep_scratch(self) -> None:
        """Work in RECORDS_HELD buffers from now on, for a link that carries much."""
        self._rooms = [memoryview(bytearray(RECORD_BYTES_MAX)) for _ in range(RECORDS_HELD)]

    def seal(self, message: bytes | bytearray, now: float) -> Iterator[memoryview]:
        """Yield the records that carry a message, with a REKEY before them when it is due.

        A record above SMALL_BYTES holds until RECORDS_HELD more of its kind are asked for (it
        may lie in a buffer of ours), a smaller one as long as somebody has it.
        """
        size = len(message)
        assert size <= MESSAGE_BYTES_MAX, f"message of {size} bytes"
        if now >= self._rekey_at or self.counter >= REKEY_RECORDS:
            yield self._record(REKEY, b"")
            self._step()
            self._rekey_at = now + REKEY_S
        if size <= PLAINTEXT_BYTES_MAX:
            yield self._record(DATA, message)
            return
        view = memoryview(message)
        for start in range(0, size, PLAINTEXT_BYTES_MAX):
            last = start + PLAINTEXT_BYTES_MAX >= size
            part = view[start : start + PLAINTEXT_BYTES_MAX]
            yield self._record(DATA if last else PART, part)

    def _record(self, kind: int, plaintext: bytes | bytearray | memoryview) -> memoryview:
        body_bytes = len(plaintext) + TAG_BYTES
        if self._rooms and len(plaintext) > SMALL_BYTES:
            self._turn = (self._turn + 1) % RECORDS_HELD
            record = self._rooms[self._turn][: HEADER_BYTES + body_bytes]
        else:
            record = memoryview(bytearray(HEADER_BYTES + body_bytes))
        HEADER.pack_into(record, 0, kind, body_bytes)
        header = bytes(record[:HEADER_BYTES])
        body = record[HEADER_BYTES:]
        self._aead.encrypt_into(nonce(self.counter), plaintext, header, body)
        self.counter += 1
        return record


class Opener(_Ratchet):
    """Opens the records of one direction and puts messages together."""

    def __init__(self, key: bytes) -> None:
        super().__init__(key)
        self._parts: list[bytes] = []
        self._room: memoryview | None = None

    def keep_scratch(self) -> None:
        """Work in one buffer from now on, for a link that carries much."""
        self._room = memoryview(bytearray(PLAINTEXT_BYTES_MAX))

    def open(self, kind: int, body: bytes | memoryview) -> bytes | memoryview | None:
        """Return the message that a record ends, or None; raise RecordError.

        The message holds until the next call (it may lie in a buffer of ours).
        """
        if kind not in (DATA, PART, REKEY):
            raise RecordError("a handshake record in a session")
        if self.counter >= RECORDS_MAX:
            raise RecordError("too many records under one key")
        if len(body) < TAG_BYTES:
            raise RecordError("a record shorter than its tag")
        try:
            plaintext = self._decrypt(HEADER.pack(kind, len(body)), body)
        except InvalidTag as exc:
            raise RecordError("a record does not decrypt") from exc
        self.counter += 1
        if kind == DATA:
            return self._whole(plaintext)
        if kind == REKEY:
            if plaintext:
                raise RecordError("a key change with a body")
            self._step()
            return None
        if len(plaintext) != PLAINTEXT_BYTES_MAX or len(self._parts) >= PARTS_MAX - 1:
            raise RecordError("a message in wrong parts")
        self._parts.append(bytes(plaintext))
        return None

    def _decrypt(self, header: bytes, body: bytes | memoryview) -> bytes | memoryview:
        if self._room is None:
            return self._aead.decrypt(nonce(self.counter), body, header)
        room = self._room[: len(body) - TAG_BYTES]
        self._aead.decrypt_into(nonce(self.counter), body, header, room)
        return room

    def _whole(self, last: bytes | memoryview) -> bytes | memoryview:
        if not self._parts:
            return last
        message = b"".join([*self._parts, last])
        self._parts.clear()
        return message


class RecordBuffer:
    """Cuts a byte stream into records without copying what is already whole.

    It begins small, since a member has many links that carry little, and grows to its limit as
    soon as a read fills it.
    """

    def __init__(self, bytes_max: int = 2 * RECORD_BYTES_MAX) -> None:
        assert bytes_max >= RECORD_BYTES_MAX
        self._bytes_max = bytes_max
        self._data = bytearray(BUFFER_BYTES_FIRST)
        self._view = memoryview(self._data)
        self._start = 0
        self._end = 0

    def writable(self) -> memoryview:
        """Return where the next bytes go; never empty after ``next`` has returned None."""
        size = len(self._data)
        if self._start == self._end and self._end < size:
            self._start = self._end = 0
        elif self._end == size < self._bytes_max:
            self._move(min(self._bytes_max, 4 * size))
        elif size - self._start < RECORD_BYTES_MAX <= size:
            self._move(size)
        return self._view[self._end :]

    def _move(self, size: int) -> None:
        """Put what is here at the beginning, of a new buffer when it must be larger."""
        rest = bytes(self._view[self._start : self._end])
        if size > len(self._data):
            self._data = bytearray(size)
            self._view = memoryview(self._data)
        self._view[: len(rest)] = rest
        self._start, self._end = 0, len(rest)

    def wrote(self, count: int) -> None:
        """Say how many bytes were put there."""
        assert 0 <= count <= len(self._data) - self._end
        self._end += count

    def next(self) -> tuple[int, memoryview] | None:
        """Return kind and body of the next record, valid until the next ``writable``."""
        if self._end - self._start < HEADER_BYTES:
            return None
        kind, size = HEADER.unpack_from(self._data, self._start)
        if kind not in KINDS:
            raise RecordError("an unknown kind of record")
        body_start = self._start + HEADER_BYTES
        if self._end - body_start < size:
            return None
        self._start = body_start + size
        return kind, self._view[body_start : self._start]


def parse_record(data: bytes | bytearray) -> tuple[int, memoryview]:
    """Return kind and body of bytes that are exactly one record; raise RecordError."""
    if len(data) < HEADER_BYTES:
        raise RecordError("a truncated record")
    kind, size = HEADER.unpack_from(data, 0)
    if kind not in KINDS or size != len(data) - HEADER_BYTES:
        raise RecordError("not exactly one record")
    return kind, memoryview(data)[HEADER_BYTES:]


def _derive(chaining_key: bytes, direction: Direction, carrier: Carrier) -> bytes:
    extracted = hmac.new(chaining_key, b"", hashlib.blake2b).digest()
    label = f"rackmesh/1 {direction} {carrier}".encode()
    return hmac.new(extracted, label + b"\x01", hashlib.blake2b).digest()[:KEY_BYTES]
