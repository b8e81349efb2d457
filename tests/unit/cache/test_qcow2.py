"""qcow2 headers: what is taken, what is refused, and that garbage never does more."""

import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.errors import ImageRefused
from cache.proto.qcow2 import VIRTUAL_BYTES_MAX, Qcow2, check_qcow2

MIB = 1 << 20
GOOD: dict[str, int] = {
    "version": 3, "backing_at": 0, "backing_bytes": 0, "cluster_bits": 16, "size": 64 * MIB,
    "crypt": 0, "l1_entries": 1, "l1_at": 3 << 16, "refcounts_at": 1 << 16,
    "refcount_clusters": 1, "snapshots": 0, "snapshots_at": 0, "incompatible": 0,
    "compatible": 0, "autoclear": 0, "refcount_order": 4, "header_bytes": 112,
}  # fmt: skip
FILE_BYTES = 1 << 20


def header(extensions: bytes = b"", **changes: int) -> bytes:
    v = {**GOOD, **changes}
    fixed = struct.pack(
        ">4sIQIIQIIQQIIQ", b"QFI\xfb", v["version"], v["backing_at"], v["backing_bytes"],
        v["cluster_bits"], v["size"], v["crypt"], v["l1_entries"], v["l1_at"],
        v["refcounts_at"], v["refcount_clusters"], v["snapshots"], v["snapshots_at"],
    )  # fmt: skip
    more = struct.pack(
        ">QQQII", v["incompatible"], v["compatible"], v["autoclear"], v["refcount_order"],
        v["header_bytes"],
    )  # fmt: skip
    return (fixed + more + bytes(8) + extensions).ljust(4096, b"\0")


def extension(kind: int, data: bytes) -> bytes:
    return struct.pack(">II", kind, len(data)) + data + bytes(-len(data) % 8)


def test_a_plain_image_is_taken_in_both_versions() -> None:
    assert check_qcow2(header(), FILE_BYTES) == Qcow2(3, 64 * MIB, 65536)
    assert check_qcow2(header(version=2), FILE_BYTES) == Qcow2(2, 64 * MIB, 65536)
    names = extension(0x6803F857, bytes(48)) + extension(0x12345678, b"unknown")
    assert check_qcow2(header(names, incompatible=0b01001), FILE_BYTES).version == 3


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"version": 4}, "version 4"),
        ({"backing_at": 200}, "backing file"),
        ({"backing_bytes": 9}, "backing file"),
        ({"incompatible": 0b00100}, "external data file"),
        ({"incompatible": 0b00010}, "corrupt bit"),
        ({"incompatible": 1 << 5}, "bits 0x20"),
        ({"incompatible": 1 << 63}, "not known here"),
        ({"crypt": 1}, "encrypted"),
        ({"cluster_bits": 8}, "2^8"),
        ({"cluster_bits": 4_000_000_000}, "clusters of"),
        ({"size": 0}, "its disk has 0 bytes"),
        ({"size": VIRTUAL_BYTES_MAX + 512}, "can be deployed"),
        ({"size": 1000}, "whole sectors"),
        ({"size": (1 << 64) - 512}, "can be deployed"),
        ({"l1_at": 8 << 20}, "L1 table is not where it says"),
        ({"l1_at": 5}, "L1 table is not where it says"),
        ({"l1_entries": 0}, "does not fit its disk"),
        ({"l1_entries": 1 << 31}, "L1 table"),
        ({"refcounts_at": 0}, "refcount table is not where it says"),
        ({"refcount_clusters": 0}, "refcount table of 0"),
        ({"snapshots": 70_000, "snapshots_at": 1 << 16}, "70000 snapshots"),
        ({"snapshots": 1, "snapshots_at": 1 << 40}, "1 snapshots"),
        ({"refcount_order": 7}, "2^7"),
        ({"header_bytes": 72}, "header of 72"),
        ({"header_bytes": 1 << 20}, "header of"),
        ({"incompatible": 0b10000, "cluster_bits": 9}, ""),
    ],
)
def test_what_cannot_be_trusted_is_refused_with_one_sentence(
    changes: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ImageRefused) as refusal:
        check_qcow2(header(**changes), FILE_BYTES)
    assert sentence in str(refusal.value)


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        (0xE2792ACA, "names another file"),
        (0x44415441, "names another file"),
        (0x0537BE77, "encrypted"),
    ],
)
def test_extensions_that_name_files_or_keys_are_refused(kind: int, sentence: str) -> None:
    with pytest.raises(ImageRefused, match=sentence):
        check_qcow2(header(extension(kind, b"/etc/shadow")), FILE_BYTES)


def test_an_extension_longer_than_its_cluster_is_refused() -> None:
    with pytest.raises(ImageRefused, match="longer than its cluster"):
        check_qcow2(header(struct.pack(">II", 1, 1 << 31)), FILE_BYTES)


@given(st.binary(max_size=4096), st.integers(0, 1 << 64))
def test_garbage_never_raises(data: bytes, file_bytes: int) -> None:
    for head in (data, b"QFI\xfb" + data, header()[:40] + data):
        try:
            found = check_qcow2(head, file_bytes)
        except ImageRefused:
            continue
        assert 0 < found.virtual_bytes <= VIRTUAL_BYTES_MAX


@given(st.data())
def test_a_good_header_with_changed_bytes_never_raises(data: Any) -> None:
    head = bytearray(header(extension(0x6803F857, bytes(48))))
    for _ in range(data.draw(st.integers(1, 8))):
        head[data.draw(st.integers(0, 200))] = data.draw(st.integers(0, 255))
    try:
        check_qcow2(bytes(head), data.draw(st.integers(0, 1 << 40)))
    except ImageRefused:
        pass
