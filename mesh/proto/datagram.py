"""Sealed datagrams: what a link's bytes look like on UDP.

Wire form: receiver id (8 bytes), counter (8 bytes, big-endian), then AES-256-GCM over kind
(1 byte) and payload, with the 16 bytes before it as associated data and the counter as nonce.
The receiver id tells the receiver which session this is; it follows from the first key of the
direction, so nobody has to agree on it, and whoever does not know it gets no further than one
look-up. The upper 34 bits of the counter are the step of the key, the lower 30 its own count:
a key change is a jump to the next step, which needs no message that could be lost.

It knows no socket, no address and no clock. Rules: no datagram is taken twice, whatever order
they come in (a window of WINDOW counters for each of two keys); a key before the last one
opens nothing; garbage is dropped and counted and changes nothing. A sender changes its key by
time only when it has heard the peer since the last change, so that a path which carries nothing
in one direction for hours does not leave the receiver behind.
"""

import hashlib
import struct
from collections import Counter
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from mesh.proto.noise import KEY_BYTES, TAG_BYTES, nonce
from mesh.proto.record import REKEY_S, SessionKeys, next_key

HEARTBEAT: Final = 1
STREAM: Final = 2
PUNCH: Final = 3

HEADER: Final = struct.Struct(">QQ")
DATAGRAM_BYTES_MAX: Final = 1_200
"""Largest UDP payload that we send: it passes every path that IPv6 allows (RFC 8200: 1,280)."""
OVERHEAD_BYTES: Final = HEADER.size + 1 + TAG_BYTES
PAYLOAD_BYTES_MAX: Final = DATAGRAM_BYTES_MAX - OVERHEAD_BYTES

STEP_BITS: Final = 30
STEP_COUNTERS: Final = 1 << STEP_BITS
"""Counters of one key; the last of them ends it, as REKEY_RECORDS does on TCP."""
WINDOW: Final = 2_048
"""So far behind the newest one, of the same key, a datagram may come."""
STEPS_AHEAD_MAX: Final = 256
"""Key changes that a receiver may have missed (42 hours); what a forger can make us hash."""

_WINDOW_MASK: Final = (1 << WINDOW) - 1
_COUNT_MASK: Final = (1 << STEP_BITS) - 1


@dataclass(frozen=True, slots=True)
class Opened:
    """What a datagram said; ``newest``: nothing later has come from this peer before."""

    kind: int
    payload: bytes
    newest: bool


def receiver_id(key: bytes) -> int:
    """Return the receiver id that goes with the first key of a direction."""
    return int.from_bytes(hashlib.blake2b(b"receiver", key=key, digest_size=8).digest(), "big")


def peek_receiver(datagram: bytes) -> int | None:
    """Return the receiver id of bytes that may be a datagram of ours, or None."""
    if not OVERHEAD_BYTES <= len(datagram) <= DATAGRAM_BYTES_MAX:
        return None
    return int.from_bytes(datagram[:8], "big")


class _Key:
    """One step of a direction's key, and which of its counters have been seen."""

    def __init__(self, key: bytes | bytearray, step: int) -> None:
        self.key = bytearray(key)
        self.step = step
        self.aead = AESGCM(bytes(key))
        self.newest = -1
        self._seen = 0  # bit n: the counter that is n below ``newest``

    def fresh(self, count: int) -> bool:
        """Tell whether a counter was not seen and is not too old."""
        behind = self.newest - count
        return behind < 0 or (behind < WINDOW and not self._seen >> behind & 1)

    def mark(self, count: int) -> bool:
        """Note a counter as seen; True when it is the newest."""
        behind = self.newest - count
        if behind >= 0:
            self._seen |= 1 << behind
            return False
        self._seen = (self._seen << -behind | 1) & _WINDOW_MASK if -behind < WINDOW else 1
        self.newest = count
        return True

    def wipe(self) -> None:
        self.key[:] = bytes(KEY_BYTES)


class DatagramSession:
    """Both directions of the datagrams of one link."""

    def __init__(self, keys: SessionKeys, now: float, *, dialled: bool) -> None:
        """``keys`` are those of carrier ``udp``; ``dialled``: we are the initiator."""
        ours, theirs = keys.initiator, keys.responder
        if not dialled:
            ours, theirs = theirs, ours
        self.dialled = dialled
        self.receiver = receiver_id(theirs)
        self.counters: Counter[str] = Counter()
        self._peer_receiver = receiver_id(ours)
        self._out = _Key(ours, 0)
        self._count = 0
        self._rekey_at = now + REKEY_S
        self._heard = False
        self._in = _Key(theirs, 0)
        self._old: _Key | None = None

    def seal(self, kind: int, payload: bytes, now: float) -> bytes:
        """Return the datagram for the peer."""
        assert 0 <= kind <= 255
        assert len(payload) <= PAYLOAD_BYTES_MAX, f"payload of {len(payload)} bytes"
        if self._count >= STEP_COUNTERS or (now >= self._rekey_at and self._heard):
            self._out = _following(self._out)
            self._count = 0
            self._rekey_at = now + REKEY_S
            self._heard = False
        counter = self._out.step << STEP_BITS | self._count
        self._count += 1
        header = HEADER.pack(self._peer_receiver, counter)
        return header + self._out.aead.encrypt(nonce(counter), bytes([kind]) + payload, header)

    def open(self, datagram: bytes) -> Opened | None:
        """Return what a datagram says, or None when it is to be dropped (counted)."""
        if peek_receiver(datagram) != self.receiver:
            return self._dropped("udp_malformed")
        header, sealed = datagram[: HEADER.size], datagram[HEADER.size :]
        counter = HEADER.unpack(header)[1]
        step, count = counter >> STEP_BITS, counter & _COUNT_MASK
        key = self._key_of(step)
        if key is None:
            return self._dropped("udp_wrong_step")
        if not key.fresh(count):
            return self._dropped("udp_replayed")
        try:
            plain = key.aead.decrypt(nonce(counter), sealed, header)
        except InvalidTag:
            return self._dropped("udp_forged")
        if step > self._in.step:
            self._step_to(key)
        self._heard = True
        newest = key.mark(count) and key is self._in
        return Opened(plain[0], plain[1:], newest)

    def _key_of(self, step: int) -> _Key | None:
        """Return the key of a step without changing anything, or None when it opens nothing."""
        if step == self._in.step:
            return self._in
        if self._old is not None and step == self._old.step:
            return self._old
        if not 0 < step - self._in.step <= STEPS_AHEAD_MAX:
            return None
        key = self._in.key
        for _ in range(step - self._in.step):
            key = next_key(key)
        return _Key(key, step)

    def _step_to(self, key: _Key) -> None:
        """Go on with a key that has opened something; keep the one just before it."""
        if self._old is not None:
            self._old.wipe()
            self._old = None
        while self._in.step + 1 < key.step:
            self._in = _following(self._in)
        self._old, self._in = self._in, key

    def _dropped(self, what: str) -> Opened | None:
        self.counters[what] += 1
        return None


def _following(key: _Key) -> _Key:
    new = _Key(next_key(key.key), key.step + 1)
    key.wipe()
    return new
