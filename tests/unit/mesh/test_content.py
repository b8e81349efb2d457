"""What first bytes say, and what REFERENCE rows say, whatever they hold."""

from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.proto.content import (
    HEAD_BYTES,
    KINDS,
    guess,
    guess_by_name,
    what_it_is,
    why_no_kernel,
    why_not,
)
from mesh.proto.references import in_force, members_of, parents, why_no_cmdline

DISK = bytes(510) + b"\x55\xaa"
ISO = bytes(16 * 2048) + b"\1CD001\1".ljust(2048, b"\0")
BOOTABLE = ISO + b"\0CD001\1EL TORITO SPECIFICATION"
KERNEL = bytes(0x202) + b"HdrS"


@dataclass
class Row:
    key: str
    body: dict[str, Any]


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (b"QFI\xfb", "qcow2"), (BOOTABLE, "iso"), (ISO, "iso"), (DISK, "image"),
        (b"", "image"), (b"RACKMESH-SIM-IMAGE\n{}", "image"),
    ],
)  # fmt: skip
def test_the_kind_is_told_by_the_first_bytes(head: bytes, kind: str) -> None:
    assert guess(head) == kind


def test_of_a_url_the_end_of_its_name_tells() -> None:
    assert guess_by_name("https://example.net/debian-12.QCOW2") == "qcow2"
    assert guess_by_name("https://example.net/x.iso") == "iso"
    assert guess_by_name("https://example.net/x.img") == "image"


@pytest.mark.parametrize(
    ("kind", "head", "words"),
    [
        ("image", b"QFI\xfb", "qcow2 image, not a raw disk image; register it as kind qcow2"),
        ("image", b"\x1f\x8b\x08", "packed with gzip, not a raw disk image; unpack"),
        ("image", b"KDMV", "VMDK image"),
        ("image", KERNEL, "Linux kernel"),
        ("image", DISK, None),
        ("image", BOOTABLE, None),
        ("qcow2", DISK, "something else, not a qcow2 image"),
        ("iso", ISO, "no machine can boot it"),
        ("iso", BOOTABLE, None),
        ("iso", b"PK\3\4", "zip archive, not an ISO"),
        ("file", b"anything", None),
    ],
)
def test_what_is_registered_as_something_else_is_told(kind, head, words) -> None:
    said = why_not(kind, head)
    assert (said is None) if words is None else (words in str(said))


def test_a_kernel_is_told_from_what_is_none() -> None:
    assert why_no_kernel(KERNEL) is None
    assert why_no_kernel(b"MZ unknown") is None
    assert why_no_kernel(BOOTABLE) == "is an ISO 9660 image, not a kernel"


@given(st.binary(max_size=HEAD_BYTES), st.sampled_from(KINDS))
def test_garbage_never_raises(head: bytes, kind: str) -> None:
    what_it_is(head)
    why_not(kind, head)
    assert guess(head) in KINDS


def test_who_wants_a_live_system_wants_its_members_and_what_is_gone_is_gone() -> None:
    rows = [
        Row("k", {"kind": "file", "want": ["a"]}),
        Row("i", {"kind": "file"}),
        Row("gone", {"removed_ms": 5}),
        Row(
            "live",
            {
                "kind": "live", "want": ["b"],
                "members": [{"role": "initrd", "name": "i"}, {"role": "kernel", "name": "k"}],
            },
        ),
    ]  # fmt: skip
    found = in_force(rows)
    assert sorted(found) == ["i", "k", "live"]
    assert (found["k"]["want"], found["i"]["want"]) == (["a", "b"], ["b"])
    assert [member.role for member in members_of(found["live"])] == ["kernel", "initrd"]
    assert parents(found, "i") == ["live"]
    assert rows[0].body["want"] == ["a"], "rows are not changed in place"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
)


@given(st.dictionaries(st.sampled_from(["kind", "want", "members", "removed_ms"]), JSON))
def test_odd_rows_never_raise(body: dict[str, Any]) -> None:
    for found in in_force([Row("x", {**body, "kind": "live"}), Row("y", body)]).values():
        members_of(found)


@pytest.mark.parametrize("text", ["quiet console=ttyS0,115200 root=/dev/ram0", "", "a|b a&b"])
def test_a_plain_command_line_is_taken(text: str) -> None:
    assert why_no_cmdline(text) is None


@given(st.text())
def test_a_command_line_never_makes_a_second_command(text: str) -> None:
    if why_no_cmdline(text) is None:
        assert "\n" not in text
        assert not {"||", "&&"} & set(text.split())
        assert "${" not in text
