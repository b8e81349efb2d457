"""Names for machines that are accepted together, out of one pattern.

It knows no store. Rule: a name that is proposed is free and well-formed, or it is empty, and a
person has to give one.
"""

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final

from mesh.proto.ids import NAME_PATTERN

PATTERN: Final = "srv{n}"
PATTERN_CHARS_MAX: Final = 60
NUMBERS_MAX: Final = 10_000
"""Numbers that are tried for one name."""
_FIELD: Final = re.compile(r"\{(n+|site|serial|mac)\}")


def propose(
    pattern: str, machines: Iterable[Mapping[str, Any]], taken: Collection[str]
) -> list[str]:
    """Return a name for each machine.

    ``{n}`` is the next number that is free, ``{nnn}`` the same with leading zeros, ``{site}``,
    ``{serial}`` and ``{mac}`` (without colons) are the machine's own.
    """
    used, names = set(taken), []
    for machine in machines:
        name = _name(pattern[:PATTERN_CHARS_MAX], machine, used)
        used.add(name)
        names.append(name)
    return names


def _name(pattern: str, machine: Mapping[str, Any], used: Collection[str]) -> str:
    for number in range(1, NUMBERS_MAX):
        name = _FIELD.sub(lambda field, n=number: _filled(field[1], machine, n), pattern)  # type: ignore[misc]
        if NAME_PATTERN.match(name) and name not in used:
            return name
        if "{n" not in pattern:
            return ""
    return ""


def _filled(field: str, machine: Mapping[str, Any], number: int) -> str:
    match field:
        case "site":
            return str(machine["site"])
        case "serial":
            return re.sub(r"[^A-Za-z0-9._-]", "", str(machine["serial"] or ""))
        case "mac":
            return str(machine["mac"]).replace(":", "")
        case _:
            return str(number).zfill(len(field))
