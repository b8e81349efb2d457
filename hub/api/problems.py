"""Errors as RFC 9457 problem documents: one sentence, one stable code.

Rule: what a handler raises on purpose becomes its own sentence; anything else is logged once
and becomes a 500 that says nothing of the inside.
"""

import json
import sqlite3
from collections.abc import Callable
from typing import Any, Final

from quart import Response, has_request_context, request
from quart_trio import QuartTrio
from werkzeug.exceptions import HTTPException

from hub.errors import HubError, TooMany
from mesh.errors import Refused, RemoteRefused, StoreFull, Unreachable
from mesh.host.log import get_log
from mesh.rest import problems

log = get_log("api")

_CODES: Final = {
    400: "bad-request", 401: "denied", 403: "denied", 404: "not-found",
    405: "not-allowed", 413: "too-large", 429: "too-many",
}  # fmt: skip
_SENTENCES: Final = {
    404: "there is nothing at this address",
    405: "this address does not take that method",
    413: "the body is larger than this address takes",
}


def problem(status: int, code: str, detail: str, hint: str | None = None) -> Response:
    """Return a problem document."""
    document = problems.problem(status, code, detail, hint)
    response = Response(json.dumps(document), status, content_type=problems.CONTENT_TYPE)
    if status == 401:
        response.headers["WWW-Authenticate"] = "Bearer"
    return response


Described = tuple[int, str, str, str | None]
"""Status, stable code, sentence, and a hint if there is one."""


def described(error: Exception) -> Described:
    """Return what is said of any exception."""
    match error:
        case HubError():
            return error.status, error.code, str(error), None
        case problems.RequestProblem():
            return problems.STATUS[error.code], error.code, str(error), error.hint
        case Refused() | RemoteRefused():
            return 409, "conflict", str(error), None
        case Unreachable():
            return 503, "unreachable", str(error), None
        case StoreFull() | sqlite3.OperationalError(sqlite_errorcode=sqlite3.SQLITE_FULL):
            return 507, "full", "the hub's disk is full: nothing was changed", None
        case HTTPException():
            status = error.code or 500
            sentence = _SENTENCES.get(status, error.description or error.name)
            return status, _CODES.get(status, "failed"), sentence, None
        case _:
            log.error("request failed", error=f"{type(error).__name__}: {error}")
            sentence = "the hub failed on this request; its log says why"
            return 500, "failed", sentence, None


def of_error(error: Exception) -> Response:
    """Return the problem document of any exception."""
    return told(problem(*described(error)), error)


def told(response: Response, error: Exception) -> Response:
    """Say when to come again, and what is allowed."""
    if isinstance(error, TooMany):
        response.headers["Retry-After"] = str(error.retry_s)
    allowed = getattr(error, "valid_methods", None)
    if allowed:
        response.headers["Allow"] = ", ".join(sorted(allowed))
    return response


def install(app: QuartTrio, page: Callable[[int, str], Response]) -> None:
    """Make every error a problem document, or a page where a browser asks for one."""

    async def handle(error: Any) -> Response:
        said = described(error)
        if not has_request_context():  # of a WebSocket, which was not opened
            return problem(*said)
        asks_for_page = "text/html" in request.headers.get("Accept", "")
        if asks_for_page and not request.path.startswith(("/api/", "/static/")):
            return told(page(said[0], said[2]), error)
        return told(problem(*said), error)

    app.register_error_handler(Exception, handle)
