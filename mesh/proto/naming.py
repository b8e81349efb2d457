"""Names of content: the hub signs, with the assets key, which asset a name stands for.

It knows no bytes of any asset. Rule: a node boots or writes only what such a record names, and
of two records for one name takes the higher version, so an old one cannot be brought back.
"""

from dataclasses import dataclass
from typing import Final

from mesh.errors import CodecError
from mesh.proto import fields
from mesh.proto.ids import ASSET_PATTERN, NAME_PATTERN
from mesh.proto.register import Register
from mesh.proto.sign import Signer, open_record, sign_record

NAME_RECORD: Final = "name"


@dataclass(frozen=True, slots=True)
class SignedName:
    """What the assets key says about a name."""

    name: str
    asset: str  # "b3:<64 hex>"
    size: int
    sha256: str  # hex
    version: int  # Unix milliseconds of the signing hub


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
    )
    if not NAME_PATTERN.match(found.name) or not ASSET_PATTERN.match(found.asset):
        raise CodecError("a name record with an impossible name or asset id")
    if len(found.sha256) != 64 or set(found.sha256) - set("0123456789abcdef"):
        raise CodecError("a name record with an impossible SHA-256")
    return found
