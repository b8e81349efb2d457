"""What a server boots off the network, instead of from its disk: in orders and rows.

A live system (kernel, initrds, command line), an ISO, or an installer: a live system that
writes the disk, and the template that answers its questions. It knows no scripts. Rule: the
files stand there by asset id, so what was ordered boots and nothing else, whatever a name comes
to.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from mesh.errors import CodecError
from mesh.proto import fields
from mesh.proto.content import ISO, LIVE
from mesh.proto.ids import ASSET_PATTERN, NAME_PATTERN
from mesh.proto.references import (
    CMDLINE_CHARS_MAX,
    INITRD,
    KERNEL,
    MEMBERS_MAX,
    why_no_cmdline,
)
from mesh.proto.template_text import Answers, read_answers

ISO_ROLE: Final = "iso"
INSTALLER: Final = "installer"


@dataclass(frozen=True, slots=True)
class BootFile:
    """One file of it: what it is for, the name it came under, and the asset that it is."""

    role: str
    name: str
    asset: str


@dataclass(frozen=True, slots=True)
class NetBoot:
    """What is booted; of a live system the kernel stands first."""

    kind: Literal["live", "iso", "installer"]
    cmdline: str
    files: tuple[BootFile, ...]
    answers: Answers | None = None
    """Of an installer, and of nothing else."""

    def body(self) -> dict[str, Any]:
        """Return it as it stands in an order and in a SERVER row."""
        files = [{"role": f.role, "name": f.name, "asset": f.asset} for f in self.files]
        body = {"kind": self.kind, "cmdline": self.cmdline, "files": files}
        return body if self.answers is None else {**body, "answers": self.answers.body()}


def writes_disks(boot: Any) -> bool:
    """Tell whether what an order boots off the network overwrites the server's disks."""
    return isinstance(boot, Mapping) and boot.get("kind") == INSTALLER


def read_net_boot(body: Any) -> NetBoot:
    """Return what a body says; raises CodecError for anything that could not be booted."""
    if not isinstance(body, Mapping):
        raise CodecError("field boot is not a map")
    cmdline = fields.text(body, "cmdline", chars_max=CMDLINE_CHARS_MAX)
    wrong = why_no_cmdline(cmdline)
    if wrong is not None:
        raise CodecError(wrong)
    listed = body.get("files")
    if not isinstance(listed, (list, tuple)) or not 0 < len(listed) <= MEMBERS_MAX:
        raise CodecError(f"field boot.files is not a list of 1 to {MEMBERS_MAX}")
    files = tuple(_file(item) for item in listed)
    roles = [file.role for file in files]
    match body.get("kind"):
        case "live" if roles[0] == KERNEL and set(roles[1:]) <= {INITRD}:
            return NetBoot(LIVE, cmdline, files)
        case "installer" if roles[0] == KERNEL and set(roles[1:]) <= {INITRD}:
            return NetBoot(INSTALLER, cmdline, files, read_answers(body.get("answers")))
        case "iso" if roles == [ISO_ROLE] and not cmdline:
            return NetBoot(ISO, cmdline, files)
        case _:
            raise CodecError("field boot is neither a live system nor an installer nor an ISO")


def _file(item: Any) -> BootFile:
    if not isinstance(item, Mapping):
        raise CodecError("an entry of boot.files is not a map")
    role, name = fields.text(item, "role", chars_max=16), fields.text(item, "name")
    asset = fields.text(item, "asset")
    if not NAME_PATTERN.match(name) or not ASSET_PATTERN.match(asset):
        raise CodecError("an entry of boot.files names no asset")
    return BootFile(role, name, asset)
