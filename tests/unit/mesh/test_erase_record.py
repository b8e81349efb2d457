"""A record of an erase is believed by its signature and the way from the root to its signer."""

import base64
import json
from typing import Any

import pytest

from mesh.errors import CodecError
from mesh.proto.erase_record import (
    make_file,
    proof_for,
    read_record,
    record_id,
    sign_erase,
    verify_file,
)
from tests.support.trust import Org, identity

BODY: dict[str, Any] = {
    "id": record_id("job", "wipe.1.1.0"), "site": "lab", "server": "s", "server_name": "srv1",
    "job": "job", "author": "ada@hub", "command": "wipe.1.1.0", "attempt": 1,
    "disk": {"model": "M", "serial": "D1", "bytes": 1 << 30}, "method": "overwrite",
    "level": "clear", "wanted": "clear", "fallback": False, "attempts": [], "said": {},
    "samples": 256, "markers": 129, "telling": 1032, "pattern": "zeros", "seed": "ab" * 32,
    "verified_bytes": 1 << 30, "direct": True, "proved": True, "started_ms": 1, "ended_ms": 2,
    "session_key": "00" * 32, "machine": {"uuid": "u", "serial": "x"}, "ramdisk": "",
    "policy": {}, "on_hardware": "",
}  # fmt: skip


@pytest.fixture
def org() -> Org:
    made = Org()
    for name in ("n1", "n2"):
        made.admit(name)
    made.admit_hub()
    made.admit("far", "moon")
    return made


def exported(org: Org, label: str = "n1", **more: Any) -> bytes:
    who = identity(label)
    signed = sign_erase(who.signer, org.root_fp, {**BODY, "node": who.node_id, **more})
    return make_file(signed, proof_for(org.register, who.node_id), org.root_fp)


def changed(file: bytes, **more: Any) -> bytes:
    return json.dumps({**json.loads(file), **more}, separators=(",", ":")).encode()


def test_a_file_proves_itself_with_nothing_but_the_root(org: Org) -> None:
    file = exported(org)
    verdict = verify_file(file, org.root_fp)
    assert verdict.record["disk"]["serial"] == "D1"
    assert (verdict.node_status, verdict.record["node"]) == ("member", identity("n1").node_id)
    assert len(json.loads(file)["proof"]) == 2, "the trust document and one roster record"
    inside = b"%PDF-1.7 some text\nstream\n" + file + b"\nendstream %%EOF"
    assert verify_file(inside, org.root_fp) == verdict


def test_the_record_outlives_the_membership_of_its_node(org: Org) -> None:
    who = identity("n1")
    org.register.merge(org.roster(who, status="left", version=2))
    assert verify_file(exported(org), org.root_fp).node_status == "left"
    org.register.merge(org.roster(who, status="revoked", version=3))
    with pytest.raises(CodecError, match="was revoked, so its key proves nothing"):
        verify_file(exported(org), org.root_fp)


def test_what_is_not_signed_counts_for_nothing(org: Org) -> None:
    file = exported(org)
    value = json.loads(file)
    for told in ({**value["record"], "level": "purge"}, None):
        with pytest.raises(CodecError, match="is not what was signed"):
            verify_file(changed(file, record=told), org.root_fp)
    raw = bytearray(base64.b64decode(value["signed"]))
    raw[60] ^= 1
    with pytest.raises(CodecError):
        verify_file(changed(file, signed=base64.b64encode(raw).decode()), org.root_fp)
    with pytest.raises(CodecError, match="nothing in the file shows"):
        verify_file(changed(file, proof=[]), org.root_fp)


def test_another_root_another_site_and_a_stranger_are_told(org: Org) -> None:
    other = Org("evil")
    with pytest.raises(CodecError, match="the file is of the root"):
        verify_file(exported(org), other.root_fp)
    one = identity("n1")
    own = sign_erase(one.signer, other.root_fp, {**BODY, "node": one.node_id})
    forged = {"root": other.root_fp.hex(), "signed": base64.b64encode(own).decode()}
    with pytest.raises(CodecError, match="nothing in the file shows"):
        verify_file(changed(exported(org), **forged), other.root_fp)
    with pytest.raises(CodecError, match="is of site moon, the record of lab"):
        verify_file(exported(org, "far"), org.root_fp)
    with pytest.raises(CodecError, match=r"is of site (None)?,"):
        verify_file(exported(org, "hub"), org.root_fp)
    with pytest.raises(CodecError, match="names another node"):
        make_file(
            sign_erase(identity("n1").signer, org.root_fp, {**BODY, "node": "somebody"}),
            [], org.root_fp,
        )  # fmt: skip


@pytest.mark.parametrize(
    "wrong",
    [
        {"method": "magic"}, {"level": "high"}, {"disk": None}, {"proved": 1}, {"samples": -1},
        {"disk": {"model": "M", "serial": "S", "bytes": "1"}}, {"seed": "x" * 300},
    ],
)  # fmt: skip
def test_a_record_with_impossible_fields_is_refused(org: Org, wrong: dict[str, Any]) -> None:
    who = identity("n1")
    signed = sign_erase(who.signer, org.root_fp, {**BODY, "node": who.node_id, **wrong})
    with pytest.raises(CodecError):
        read_record(signed, org.root_fp)


@pytest.mark.parametrize(
    "data", [b"", b"{}", b'{"format":"rackmesh-erase-record/1"', b"\xff" * 9]
)
def test_garbage_is_told_in_one_sentence(org: Org, data: bytes) -> None:
    with pytest.raises(CodecError):
        verify_file(data, org.root_fp)
    for key in ("signed", "proof"):
        for value in (None, 5, "*", ["*"], [5], {}):
            with pytest.raises(CodecError):
                verify_file(changed(exported(org), **{key: value}), org.root_fp)
