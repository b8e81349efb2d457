"""The form of a backup: what is read, what is refused before anything is written."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.proto.backup_file import (
    NEEDED,
    Manifest,
    Part,
    header,
    read_header,
    read_manifest,
)
from mesh.errors import CodecError

LINES = {"memory-kib": "65536", "passes": "2", "salt": "00" * 16}


def manifest(*names: str) -> Manifest:
    parts = tuple(Part(name, 1, "0" * 64) for name in (*sorted(NEEDED), *names))
    return Manifest(
        node="n", name="hub", region="main", root_fingerprint="00", build="1", created_ms=5,
        parts=parts, assets=({"name": "a", "asset": "b3:x", "size": 1, "sites": []},),
    )  # fmt: skip


def test_header_and_manifest_come_back_as_they_went() -> None:
    head = header({**LINES, "nonce": "x"})
    assert read_header(head + b"rest") == (LINES, len(head))
    assert read_manifest(manifest("hub.db", "tls/cert.pem").line()) == manifest(
        "hub.db", "tls/cert.pem"
    )


@pytest.mark.parametrize(
    "name", ["../x", "/etc/passwd", "keys/../../x", "keys/a/b", "run/api.sock", "keys/", "x"]
)
def test_a_file_that_no_hub_has_is_refused(name: str) -> None:
    with pytest.raises(CodecError, match="no hub has"):
        read_manifest(manifest(name).line())


def test_another_format_and_a_missing_part_are_named() -> None:
    value = json.loads(manifest().line())
    with pytest.raises(CodecError, match="has format 2, this build reads 1"):
        read_manifest(json.dumps({**value, "format": 2}).encode())
    value["files"] = [file for file in value["files"] if file["name"] != "state.db"]
    with pytest.raises(CodecError, match=r"lacks state\.db"):
        read_manifest(json.dumps(value).encode())
    with pytest.raises(CodecError, match="one twice"):
        read_manifest(manifest("hub.db", "hub.db").line())
    with pytest.raises(CodecError, match="no backup of a hub"):
        read_header(b"rackmesh-backup 2\n{}\n")


@given(st.binary(max_size=300))
def test_garbage_never_raises_anything_else(data: bytes) -> None:
    for read in (read_header, read_manifest):
        try:
            read(data)
        except CodecError:
            pass
