"""Sealing a secret to one node: HPKE, X25519 with HKDF-SHA256 and AES-256-GCM (RFC 9180 base).

It knows no store and no plaintext's meaning. Rule: the sealed bytes open only for the
organisation, node, key epoch, secret id and version that they were made for, since all five
stand in HPKE's ``info``; moving a blob to another row makes it useless. The ephemeral key comes
from the library's own random source.
"""

from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

from mesh.errors import CodecError
from mesh.proto.codec import pack

VERSION: Final = b"\x01"
PLAINTEXT_BYTES_MAX: Final = 16 << 10
OVERHEAD_BYTES: Final = 48
"""What HPKE adds: 32 bytes of encapsulated key and a 16-byte tag."""
_SUITE: Final = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)


@dataclass(frozen=True, slots=True)
class SealInfo:
    """What a sealed secret is bound to."""

    root_fp: bytes
    node_id: str
    kem_epoch: int
    secret_id: str
    version: int

    def encode(self) -> bytes:
        """Return HPKE's ``info`` bytes."""
        fields = [self.root_fp, self.node_id, self.kem_epoch, self.secret_id, self.version]
        return b"rackmesh/seal/1\0" + pack(fields)


def seal(kem_public: bytes, info: SealInfo, plaintext: bytes) -> bytes:
    """Return the sealed form of a secret for one node."""
    assert len(plaintext) <= PLAINTEXT_BYTES_MAX
    return VERSION + seal_bytes(kem_public, info.encode(), plaintext)


def open_sealed(kem_private: bytes, info: SealInfo, sealed: bytes) -> bytes:
    """Return the plaintext; raise CodecError when it was not sealed to exactly this."""
    if not sealed.startswith(VERSION):
        raise CodecError("a sealed secret of unknown version")
    return open_bytes(kem_private, info.encode(), sealed[len(VERSION) :])


def seal_bytes(kem_public: bytes, info: bytes, plaintext: bytes) -> bytes:
    """HPKE-seal to a raw X25519 key: encapsulated key, then ciphertext.

    Raises CodecError for a public key of small order.
    """
    try:
        return _SUITE.encrypt(plaintext, X25519PublicKey.from_public_bytes(kem_public), info)
    except (InvalidTag, ValueError) as exc:
        raise CodecError("not a usable X25519 key") from exc


def open_bytes(kem_private: bytes, info: bytes, sealed: bytes) -> bytes:
    """Open what ``seal_bytes`` made; raise CodecError otherwise."""
    if not OVERHEAD_BYTES <= len(sealed) <= PLAINTEXT_BYTES_MAX + OVERHEAD_BYTES:
        raise CodecError("a sealed secret of impossible length")
    try:
        return _SUITE.decrypt(sealed, X25519PrivateKey.from_private_bytes(kem_private), info)
    except (InvalidTag, ValueError) as exc:
        raise CodecError("the sealed secret does not open with this key and purpose") from exc
