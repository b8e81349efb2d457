"""An ssh agent with one key: what it answers to ``ssh`` (draft-ietf-sshm-ssh-agent).

It knows no socket. Rules: the key never leaves this object; it lists one identity and signs
with it, and whatever else is asked, or cannot be read, is answered with a failure. RSA signs
with SHA-2 alone (RFC 8332).
"""

import base64
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
    load_ssh_private_key,
)

MESSAGE_BYTES_MAX: Final = 256 << 10
FAILURE: Final = 5
REQUEST_IDENTITIES, IDENTITIES_ANSWER = 11, 12
SIGN_REQUEST, SIGN_RESPONSE = 13, 14
RSA_SHA2_256, RSA_SHA2_512 = 2, 4
COMMENT: Final = b"rackmesh hook"

Key = ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


class KeyRefused(Exception):
    """This is no private key that could be used; ``str(error)`` says why."""


class SshAgent:
    """Signs with one private key."""

    def __init__(self, text: bytes) -> None:
        """``text``: an OpenSSH or PEM private key without a passphrase; raises KeyRefused."""
        self._key = _load(text)
        public = self._key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
        self._blob = base64.b64decode(public.split()[1])

    def answer(self, message: bytes) -> bytes:
        """Return the answer to a message (without the length before it)."""
        kind = message[0] if message else 0
        if kind == REQUEST_IDENTITIES:
            return b"".join(
                (bytes((IDENTITIES_ANSWER,)), _u32(1), _string(self._blob), _string(COMMENT))
            )
        if kind == SIGN_REQUEST:
            signed = self._signed(message[1:])
            if signed is not None:
                return bytes((SIGN_RESPONSE,)) + _string(signed)
        return bytes((FAILURE,))

    def _signed(self, rest: bytes) -> bytes | None:
        blob, rest = _take(rest)
        data, rest = _take(rest)
        if blob != self._blob or data is None or len(rest) != 4:
            return None
        flags = int.from_bytes(rest, "big")
        key = self._key
        if isinstance(key, ed25519.Ed25519PrivateKey):
            return _string(b"ssh-ed25519") + _string(key.sign(data))
        if isinstance(key, ec.EllipticCurvePrivateKey):
            digest = _CURVES[key.curve.name][1]
            r, s = decode_dss_signature(key.sign(data, ec.ECDSA(digest)))
            name = b"ecdsa-sha2-" + _CURVES[key.curve.name][0]
            return _string(name) + _string(_mpint(r) + _mpint(s))
        if flags & RSA_SHA2_512:
            signed = key.sign(data, padding.PKCS1v15(), hashes.SHA512())
            return _string(b"rsa-sha2-512") + _string(signed)
        if flags & RSA_SHA2_256:
            signed = key.sign(data, padding.PKCS1v15(), hashes.SHA256())
            return _string(b"rsa-sha2-256") + _string(signed)
        return None


_CURVES: Final = {
    "secp256r1": (b"nistp256", hashes.SHA256()),
    "secp384r1": (b"nistp384", hashes.SHA384()),
    "secp521r1": (b"nistp521", hashes.SHA512()),
}


def _load(text: bytes) -> Key:
    load = load_ssh_private_key if b"OPENSSH PRIVATE KEY" in text else load_pem_private_key
    try:
        key = load(text.strip() + b"\n", None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise KeyRefused("it is no private key without a passphrase") from None
    if isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name in _CURVES:
        return key
    if isinstance(key, (ed25519.Ed25519PrivateKey, rsa.RSAPrivateKey)):
        return key
    raise KeyRefused("it is a key of a kind that ssh does not take: use ed25519")


def _u32(value: int) -> bytes:
    return value.to_bytes(4, "big")


def _string(value: bytes) -> bytes:
    return _u32(len(value)) + value


def _mpint(value: int) -> bytes:
    """Return a number as RFC 4251 section 5 writes it: a zero byte before a set high bit."""
    return _string(value.to_bytes(value.bit_length() // 8 + 1, "big"))


def _take(data: bytes) -> tuple[bytes | None, bytes]:
    """Return a string and what follows it; None when there is none whole."""
    size = int.from_bytes(data[:4], "big")
    if len(data) < 4 or len(data) - 4 < size:
        return None, b""
    return data[4 : 4 + size], data[4 + size :]
