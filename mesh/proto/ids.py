"""Names of things: node ids, job and server ids, sites, MAC addresses, asset ids.

Rule: an id that comes from outside is checked here before it is used anywhere.
"""

import base64
import hashlib
import re
from typing import Final

ROOT_FINGERPRINT_BYTES: Final = 20
SITE_PATTERN: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,29}[a-z0-9])?\Z")
NAME_PATTERN: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,62})\Z")
NODE_ID_PATTERN: Final = re.compile(r"[a-z2-7]{32}\Z")
UUID_PATTERN: Final = re.compile(
    r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}\Z"
)
ASSET_PATTERN: Final = re.compile(r"b3:[0-9a-f]{64}\Z")
MAC_PATTERN: Final = re.compile(r"(?:[0-9a-f]{2}:){5}[0-9a-f]{2}\Z")


def node_id(identity_public: bytes) -> str:
    """Return base32 (lower case, 32 characters) of BLAKE2b-160 of an Ed25519 public key."""
    assert len(identity_public) == 32
    digest = hashlib.blake2b(identity_public, digest_size=20).digest()
    return base64.b32encode(digest).decode().lower()


def root_fingerprint(root_public: bytes) -> bytes:
    """Return the 20 bytes that stand for an organisation: BLAKE2b-160 of its root key."""
    assert len(root_public) == 32
    return hashlib.blake2b(root_public, digest_size=ROOT_FINGERPRINT_BYTES).digest()


def uuid7(now_ms: int, random_bytes: bytes) -> str:
    """Return a UUIDv7 (RFC 9562 section 5.7) for a time and ten random bytes."""
    assert len(random_bytes) == 10
    value = (now_ms & (1 << 48) - 1) << 80 | int.from_bytes(random_bytes, "big")
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    text = f"{value:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def mac_text(raw: bytes) -> str:
    """Return six bytes as lower case hexadecimal with colons."""
    assert len(raw) == 6
    return raw.hex(":")


def parse_mac(text: str) -> str | None:
    """Return a MAC address in our spelling, or None; takes colons, dashes, dots or none."""
    digits = re.sub(r"[:\-.]", "", text.strip().lower())
    if not re.fullmatch(r"[0-9a-f]{12}", digits):
        return None
    return bytes.fromhex(digits).hex(":")
