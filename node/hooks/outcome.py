"""How a hook ends when it does not end well, and what its output becomes.

Rules: output is foreign and endless; of it a bounded number of bounded lines is kept, without
control characters and without secrets.
"""

from collections.abc import Iterable
from typing import Any, Final

from mesh.proto.redact import Redactor

LINES_MAX: Final = 40
"""Lines that are kept of the beginning, and of the end."""
CUT_CHARS: Final = 700
"""A line is cut here before secrets are taken out, which takes the square of its length."""
LINE_CHARS_MAX: Final = 400
EVIDENCE_CHARS_MAX: Final = 160


class HookFailed(Exception):
    """It was not done; ``str(error)`` is one sentence. ``passing``: trying again may help."""

    def __init__(self, sentence: str, passing: bool) -> None:
        super().__init__(sentence)
        self.passing = passing


class HookUnsure(Exception):
    """It may have been done, and doing it twice may harm; ``str(error)`` is one sentence."""


def lines_of(head: bytes, tail: bytes, dropped: int, known: Iterable[bytes] = ()) -> list[str]:
    """Return what a program printed as lines for a log, without secrets; blank ones are left.

    ``dropped`` bytes are missing between the two; ``known`` are secrets that must not show.
    """
    redactor = Redactor(known)
    if not dropped:
        head, tail = head + tail, b""
    else:  # half a line at the seam could be half a secret
        head, tail = head.rpartition(b"\n")[0], tail.partition(b"\n")[2]
    first, last = _lines(head), _lines(tail)
    if not tail and len(first) > 2 * LINES_MAX:
        first, last, dropped = first[:LINES_MAX], first[-LINES_MAX:], 1
    elif tail:
        first, last = first[:LINES_MAX], last[-LINES_MAX:]
    gap = ["[more, not kept]"] if dropped else []
    shown = redactor.text("\n".join([*first, *gap, *last])).split("\n")
    return [line[:LINE_CHARS_MAX] for line in shown]


def evidence(lines: list[str]) -> dict[str, Any]:
    """Return the first and last line as they stand in a job's row."""
    if not lines:
        return {}
    found = {"first": lines[0][:EVIDENCE_CHARS_MAX]}
    return found if len(lines) == 1 else {**found, "last": lines[-1][:EVIDENCE_CHARS_MAX]}


def _lines(data: bytes) -> list[str]:
    text = data.decode("utf-8", "replace").replace("\r", "\n")
    cleaned = (
        "".join(c if c.isprintable() else " " for c in line[:CUT_CHARS]).rstrip()
        for line in text.split("\n")
    )
    return [line for line in cleaned if line]
