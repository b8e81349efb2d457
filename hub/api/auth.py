"""Who asks: a local user, a client with the API token, or a signed-in browser.

Rules: every address needs somebody, except the ones in ``OPEN``; a browser's write must bring
the session's CSRF token, and an Origin, where given, must be ours. Local users are told by the
socket itself (``hub/front.py`` sets LOCAL_UID in the connection's scope, HTTP cannot).
"""

from typing import Any, Final, cast

from quart import Request

from hub.desk import Session, same_text
from hub.errors import Denied, SignInNeeded
from hub.ports import Principal, Services

LOCAL_UID: Final = "rackmesh.uid"
COOKIE: Final = "__Host-rackmesh"
CSRF_HEADER: Final = "X-CSRF-Token"
SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
OPEN: Final = frozenset({"/healthz", "/sign-in", "/favicon.ico", "/api/v1/session"})
"""Addresses that need nobody; what lies under /static/ neither."""


def session_of(request: Request, services: Services) -> Session | None:
    """Return the browser's live session."""
    cookie = request.cookies.get(COOKIE)
    return services.desk.session(cookie, services.clock.now_ms()) if cookie else None


def principal_of(request: Request, services: Services) -> Principal | None:
    """Return who asks, checking a browser's write; Denied when that check fails."""
    uid = cast(Any, request.scope).get(LOCAL_UID)
    if uid is not None:
        return Principal(f"uid {uid}", "socket", "admin")
    header = request.headers.get("Authorization", "")
    if header:
        return bearer(header, services.api_token)
    session = session_of(request, services)
    if session is None:
        return None
    if request.method not in SAFE:
        check_origin(request)
        if not is_form(request) and not same_text(
            request.headers.get(CSRF_HEADER, ""), session.csrf
        ):
            raise Denied(f"a browser's write needs the header {CSRF_HEADER} of this session")
    return Principal(session.account, "session", "admin")


def bearer(header: str, api_token: str) -> Principal:
    """Return the client with the API token; SignInNeeded for any other."""
    scheme, _, given = header.partition(" ")
    if scheme.lower() != "bearer" or not same_text(given.strip(), api_token):
        raise SignInNeeded("the API token is wrong; it stands in DATA/api-token on the hub")
    return Principal("api-token", "token", "admin")


def check_origin(request: Request) -> None:
    """Refuse a write that another site's page makes in our user's browser."""
    origin = request.headers.get("Origin")
    if origin is not None and origin != f"https://{request.host}":
        raise Denied(f"a page of {origin[:100]} may not write here")


def is_form(request: Request) -> bool:
    """Tell whether this is a form of a page, which carries its token in a field."""
    return request.method not in SAFE and not request.path.startswith("/api/")


def is_open(path: str) -> bool:
    """Tell whether an address needs nobody."""
    return path in OPEN or path.startswith("/static/")
