"""Who asks: a local user, a client with a token, a signed-in browser.

Rules: every address needs somebody, except the ones in ``OPEN``; a browser's write must bring
the session's CSRF token, and an Origin, where given, must be ours; nobody asks more often than
``hub/limits.py`` allows. Local users are told by the socket itself (``hub/front.py`` sets
LOCAL_UID in the connection's scope, HTTP cannot).
"""

from ipaddress import IPv6Address, ip_address
from typing import Any, Final, cast

from quart import Request

from hub.desk import Session, same_text
from hub.errors import Denied, SignInNeeded
from hub.ports import Principal, Services

LOCAL_UID: Final = "rackmesh.uid"
COOKIE: Final = "__Host-rackmesh"
CSRF_HEADER: Final = "X-CSRF-Token"
SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
OPEN: Final = frozenset({"/healthz", "/readyz", "/sign-in", "/favicon.ico", "/api/v1/session"})
"""Addresses that need nobody; what lies under /static/ neither."""
PREFIX_BITS: Final = 64
"""An IPv6 customer has at least this much of the address: it counts as one."""


def session_of(request: Request, services: Services) -> Session | None:
    """Return the browser's live session."""
    cookie = request.cookies.get(COOKIE)
    return services.desk.session(cookie, services.clock.now_ms()) if cookie else None


def admitted(request: Request, services: Services) -> Principal | None:
    """Return who asks, None for nobody; raises Denied, SignInNeeded or TooMany."""
    principal = principal_of(request, services)
    if principal is not None and principal.via != "socket":
        services.limits.check_call(principal.name)
    return principal


def principal_of(request: Request, services: Services) -> Principal | None:
    """Return who asks, checking a browser's write; Denied when that check fails."""
    uid = cast(Any, request.scope).get(LOCAL_UID)
    if uid is not None:
        return Principal(f"uid {uid}", "socket", "admin")
    header = request.headers.get("Authorization", "")
    if header:
        return bearer(header, request, services)
    session = session_of(request, services)
    if session is None:
        return None
    if request.method not in SAFE:
        check_origin(request)
        if not is_form(request) and not same_text(
            request.headers.get(CSRF_HEADER, ""), session.csrf
        ):
            raise Denied(f"a browser's write needs the header {CSRF_HEADER} of this session")
    return Principal(session.account, "session", session.role)


def bearer(header: str, request: Request, services: Services) -> Principal:
    """Return the client with an API token; SignInNeeded or TooMany for any other."""
    scheme, _, given = header.partition(" ")
    found = services.api_tokens.check(given.strip()) if scheme.lower() == "bearer" else None
    if found is None:
        services.limits.wrong_token(client_address(request))
        raise SignInNeeded("the API token is wrong, revoked or expired")
    return Principal(found.author, "token", found.role)


def client_address(asked: Request) -> str:
    """Return the address, or the IPv6 network, that tries are counted by."""
    client = cast(Any, asked.scope).get("client") or ("unknown",)  # no header of the client
    text = str(client[0])
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return text
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(IPv6Address(int(address) >> PREFIX_BITS << PREFIX_BITS))
    return text


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
