"""Escapes of a terminal session, as ssh and ipmitool have them: ``~.`` on a new line ends it.

It knows bytes, no terminal. Rules: only after a line end, and at the very start, does a tilde
begin an escape; what is no escape goes through as it was typed.
"""

from dataclasses import dataclass
from typing import Final, Literal

ACTS: Final[dict[int, Literal["quit", "break", "write", "read", "help"]]] = {
    ord("."): "quit",
    ord("B"): "break",
    ord("w"): "write",
    ord("r"): "read",
    ord("?"): "help",
}
HELP: Final = (
    "~.  end    ~B  send a break    ~w  write, though somebody else does    ~r  only read\r\n"
    "~~  a tilde    (each at the start of a line)"
)
_TILDE: Final = ord("~")


@dataclass(frozen=True, slots=True)
class Act:
    """What an escape asks for."""

    what: Literal["quit", "break", "write", "read", "help"]


class Escapes:
    """Splits what is typed into characters and acts."""

    def __init__(self) -> None:
        self._at_start = True
        self._tilde = False

    def feed(self, data: bytes) -> list[bytes | Act]:
        """Return what is to be done, in order."""
        found: list[bytes | Act] = []
        plain = bytearray()
        for byte in data:
            if self._tilde:
                self._tilde = False
                if byte in ACTS:
                    if plain:
                        found.append(bytes(plain))
                        plain.clear()
                    found.append(Act(ACTS[byte]))
                    continue
                if byte != _TILDE:
                    plain.append(_TILDE)
            elif byte == _TILDE and self._at_start:
                self._tilde = True
                continue
            plain.append(byte)
            self._at_start = byte in b"\r\n"
        if plain:
            found.append(bytes(plain))
        return found
