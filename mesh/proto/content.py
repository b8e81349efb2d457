"""What the first bytes of a file say that it is: a disk image, an ISO, something packed.

It knows no file and no network. Rule: a kind is guessed from the bytes where there are any, and
whoever registers bytes under another kind hears in one sentence what they are.
"""

from typing import Final

IMAGE: Final = "image"
QCOW2: Final = "qcow2"
LIVE: Final = "live"
ISO: Final = "iso"
FILE: Final = "file"
DISK_KINDS: Final = (IMAGE, QCOW2)
KINDS: Final = (IMAGE, QCOW2, LIVE, ISO, FILE)
"""Kinds of a reference: a raw disk image; a qcow2 one, of which sites hold the raw disk; a live
system (kernel, initrds, command line; its bytes are its members'); an ISO that is booted as it
is; any other file."""

HEAD_BYTES: Final = 36 << 10
"""So many first bytes tell all that is looked at here."""
_ISO_AT: Final = 16 * 2048
_EL_TORITO_AT: Final = 17 * 2048
_EL_TORITO: Final = b"\0CD001\1EL TORITO SPECIFICATION"

_MAGIC: Final = (
    (0, b"QFI\xfb", "a qcow2 image"),
    (_ISO_AT + 1, b"CD001", "an ISO 9660 image"),
    (0, b"\x1f\x8b", "packed with gzip"),
    (0, b"\xfd7zXZ\0", "packed with xz"),
    (0, b"\x28\xb5\x2f\xfd", "packed with zstd"),
    (0, b"BZh", "packed with bzip2"),
    (0, b"PK\3\4", "a zip archive"),
    (0, b"KDMV", "a VMDK image"),
    (0, b"# Disk DescriptorFile", "the descriptor of a VMDK image"),
    (0, b"vhdxfile", "a VHDX image"),
    (0, b"conectix", "a VHD image"),
    (0x40, b"\x7f\x10\xda\xbe", "a VDI image"),
    (0x202, b"HdrS", "a Linux kernel"),
    (0, b"\x7fELF", "a program (ELF)"),
)
_KIND_OF: Final = {"a qcow2 image": QCOW2, "an ISO 9660 image": ISO}
_INSTEAD: Final = {
    "a qcow2 image": "register it as kind qcow2",
    "an ISO 9660 image": "register it as kind iso",
    "a Linux kernel": "register it as a part of a live system (kind live)",
    "a program (ELF)": "register it as kind file",
}
_EITHER: Final = frozenset({"an ISO 9660 image"})
"""Hybrid ISOs may be written on a disk as they are, when that is what was asked for."""


def what_it_is(head: bytes) -> str | None:
    """Return what a file is by its first bytes, for people; None: nothing known here."""
    for at, magic, words in _MAGIC:
        if head[at : at + len(magic)] == magic:
            return words
    return None


def guess(head: bytes) -> str:
    """Return the kind of a file by its first bytes; unknown ones are a raw image."""
    return _KIND_OF.get(what_it_is(head) or "", IMAGE)


def guess_by_name(name: str) -> str:
    """Return the kind that the end of a file's name stands for; a raw image otherwise."""
    end = name.lower().rpartition(".")[2]
    return {"qcow2": QCOW2, "qcow": QCOW2, "iso": ISO}.get(end, IMAGE)


def why_not(kind: str, head: bytes) -> str | None:
    """Say why bytes that begin so cannot be of this kind, or None.

    The words go on the name of the file: "... is packed with gzip, not a raw image; ...".
    """
    found = what_it_is(head)
    match kind:
        case "image":
            if found is None or found in _EITHER:
                return None
            instead = _INSTEAD.get(found, "unpack or convert it first")
            return f"is {found}, not a raw disk image; {instead}"
        case "qcow2":
            return None if found == "a qcow2 image" else _other(found, "a qcow2 image")
        case "iso":
            if head[_ISO_AT + 1 : _ISO_AT + 6] != b"CD001":
                return _other(found, "an ISO 9660 image")
            if not head[_EL_TORITO_AT:].startswith(_EL_TORITO):
                return "is an ISO without an El Torito boot record: no machine can boot it"
            return None
        case _:
            return None


def why_no_kernel(head: bytes) -> str | None:
    """Say why bytes that begin so are no kernel of a live system, or None."""
    found = what_it_is(head)
    if found is None or found == "a Linux kernel":
        return None
    return f"is {found}, not a kernel"


def _other(found: str | None, wanted: str) -> str:
    return f"is {found or 'something else'}, not {wanted}"
