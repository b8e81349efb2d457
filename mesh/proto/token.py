"""The join token: the one text that a person carries from a hub to a new node.

It knows no network and no store. Rules: the text tells by itself that it is cut short or
mistyped (a length in front, a checksum behind), what it opens and until when; the secret in it
never travels: it seeds a one-time Ed25519 key, of which the hub keeps only the public half.

    rm1. + base64url( u16 length | msgpack map | 5 bytes of BLAKE2b over both )
"""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from mesh.errors import CodecError, Refused
from mesh.proto import fields
from mesh.proto.codec import pack, unpack_map
from mesh.proto.ids import NODE_ID_PATTERN, ROOT_FINGERPRINT_BYTES, SITE_PATTERN
from mesh.proto.sign import KeySigner
from mesh.proto.trust import ROLES, url_is_plain

PREFIX: Final = "rm1."
SECRET_BYTES: Final = 16
CHECK_BYTES: Final = 5
TOKEN_CHARS_MAX: Final = 4096
HUBS_MAX: Final = 8
TOKEN_ID_CHARS: Final = 12
TTL_MS_DEFAULT: Final = 24 * 3600 * 1000


@dataclass(frozen=True, slots=True)
class Token:
    """What a join token says. ``repr`` hides the secret."""

    urls: tuple[str, ...]
    hub_ids: tuple[str, ...]
    root_fp: bytes
    trust_version: int
    id: str
    site: str
    roles: frozenset[str]
    expires_ms: int
    secret: bytes = field(repr=False)

    def one_time_key(self) -> KeySigner:
        """Return the key whose public half the hub has kept."""
        label = b"rackmesh/join-key/1\0" + self.root_fp + self.id.encode()
        return KeySigner(hmac.digest(self.secret, label, "sha256"))


def make_token(
    *,
    urls: Sequence[str],
    hub_ids: Sequence[str],
    root_fp: bytes,
    trust_version: int,
    token_id: str,
    site: str,
    roles: frozenset[str],
    expires_ms: int,
    secret: bytes,
) -> str:
    """Return the text of a token; the hub keeps ``one_time_key().public``, not the secret."""
    assert 0 < len(urls) <= HUBS_MAX
    assert 0 < len(hub_ids) <= HUBS_MAX
    assert len(secret) >= SECRET_BYTES
    assert roles <= ROLES
    body = {
        "u": list(urls),
        "h": list(hub_ids),
        "r": root_fp,
        "t": trust_version,
        "i": token_id,
        "s": site,
        "o": sorted(roles),
        "e": expires_ms,
        "k": secret,
    }
    data = pack(body)
    framed = len(data).to_bytes(2, "big") + data
    return PREFIX + base64.urlsafe_b64encode(framed + _check(framed)).decode().rstrip("=")


def parse_token(text: str, now_ms: int | None = None) -> Token:
    """Return what a token says; raise Refused with one sentence for the person who typed it.

    White space is dropped, since terminals and mail break long lines. ``now_ms`` is the node's
    own clock: with it, an expired token is refused before anything is sent.
    """
    joined = "".join(text.split())
    if not joined:
        raise Refused("the join token is empty; make one on the hub and pass it whole")
    if not joined.startswith(PREFIX):
        if PREFIX.startswith(joined):
            raise Refused(
                "the join token is cut short; copy all of it, up to its last character"
            )
        raise Refused(f"this is not a join token: it must start with {PREFIX!r}")
    if len(joined) > TOKEN_CHARS_MAX:
        raise Refused(
            f"this is not a join token: it is longer than {TOKEN_CHARS_MAX} characters"
        )
    data = _unframe(joined.removeprefix(PREFIX))
    try:
        token = _read(unpack_map(data))
    except CodecError as exc:
        raise Refused("this join token is of a kind that this version does not know") from exc
    if now_ms is not None:
        check_expiry(token, now_ms)
    return token


def check_expiry(token: Token, now_ms: int) -> None:
    """Raise Refused when the token's time is over by the given clock."""
    if now_ms >= token.expires_ms:
        hours = (now_ms - token.expires_ms) / 3_600_000
        raise Refused(
            f"the join token expired {hours:.1f} hours ago; make a new one on the hub"
            " (or check this machine's clock)"
        )


def _unframe(text: str) -> bytes:
    """Return the msgpack bytes inside, or say what happened to the text on its way."""
    mistyped = "the join token is mistyped: its checksum does not hold; copy it again"
    truncated = "the join token is cut short; copy all of it, up to its last character"
    trimmed = text[:-1] if len(text) % 4 == 1 else text  # one character over carries no byte
    try:
        padded = trimmed + "=" * (-len(trimmed) % 4)
        framed = base64.b64decode(padded, altchars=b"-_", validate=True)
    except (binascii.Error, ValueError) as exc:
        raise Refused(mistyped) from exc
    end = 2 + int.from_bytes(framed[:2], "big")
    if len(framed) < 2 + CHECK_BYTES or len(framed) < end + CHECK_BYTES:
        raise Refused(truncated)
    whole = base64.urlsafe_b64encode(framed).decode().rstrip("=")
    if len(framed) > end + CHECK_BYTES or framed[end:] != _check(framed[:end]) or whole != text:
        raise Refused(mistyped)
    return framed[2:end]


def _check(framed: bytes) -> bytes:
    return hashlib.blake2b(framed, digest_size=CHECK_BYTES).digest()


def _read(body: dict[str, Any]) -> Token:
    token = Token(
        urls=fields.texts(body, "u", count_max=HUBS_MAX),
        hub_ids=fields.texts(body, "h", count_max=HUBS_MAX),
        root_fp=fields.raw(body, "r", ROOT_FINGERPRINT_BYTES),
        trust_version=fields.integer(body, "t"),
        id=fields.text(body, "i", chars_max=64),
        site=fields.text(body, "s", chars_max=31),
        roles=frozenset(fields.texts(body, "o", count_max=16)),
        expires_ms=fields.integer(body, "e"),
        secret=fields.raw(body, "k", bytes_max=64),
    )
    if (
        not token.urls
        or not all(url_is_plain(url) for url in token.urls)
        or not token.hub_ids
        or not all(NODE_ID_PATTERN.match(node) for node in token.hub_ids)
        or len(token.secret) < SECRET_BYTES
        or (token.site and not SITE_PATTERN.match(token.site))
    ):
        raise CodecError("a token with impossible fields")
    return token
