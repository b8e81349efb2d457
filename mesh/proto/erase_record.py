"""The signed record of an erase, and the file that proves it to somebody who has only the root.

A record is a map signed by the node that ran the erase (kind ``erase``). A file is JSON: the
signed bytes, the records of the register that lead from the root to the node's key, and the
record in plain text for people, which counts for nothing. It knows no disk and no clock. Rules:
``verify`` needs the file and the root's fingerprint, nothing else; what is printed comes from
the signed bytes; the node must be of the record's site, and one that was revoked proves nothing
any more, since whoever took its key can sign any past.
"""

import base64
import binascii
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from mesh.errors import CodecError
from mesh.proto import fields
from mesh.proto.cleanup import LEVELS, METHODS
from mesh.proto.codec import unpack_map
from mesh.proto.ids import node_id
from mesh.proto.register import Register
from mesh.proto.sign import (
    RECORD_BYTES_MAX,
    Signer,
    open_record,
    sign_record,
    split_record,
)
from mesh.proto.trust import open_roster_record

ERASE: Final = "erase"
FORMAT: Final = "rackmesh-erase-record/1"
FILE_BYTES_MAX: Final = 8 << 20
PROOF_MAX: Final = 256
"""Most records of the register in a file."""
TEXT_MAX: Final = 256
BEGIN: Final = b'{"format":"rackmesh-erase-record/1"'
"""How a file begins, also inside a PDF that carries one."""


def record_id(job: str, command: str) -> str:
    """Return the id of the record of one command of a job: 32 hex digits."""
    data = f"rackmesh/erase-record/1\0{job}\0{command}".encode()
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def sign_erase(signer: Signer, root_fp: bytes, body: Mapping[str, Any]) -> bytes:
    """Return the wire form of a record."""
    return sign_record(signer, ERASE, 1, root_fp, {"kind": ERASE, **body})


def read_record(signed: bytes, root_fp: bytes) -> dict[str, Any]:
    """Return what a signed record says; raises CodecError. Who may sign is not asked here."""
    body, public, _ = open_record(signed, ERASE, 1, root_fp)
    if body.get("node") != node_id(public):
        raise CodecError("the record names another node than the one that signed it")
    for name in ("id", "site", "server", "job", "node", "method", "level", "seed"):
        fields.text(body, name, chars_max=TEXT_MAX)
    if body["method"] not in METHODS or body["level"] not in LEVELS:
        raise CodecError("the record names a method or level that does not exist")
    disk = fields.mapping(body, "disk")
    for name in ("model", "serial"):
        fields.text(disk, name, chars_max=TEXT_MAX)
    fields.integer(disk, "bytes", most=1 << 60)
    for name in ("samples", "markers", "started_ms", "ended_ms"):
        fields.integer(body, name)
    fields.flag(body, "proved")
    return body


def make_file(signed: bytes, proof: Iterable[bytes], root_fp: bytes) -> bytes:
    """Return the file of a record with the register records that lead to its signer."""
    value = {
        "format": FORMAT,
        "root": root_fp.hex(),
        "signed": _text(signed),
        "proof": [_text(record) for record in proof],
        "record": plain(read_record(signed, root_fp)),
    }
    return json.dumps(value, separators=(",", ":"), sort_keys=False).encode()


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a file proves."""

    record: dict[str, Any]
    node_status: str
    """Of the node that signed it, as the file's own register says: member, left, suspended."""
    admitted_by: str


def verify_file(data: bytes, root_fp: bytes) -> Verdict:
    """Return what a file proves under a root; raises CodecError with one sentence.

    ``data`` may also be a PDF that was made by export: the file in it is what is checked.
    """
    value = _read_file(data)
    told = value.get("root")
    if told != root_fp.hex():
        raise CodecError(f"the file is of the root {str(told)[:40]}, not of {root_fp.hex()}")
    signed = _bytes(value.get("signed"))
    listed = value.get("proof")
    if not isinstance(listed, list) or len(listed) > PROOF_MAX:
        raise CodecError("the file holds no proof of who signed it")
    register = Register(root_fp)
    for _ in range(2):  # whatever order they stand in
        for record in listed:
            register.merge(_bytes(record))
    body = read_record(signed, root_fp)
    member = register.member(str(body["node"]))
    if member is None:
        raise CodecError(
            f"nothing in the file shows that the node {body['node']} belongs to this root"
        )
    if member.status == "revoked":
        raise CodecError(
            f"the node {body['node']} that signed it was revoked, so its key proves nothing"
        )
    if "node" not in member.roles or member.site != body["site"]:
        raise CodecError(
            f"the node {body['node']} is of site {member.site}, the record of {body['site']}"
        )
    if value.get("record") != plain(body):
        raise CodecError("the plain text in the file is not what was signed")
    return Verdict(body, member.status, register.admitted_by(member.node_id) or "")


def proof_for(register: Register, node: str) -> list[bytes]:
    """Return the records of a register that lead from its root to a node's key."""
    return [record for record in register.records() if _leads_to(record, register, node)]


def _leads_to(record: bytes, register: Register, node: str) -> bool:
    kind = unpack_map(split_record(record).body, RECORD_BYTES_MAX).get("kind")
    if kind == "roster":
        return open_roster_record(record, register.root_fp)[0].node_id == node
    return kind in ("trust", "kept")


def plain(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record in JSON types."""
    found: dict[str, Any] = json.loads(json.dumps(dict(body), default=_hex, sort_keys=True))
    return found


def _hex(value: Any) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)


def _read_file(data: bytes) -> dict[str, Any]:
    if len(data) > FILE_BYTES_MAX:
        raise CodecError(f"the file has more than {FILE_BYTES_MAX} bytes")
    at = data.find(BEGIN)
    if at < 0:
        raise CodecError("this is no file of rackmesh erase export")
    try:
        value, _ = json.JSONDecoder().raw_decode(data[at:].decode("utf-8", "replace"))
    except (ValueError, RecursionError) as exc:
        raise CodecError("the file is cut short or damaged; export it again") from exc
    if not isinstance(value, dict):
        raise CodecError("this is no file of rackmesh erase export")
    return value


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _bytes(value: Any) -> bytes:
    if not isinstance(value, str):
        raise CodecError("the file is damaged; export it again")
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError) as exc:
        raise CodecError("the file is damaged; export it again") from exc
