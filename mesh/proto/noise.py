"""Noise handshakes IK and XX with X25519, AES-256-GCM and BLAKE2b (Noise spec revision 34).

It knows no socket, no member and no randomness: the ephemeral private key is given (32 fresh
random bytes, never used twice). Rule: one object is one handshake; ``write`` and ``read`` come
in the pattern's order (our own mistake there is an assert), and after a message that does not
hold, NoiseError, the object is dead: drop it and the connection with it.

The result is ``hash`` (binds everything that was said), ``remote_static`` and ``chaining_key``,
from which mesh/proto/record.py makes its keys; ``split`` is the specification's own derivation,
kept for the published test vectors.
"""

import hashlib
import hmac
from collections.abc import Sequence
from typing import Final, Literal

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from mesh.errors import RemoteError

Pattern = Literal["IK", "XX"]

PROLOGUE: Final = b"rackmesh/1"
KEY_BYTES: Final = 32
HASH_BYTES: Final = 64
TAG_BYTES: Final = 16
MESSAGE_BYTES_MAX: Final = 65_535
"""Longest handshake message (Noise specification, section 3)."""

_MESSAGES: Final[dict[Pattern, tuple[tuple[str, ...], ...]]] = {
    "IK": (("e", "es", "s", "ss"), ("e", "ee", "se")),
    "XX": (("e",), ("e", "ee", "s", "es"), ("s", "se")),
}


class NoiseError(RemoteError):
    """A handshake message does not hold; the handshake is dead, nothing else was changed."""


class _SymmetricState:
    """Chaining key, handshake hash and cipher of a handshake (section 5.2)."""

    def __init__(self, name: bytes) -> None:
        assert len(name) <= HASH_BYTES
        self.hash = name.ljust(HASH_BYTES, b"\0")
        self.chaining_key = self.hash
        self._aead: AESGCM | None = None
        self._nonce = 0

    def mix_hash(self, data: bytes) -> None:
        self.hash = hashlib.blake2b(self.hash + data).digest()

    def mix_key(self, secret: bytes) -> None:
        self.chaining_key, key = hkdf(self.chaining_key, secret)
        self._aead = AESGCM(key[:KEY_BYTES])
        self._nonce = 0

    @property
    def tag_bytes(self) -> int:
        return TAG_BYTES if self._aead else 0

    def encrypt(self, plaintext: bytes) -> bytes:
        out = plaintext
        if self._aead:
            out = self._aead.encrypt(self._take_nonce(), plaintext, self.hash)
        self.mix_hash(out)
        return out

    def decrypt(self, data: bytes) -> bytes:
        out = data
        if self._aead:
            try:
                out = self._aead.decrypt(self._take_nonce(), data, self.hash)
            except InvalidTag as exc:
                raise NoiseError("a handshake message does not decrypt") from exc
        self.mix_hash(data)
        return out

    def _take_nonce(self) -> bytes:
        self._nonce += 1
        return nonce(self._nonce - 1)


class Handshake:
    """One side of one handshake."""

    def __init__(
        self,
        pattern: Pattern,
        *,
        initiator: bool,
        static_private: bytes,
        ephemeral_private: bytes,
        remote_static: bytes | None = None,
        prologue: bytes = PROLOGUE,
    ) -> None:
        """``remote_static`` is the responder's key: needed by the initiator of IK alone."""
        assert (remote_static is not None) == (pattern == "IK" and initiator)
        self._static = X25519PrivateKey.from_private_bytes(static_private)
        self._ephemeral = X25519PrivateKey.from_private_bytes(ephemeral_private)
        self._initiator = initiator
        self._messages: Sequence[Sequence[str]] = _MESSAGES[pattern]
        self._done = 0
        self._dead = False
        self._remote_ephemeral = b""
        self.remote_static = remote_static or b""
        self._state = _SymmetricState(f"Noise_{pattern}_25519_AESGCM_BLAKE2b".encode())
        self._state.mix_hash(prologue)
        if pattern == "IK":
            known = remote_static or _public(self._static)
            assert len(known) == KEY_BYTES
            self._state.mix_hash(known)

    @property
    def finished(self) -> bool:
        """Every message of the pattern was written or read."""
        return not self._dead and self._done == len(self._messages)

    @property
    def hash(self) -> bytes:
        """The handshake hash so far; final once ``finished``."""
        return self._state.hash

    @property
    def chaining_key(self) -> bytes:
        """The final chaining key: a secret, from which the transport keys are made."""
        assert self.finished
        return self._state.chaining_key

    def split(self) -> tuple[bytes, bytes]:
        """Return the specification's two transport keys: initiator's, responder's."""
        first, second = hkdf(self.chaining_key, b"")
        return first[:KEY_BYTES], second[:KEY_BYTES]

    def write(self, payload: bytes = b"") -> bytes:
        """Return our next handshake message. Raises NoiseError for a degenerate remote key."""
        out = bytearray()
        for token in self._next(ours=True):
            if token == "e":
                public = _public(self._ephemeral)
                self._state.mix_hash(public)
                out += public
            elif token == "s":
                out += self._state.encrypt(_public(self._static))
            else:
                self._mix_dh(token)
        out += self._state.encrypt(payload)
        assert len(out) <= MESSAGE_BYTES_MAX, "handshake payload too long"
        self._done += 1
        return bytes(out)

    def read(self, message: bytes) -> bytes:
        """Take the peer's next message and return its payload, or raise NoiseError."""
        tokens = self._next(ours=False)
        try:
            payload = self._read(tokens, message)
        except NoiseError:
            self._dead = True
            raise
        self._done += 1
        return payload

    def _read(self, tokens: Sequence[str], message: bytes) -> bytes:
        if len(message) > MESSAGE_BYTES_MAX:
            raise NoiseError("a handshake message is too long")
        rest = message
        for token in tokens:
            if token == "e":
                self._remote_ephemeral, rest = _cut(rest, KEY_BYTES)
                self._state.mix_hash(self._remote_ephemeral)
            elif token == "s":
                sealed, rest = _cut(rest, KEY_BYTES + self._state.tag_bytes)
                self.remote_static = self._state.decrypt(sealed)
            else:
                self._mix_dh(token)
        return self._state.decrypt(rest)

    def _next(self, *, ours: bool) -> Sequence[str]:
        assert not self._dead, "the handshake is dead"
        assert self._done < len(self._messages), "the handshake is finished"
        assert (self._done % 2 == 0) == (self._initiator == ours), "not this side's turn"
        return self._messages[self._done]

    def _mix_dh(self, token: str) -> None:
        """Mix one Diffie-Hellman result; tokens name the initiator's key first."""
        mine, theirs = (token[0], token[1]) if self._initiator else (token[1], token[0])
        private = self._ephemeral if mine == "e" else self._static
        public = self._remote_ephemeral if theirs == "e" else self.remote_static
        try:
            shared = private.exchange(X25519PublicKey.from_public_bytes(public))
        except ValueError as exc:
            raise NoiseError("a public key of small order") from exc
        self._state.mix_key(shared)


def hkdf(chaining_key: bytes, secret: bytes) -> tuple[bytes, bytes]:
    """Return the two 64-byte outputs of Noise's HKDF (section 4.3) with HMAC-BLAKE2b."""
    temporary = _hmac(chaining_key, secret)
    first = _hmac(temporary, b"\x01")
    return first, _hmac(temporary, first + b"\x02")


def nonce(counter: int) -> bytes:
    """Return the 96-bit AES-GCM nonce of a counter (section 12.4: 32 zero bits, big-endian)."""
    return counter.to_bytes(12, "big")


def _hmac(key: bytes, data: bytes) -> bytes:
    return hmac.new(key, data, hashlib.blake2b).digest()


def _cut(data: bytes, count: int) -> tuple[bytes, bytes]:
    if len(data) < count:
        raise NoiseError("a handshake message is too short")
    return data[:count], data[count:]


def _public(key: X25519PrivateKey) -> bytes:
    return key.public_key().public_bytes_raw()
