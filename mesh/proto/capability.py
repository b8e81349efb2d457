"""The boot capability: what lets one machine through one attempt of one job, in 76 characters.

Any node of the site can check it with the site secret alone. It knows no job: whether the
attempt is the current one is asked by the caller. Rules: all fields have fixed lengths, so that
no two meanings share their bytes; the tag is 128 bits of HMAC-SHA-256 under HKDF(site secret,
``boot``) and is compared in constant time; the text is URL-safe and never written to a log.

    u32 secret epoch | 8 site | 8 machine | 16 job | u8 attempt | u32 not-after s | 16 tag
"""

import base64
import binascii
import hashlib
import hmac
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from mesh.errors import CodecError, Refused
from mesh.proto.ids import UUID_PATTERN

FIELDS: Final = struct.Struct(">I8s8s16sBI")
TAG_BYTES: Final = 16
TEXT_CHARS: Final = 76
SECRET_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class Capability:
    """What a capability says; trust it only from ``verify_capability``."""

    secret_epoch: int
    site_hash: bytes
    machine_hash: bytes
    job: str  # UUIDv7
    attempt: int
    not_after_s: int

    def is_for(self, machine: str) -> bool:
        """Tell whether it names this server id or MAC address."""
        return hmac.compare_digest(self.machine_hash, _hash("machine", machine))


def mint_capability(
    secret: bytes,
    *,
    secret_epoch: int,
    site: str,
    machine: str,
    job: str,
    attempt: int,
    not_after_s: int,
) -> str:
    """Return the text of a capability. ``machine`` is a server id or a MAC address."""
    assert UUID_PATTERN.match(job)
    body = FIELDS.pack(
        secret_epoch,
        _hash("site", site),
        _hash("machine", machine),
        bytes.fromhex(job.replace("-", "")),
        attempt,
        not_after_s,
    )
    return base64.urlsafe_b64encode(body + _tag(secret, body)).decode()


def parse_capability(text: str) -> Capability:
    """Return what a text claims, unverified; raise CodecError for what is no capability."""
    return _split(text)[0]


def verify_capability(
    text: str, secret_for: Callable[[int], bytes | None], *, site: str, now_s: int
) -> Capability:
    """Return what a capability says, or raise Refused with a sentence (without its text).

    ``secret_for`` returns the site secret of an epoch, None for one that is not accepted.
    """
    try:
        capability, body, tag = _split(text)
    except CodecError as exc:
        raise Refused("this is not a boot capability") from exc
    secret = secret_for(capability.secret_epoch)
    if secret is None:
        raise Refused(
            f"the boot capability is of secret epoch {capability.secret_epoch},"
            " which is not accepted here"
        )
    if not hmac.compare_digest(tag, _tag(secret, body)):
        raise Refused("the boot capability is forged or damaged")
    if capability.site_hash != _hash("site", site):
        raise Refused("the boot capability is of another site")
    if now_s > capability.not_after_s:
        raise Refused("the boot capability has run out; the job's next attempt gets a new one")
    return capability


def boot_key(secret: bytes) -> bytes:
    """Return the key for boot capabilities: HKDF-SHA-256 of a site secret, label ``boot``."""
    assert len(secret) == SECRET_BYTES
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=b"boot").derive(secret)


def _split(text: str) -> tuple[Capability, bytes, bytes]:
    if len(text) != TEXT_CHARS or not text.isascii():
        raise CodecError("a capability has 76 characters")
    try:
        data = base64.b64decode(text, altchars=b"-_", validate=True)
    except (binascii.Error, ValueError) as exc:
        raise CodecError("a capability is base64url") from exc
    if len(data) != FIELDS.size + TAG_BYTES:
        raise CodecError("a capability has 57 bytes")
    body, tag = data[: FIELDS.size], data[FIELDS.size :]
    epoch, site, machine, job, attempt, not_after_s = FIELDS.unpack(body)
    digits = job.hex()
    shown = "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))
    if not UUID_PATTERN.match(shown):
        raise CodecError("a capability names a job by UUIDv7")
    return Capability(epoch, site, machine, shown, attempt, not_after_s), body, tag


def _tag(secret: bytes, body: bytes) -> bytes:
    return hmac.digest(boot_key(secret), body, "sha256")[:TAG_BYTES]


def _hash(kind: str, name: str) -> bytes:
    return hashlib.blake2b(f"{kind}\0{name}".encode(), digest_size=8).digest()
