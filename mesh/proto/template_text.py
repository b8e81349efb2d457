"""Boot templates as names and rows: formats, limits, which file of which name holds the text.

It renders nothing (``mesh/proto/template.py``), so whoever only lists templates loads no
template engine. Rule: a row's digest is what orders name, so the text that was ordered is
rendered and no other.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Final

from mesh.errors import CodecError
from mesh.proto import fields
from mesh.proto.ids import NAME_PATTERN

TEXT_BYTES_MAX: Final = 60 << 10
"""A row ends at 64 KiB."""
VARS_MAX: Final = 64
VAR_CHARS_MAX: Final = 4096
VAR_PATTERN: Final = re.compile(r"[a-z][a-z0-9_]{0,62}\Z", re.ASCII)
SECRET_PATTERN: Final = re.compile(r"install-[A-Za-z0-9][A-Za-z0-9._-]{0,54}\Z", re.ASCII)
"""Ids of the secrets that a template may ask for: no template reads a BMC's password."""
DIGEST_PATTERN: Final = re.compile(r"[0-9a-f]{64}\Z", re.ASCII)


class TemplateRefused(CodecError):
    """This is no template, or it cannot be rendered so; ``str(error)`` names the line."""


@dataclass(frozen=True, slots=True)
class Format:
    """How an installer is told: the file it asks for, and the words of its command line."""

    file: str
    words: str
    """``{url}`` is the file's URL, ``{folder}`` what stands before its name."""


PRESEED: Final = "preseed"
IPXE: Final = "ipxe"
FORMATS: Final[Mapping[str, Format]] = {
    PRESEED: Format("preseed.cfg", "auto=true priority=critical preseed/url={url}"),
    "kickstart": Format("ks.cfg", "inst.ks={url}"),
    "autoinstall": Format("user-data", "autoinstall ds=nocloud-net;s={folder}"),
    "cloud-init": Format("user-data", "ds=nocloud-net;s={folder}"),
    IPXE: Format("boot.ipxe", ""),
    "grub": Format("grub.cfg", ""),
}
META_DATA: Final = "meta-data"
VENDOR_DATA: Final = "vendor-data"
_NOCLOUD: Final = frozenset({"autoinstall", "cloud-init"})


def is_nocloud(form: str) -> bool:
    """Tell whether the folder is a NoCloud seed, which has more files than the template's."""
    return form in _NOCLOUD


def digest(form: str, text: str) -> str:
    """Return what an order names a template by."""
    return blake2b(f"{form}\0{text}".encode(), digest_size=32).hexdigest()


@dataclass(frozen=True, slots=True)
class Answers:
    """Which template answers an installer's questions, with which variables of the user."""

    template: str
    format: str
    digest: str
    vars: Mapping[str, str]

    def body(self) -> dict[str, Any]:
        """Return it as it stands in an order."""
        return {
            "template": self.template, "format": self.format, "digest": self.digest,
            "vars": dict(self.vars),
        }  # fmt: skip


def read_answers(body: Any) -> Answers:
    """Return what a body says; raises CodecError."""
    if not isinstance(body, Mapping):
        raise CodecError("field boot.answers is not a map")
    name = fields.text(body, "template", chars_max=63)
    form = fields.text(body, "format", chars_max=16)
    known = fields.text(body, "digest", chars_max=64)
    if not NAME_PATTERN.match(name) or form not in FORMATS or not DIGEST_PATTERN.match(known):
        raise CodecError("field boot.answers names no template")
    given = fields.mapping(body, "vars", count_max=VARS_MAX)
    for key, value in given.items():
        if not VAR_PATTERN.match(str(key)) or not isinstance(value, str):
            raise CodecError("field boot.answers.vars is not a map of texts")
        if len(value) > VAR_CHARS_MAX:
            raise CodecError(f"a variable has at most {VAR_CHARS_MAX} characters")
    return Answers(name, form, known, {str(k): str(v) for k, v in given.items()})


def text_of(row: Mapping[str, Any] | None) -> tuple[str, str] | None:
    """Return (format, text) of a TEMPLATE row that is in force, None otherwise."""
    if row is None or row.get("removed_ms"):
        return None
    form, text = row.get("format"), row.get("text")
    if form not in FORMATS or not isinstance(text, str):
        return None
    if len(text.encode("utf-8", "replace")) > TEXT_BYTES_MAX:
        return None
    return str(form), text


def check_vars(given: Any) -> dict[str, str]:
    """Return variables of a user as texts by name; raises TemplateRefused."""
    if not isinstance(given, Mapping) or len(given) > VARS_MAX:
        raise TemplateRefused(f"variables are a map of at most {VARS_MAX} names")
    for name, value in given.items():
        if not isinstance(name, str) or not VAR_PATTERN.match(name):
            raise TemplateRefused(
                f"{str(name)[:60]!r} is no name of a variable: a-z, 0-9 and _"
            )
        if not isinstance(value, str) or len(value) > VAR_CHARS_MAX or not _printable(value):
            raise TemplateRefused(
                f"the variable {name} is not a text of at most {VAR_CHARS_MAX} characters"
            )
    return dict(given)


def _printable(text: str) -> bool:
    return all(c.isprintable() or c in "\n\t" for c in text)
