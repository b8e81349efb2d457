"""What can be wrong with a request: stable codes, their HTTP status, one document (RFC 9457).

Hub and node refuse with the same words. Rule: ``code`` is for programs and never changes its
meaning; ``detail`` is one sentence with the offending value and what would be right; ``hint``
is what to do next, where that is known.
"""

from typing import Final

from mesh.errors import Refused
from mesh.rest.types import Problem

STATUS: Final = {
    "bad-request": 400,
    "denied": 403,
    "not-found": 404,
    "not-allowed": 405,
    "conflict": 409,
    "too-large": 413,
    "key-reused": 422,
    "too-many": 429,
    "failed": 500,
    "unreachable": 503,
    "full": 507,
}

CONTENT_TYPE: Final = "application/problem+json"
_BY_STATUS: Final = {status: code for code, status in STATUS.items()}


class RequestProblem(Refused):
    """The request is not carried out; ``code`` is the API's word for it. Nothing changed."""

    def __init__(self, code: str, sentence: str, hint: str | None = None) -> None:
        super().__init__(sentence)
        assert code in STATUS
        self.code = code
        self.hint = hint


def of_status(status: int, detail: str) -> Problem:
    """Return the problem document of a status that says enough."""
    return problem(status, _BY_STATUS.get(status, "failed"), detail)


def problem(status: int, code: str, detail: str, hint: str | None = None) -> Problem:
    """Return a problem document."""
    document = Problem(
        type="about:blank",
        title=code.replace("-", " "),
        status=status,
        code=code,
        detail=detail,
    )
    if hint is not None:
        document["hint"] = hint
    return document
