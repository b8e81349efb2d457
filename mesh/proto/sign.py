"""Signed records: what every signature in the mesh covers, and its one wire form.

It knows no key's right to say anything: that is the register's work. Rules: a signature covers
``rackmesh/<kind>/<n>`` and a zero byte, the root fingerprint, and the *received* bytes, so that
nothing signed for one purpose or one organisation serves another; bytes are never encoded again
before they are checked. Ed25519 is libsodium's (RFC 8032; it refuses signatures that are not in
lowest form and keys of small order, so nobody but the signer can make a second valid spelling).
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from nacl.exceptions import BadSignatureError, CryptoError
from nacl.signing import SigningKey, VerifyKey

from mesh.errors import CodecError
from mesh.proto import fields
from mesh.proto.codec import pack, unpack_map
from mesh.proto.ids import ROOT_FINGERPRINT_BYTES

KEY_BYTES: Final = 32
SEED_BYTES: Final = 32
SIGNATURE_BYTES: Final = 64
RECORD_BYTES_MAX: Final = 1 << 16
"""Largest signed record; the same as the largest row of the replicated state."""

DIGEST_BYTES: Final = 16
"""Length of the name of a record: the digest of its body, however it was signed."""

NO_ROOT: Final = bytes(ROOT_FINGERPRINT_BYTES)
"""Stands for "no organisation" in what a node says about itself before it has joined one."""


class Signer(Protocol):
    """What can sign: an identity, a role key, a one-time key. Never shows its private half."""

    @property
    def public(self) -> bytes:
        """The 32 bytes of its Ed25519 public key."""
        ...

    def sign(self, kind: str, n: int, root_fp: bytes, body: bytes) -> bytes:
        """Return the 64 bytes of the signature over ``message(kind, n, root_fp, body)``."""
        ...


@dataclass(frozen=True, slots=True)
class Signed:
    """A signed record taken apart; nothing is proved before ``verify`` returned True."""

    body: bytes
    signature: bytes
    public: bytes

    def wire(self) -> bytes:
        """Return the canonical wire form, without whatever else the sender put beside it."""
        return pack({"b": self.body, "s": self.signature, "k": self.public})


class KeySigner:
    """An Ed25519 key pair made from a 32-byte seed."""

    __slots__ = ("_key", "public")

    def __init__(self, seed: bytes) -> None:
        assert len(seed) == SEED_BYTES
        self._key = SigningKey(seed)
        self.public = bytes(self._key.verify_key)

    def sign(self, kind: str, n: int, root_fp: bytes, body: bytes) -> bytes:
        """Sign a body for one purpose and one organisation."""
        return self._key.sign(message(kind, n, root_fp, body)).signature

    def __repr__(self) -> str:
        return f"KeySigner(public={self.public.hex()})"


def digest_of(body: bytes) -> bytes:
    """Return the 16 bytes that name a signed body."""
    return hashlib.blake2b(body, digest_size=DIGEST_BYTES).digest()


def message(kind: str, n: int, root_fp: bytes, body: bytes) -> bytes:
    """Return the bytes that a signature covers."""
    assert len(root_fp) == ROOT_FINGERPRINT_BYTES
    assert "\0" not in kind
    assert n > 0
    return f"rackmesh/{kind}/{n}\0".encode() + root_fp + body


def verify(
    public: bytes, signature: bytes, kind: str, n: int, root_fp: bytes, body: bytes
) -> bool:
    """Tell whether a signature over a body is this key's, for this purpose and organisation."""
    if len(public) != KEY_BYTES or len(signature) != SIGNATURE_BYTES:
        return False
    try:
        VerifyKey(public).verify(message(kind, n, root_fp, body), signature)
    except (BadSignatureError, CryptoError, ValueError):
        return False
    return True


def sign_record(
    signer: Signer, kind: str, n: int, root_fp: bytes, body: Mapping[str, Any]
) -> bytes:
    """Return the wire form of a signed map."""
    data = pack(dict(body))
    record = Signed(data, signer.sign(kind, n, root_fp, data), signer.public).wire()
    assert len(record) <= RECORD_BYTES_MAX, "a signed record is at most one row long"
    return record


def split_record(data: bytes) -> Signed:
    """Take a record apart without proving anything; raise CodecError for what is not one."""
    outer = unpack_map(data, RECORD_BYTES_MAX)
    return Signed(
        fields.raw(outer, "b"),
        fields.raw(outer, "s", SIGNATURE_BYTES),
        fields.raw(outer, "k", KEY_BYTES),
    )


def open_record(
    data: bytes, kind: str, n: int, root_fp: bytes
) -> tuple[dict[str, Any], bytes, bytes]:
    """Return (map, signer's public key, body bytes) of a record whose signature holds.

    Raises CodecError otherwise. Whether that signer may say this is not asked here.
    """
    record = split_record(data)
    if not verify(record.public, record.signature, kind, n, root_fp, record.body):
        raise CodecError(f"the signature of a {kind} record does not hold")
    return unpack_map(record.body, RECORD_BYTES_MAX), record.public, record.body
