"""The unit file of a role, made for this machine: program, data folder, user.

It knows text only. Rule: what would make systemd read another meaning into a path (spaces,
percent signs, quotes) is refused, never quoted by guess.
"""

import re
from importlib import resources
from pathlib import Path
from typing import Final, Literal

from mesh.errors import Refused

Role = Literal["node", "hub"]
PATH: Final = re.compile(r"/[A-Za-z0-9._/@+=,:~-]*\Z")
USER: Final = re.compile(r"[a-z_][a-z0-9_-]{0,30}\Z")
HOMES: Final = ("/home/", "/root/")


def unit_name(role: Role) -> str:
    """Return the unit's file name."""
    return f"rackmesh-{role}.service"


def unit_text(
    role: Role, program: Path, interpreter: Path, data: Path, user: str, config: Path | None
) -> str:
    """Return the unit of a role; Refused with one sentence for a path that cannot stand in it.

    ``program`` is the command that starts Rackmesh, ``interpreter`` what runs it, ``config``
    its TOML file or None.
    """
    for what, path in (("program", program), ("data folder", data), ("config", config)):
        if path is not None and not PATH.match(str(path)):
            raise Refused(
                f"the {what} {str(path)!r} cannot stand in a unit: an absolute path of letters,"
                " digits and ._/@+=,:~- is wanted"
            )
    if not USER.match(user):
        raise Refused(
            f"{user[:40]!r} is no name of a system user: lower-case letters, digits, _ -"
        )
    folder = resources.files("mesh.host.units")
    in_home = any(str(p).startswith(HOMES) for p in (program, interpreter, data, config) if p)
    common = folder.joinpath("common.conf").read_text().rstrip("\n")
    common = common.format(data=data, protect_home="read-only" if in_home else "yes")
    return folder.joinpath(unit_name(role)).read_text().format(
        program=program, data=data, user=user, common=common,
        config=f" --config {config}" if config is not None else "",
    )  # fmt: skip
