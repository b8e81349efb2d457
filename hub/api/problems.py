"""Errors as RFC 9457 problem documents: one sentence, one stable code.

Rule: what a handler raises on purpose becomes its own sentence; anything else is logged once
and becomes a 500 that says nothing of the inside.
"""

import json
import sqlite3
from typing import Any, Final

from quart import Response
from quart_trio import QuartTrio
from werkzeug.exceptions import HTTPException

from hub.errors import HubError
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
    response = Response(json.dumps(document), status, content_type="application/problem+json")
    if status == 401:
        response.headers["WWW-Authenticate"] = "Bearer"
    return response


def of_error(error: Exception) -> Response:
    """Return the problem document of any exception."""
    match error:
        case HubError():
            return problem(error.status, error.code, str(error))
        case problems.RequestProblem():
            return problem(problems.STATUS[error.code], error.code, str(error), error.hint)
        case Refused():
            return problem(409, "conflict", str(error))
        case RemoteRefused():
            return problem(409, "conflict", str(error))
        case Unreachable():
            return problem(503, "unreachable", str(error))
        case StoreFull() | sqlite3.OperationalError(sqlite_errorcode=sqlite3.SQLITE_FULL):
            return problem(507, "full", "the hub's disk is full: nothing was changed")
        case HTTPException():
            status = error.code or 500
            return problem(
                status,
                _CODES.get(status, "failed"),
                _SENTENCES.get(status, error.description or error.name),
            )
        case _:
            log.error("request failed", error=f"{type(error).__name__}: {error}")
            return problem(500, "failed", "the hub failed on this request; its log says why")


def install(app: QuartTrio) -> None:
    """Make every error of an app a problem document."""

    async def handle(error: Any) -> Response:
        return of_error(error)

    app.register_error_handler(Exception, handle)
