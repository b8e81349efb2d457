"""Exit codes: what a script can tell apart (the table stands in the README).

0 ok, 1 failed, 2 usage, 3 degraded, 4 not found, 5 unreachable or not joined, 6 denied,
7 conflict, 8 timeout of --wait, 130 interrupted.
"""

from collections.abc import Mapping
from typing import Final

import click

from mesh.errors import MeshError

SENTENCE_CHARS_MAX: Final = 800
FAILED: Final = 1
DEGRADED: Final = 3
NOT_FOUND: Final = 4
UNREACHABLE: Final = 5
DENIED: Final = 6
CONFLICT: Final = 7
TIMEOUT: Final = 8

BY_CODE: Final = {
    "bad-request": 2,
    "not-found": NOT_FOUND,
    "unreachable": UNREACHABLE,
    "not-joined": UNREACHABLE,
    "denied": DENIED,
    "conflict": CONFLICT,
    "key-reused": CONFLICT,
    "not-allowed": 2,
    "too-large": 2,
    "timeout": TIMEOUT,
}


def failure_of(exc: BaseException, role: str, codes: Mapping[type, int]) -> BaseException:
    """Return what ended a role as one sentence, or the exception itself if it is a bug.

    ``codes`` gives the exit codes of errors that do not simply fail.
    """
    first = exc
    while isinstance(first, BaseExceptionGroup):
        first = first.exceptions[0]
    if isinstance(first, MeshError):
        return Failure(str(first), codes.get(type(first), FAILED))
    if isinstance(first, OSError):
        return Failure(f"the {role} stopped: {first}", FAILED)
    return exc


class Failure(click.ClickException):
    """One sentence on standard error and an exit code."""

    def __init__(self, sentence: str, exit_code: int = FAILED) -> None:
        super().__init__(sentence)
        self.exit_code = exit_code  # type: ignore[misc]  # click reads it off the instance

    def show(self, file: object = None) -> None:
        """Write the sentence: printable, on one line, of bounded length."""
        text = "".join(c if c.isprintable() else "?" for c in self.message)
        if len(text) > SENTENCE_CHARS_MAX:
            text = text[:SENTENCE_CHARS_MAX] + "..."
        click.echo(f"rackmesh: {text}", err=True)
