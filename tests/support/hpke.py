"""HPKE base mode (RFC 9180) written out by hand, as a second opinion on the library's."""

import hashlib
import hmac

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEM_ID = (0x0020).to_bytes(2, "big")
KDF_ID = (0x0001).to_bytes(2, "big")


def extract(suite: bytes, salt: bytes, label: bytes, ikm: bytes) -> bytes:
    return hmac.digest(salt or bytes(32), b"HPKE-v1" + suite + label + ikm, hashlib.sha256)


def expand(suite: bytes, prk: bytes, label: bytes, info: bytes, size: int) -> bytes:
    labelled = size.to_bytes(2, "big") + b"HPKE-v1" + suite + label + info
    out, block = b"", b""
    for count in range(1, 3):
        block = hmac.digest(prk, block + labelled + bytes([count]), hashlib.sha256)
        out += block
    return out[:size]


def open_base(private: bytes, info: bytes, aad: bytes, sealed: bytes, aead: int) -> bytes:
    """Open enc || ciphertext; ``aead`` 1 is AES-128-GCM, 2 is AES-256-GCM."""
    enc, ciphertext = sealed[:32], sealed[32:]
    key = X25519PrivateKey.from_private_bytes(private)
    shared = key.exchange(X25519PublicKey.from_public_bytes(enc))
    context = enc + key.public_key().public_bytes_raw()
    kem = b"KEM" + KEM_ID
    prk = extract(kem, b"", b"eae_prk", shared)
    secret = expand(kem, prk, b"shared_secret", context, 32)
    suite = b"HPKE" + KEM_ID + KDF_ID + aead.to_bytes(2, "big")
    schedule = b"\0" + extract(suite, b"", b"psk_id_hash", b"")
    schedule += extract(suite, b"", b"info_hash", info)
    prk = extract(suite, secret, b"secret", b"")
    aes = expand(suite, prk, b"key", schedule, 16 * aead)
    nonce = expand(suite, prk, b"base_nonce", schedule, 12)
    return AESGCM(aes).decrypt(nonce, ciphertext, aad)
