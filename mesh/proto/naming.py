"""Names of content: the hub signs, with the assets key, which asset a name stands for.

It knows no bytes of any asset. Rule: a node boots or writes only what such a record names, and
of two records for one name takes the higher version, so an old one cannot be brought back.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from mesh.errors import CodecError
from mesh.proto import fields
from mesh.proto.ids import ASSET_PATTERN, NAME_PATTERN
from mesh.proto.register import Register
from mesh.proto.sign import Signer, open_record, sign_record

NAME_RECORD: Final = "name"
REMEMBERED_MAX: Final = 20_000
"""Records of which it is known what they say; above that all are checked again once."""


@dataclass(frozen=True, slots=True)
class SignedName:
    """What the assets key says about a name."""

    name: str
    asset: str  # "b3:<64 hex>"
    size: int
    sha256: str  # hex
    version: int  # Unix milliseconds of the signing hub
    source_sha256: str | None = None  # hex; of the published file that the asset is made from

    @property
    def published(self) -> str:
        """SHA-256 of the file as published: what an operator can declare."""
        return self.source_sha256 or self.sha256


def sign_name(signer: Signer, root_fp: bytes, name: SignedName) -> bytes:
    """Return the signed record for a NAME row's ``signed`` field."""
    assert ASSET_PATTERN.match(name.asset)
    assert NAME_PATTERN.match(name.name)
    body = {
        "kind": NAME_RECORD,
        "name": name.name,
        "asset": name.asset,
        "size": name.size,
        "sha256": name.sha256,
        "version": name.version,
    }
    if name.source_sha256 is not None:
        body["source_sha256"] = name.source_sha256
    return sign_record(signer, NAME_RECORD, 1, root_fp, body)


def open_name(data: bytes, register: Register) -> SignedName:
    """Return what the record says; raise CodecError unless an assets key of today signed it."""
    body, signer, _ = open_record(data, NAME_RECORD, 1, register.root_fp)
    if signer not in register.role_key("assets"):
        raise CodecError("a name that is not signed by an assets key")
    found = SignedName(
        name=fields.text(body, "name", chars_max=63),
        asset=fields.text(body, "asset"),
        size=fields.integer(body, "size", most=1 << 50),
        sha256=fields.text(body, "sha256", chars_max=64),
        version=fields.integer(body, "version"),
        source_sha256=None
        if body.get("source_sha256") is None
        else fields.text(body, "source_sha256", chars_max=64),
    )
    if not NAME_PATTERN.match(found.name) or not ASSET_PATTERN.match(found.asset):
        raise CodecError("a name record with an impossible name or asset id")
    for sha256 in (found.sha256, found.published):
        if len(sha256) != 64 or set(sha256) - set("0123456789abcdef"):
            raise CodecError("a name record with an impossible SHA-256")
    return found


class NameReader:
    """Reads NAME rows and remembers their records: a signature is checked once, not a change.

    ``on_refused`` is told the name and the reason, once for each record.
    """

    def __init__(self, register: Register, on_refused: Callable[[str, str], None]) -> None:
        self._register, self._on_refused = register, on_refused
        self._keys: tuple[bytes, ...] = ()
        self._known: dict[tuple[str, bytes], SignedName | None] = {}

    def read(self, name: str, signed: object) -> SignedName | None:
        """Return what an assets key of today says of a name; None when none does."""
        keys = self._register.role_key("assets")
        if keys != self._keys or len(self._known) >= REMEMBERED_MAX:
            self._keys, self._known = keys, {}
        if not isinstance(signed, bytes):
            return None
        known = self._known
        if (name, signed) not in known:
            known[name, signed] = self._open(name, signed)
        return known[name, signed]

    def _open(self, name: str, signed: bytes) -> SignedName | None:
        try:
            found = open_name(signed, self._register)
        except CodecError as exc:
            self._on_refused(name, str(exc))
            return None
        if found.name != name:
            self._on_refused(name, f"the record is of the name {found.name}")
            return None
        return found
