"""Signing in and out for API clients that keep a cookie, and changing the own password."""

from typing import Final, cast

from quart import Blueprint, Response, g, request

from hub.api import shape
from hub.api.auth import COOKIE, check_origin, client_address, principal_of, session_of
from hub.desk import Session
from hub.errors import Denied, SignInNeeded
from hub.ports import Principal, Services

NAME_CHARS_MAX: Final = 64


class SignIn:
    """Checks passwords, but not more often than the limits allow."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def begin(self, account: str, password: str, address: str) -> tuple[str, Session]:
        """Return a new session and its id; SignInNeeded or TooMany otherwise."""
        await self.check(account, password, address)
        return self._services.desk.sign_in(account, self._services.clock.now_ms())

    async def check(self, account: str, password: str, address: str) -> None:
        """Raise SignInNeeded unless the password is right, TooMany after too many tries."""
        accounts, limits = self._services.accounts, self._services.limits
        account = account[:NAME_CHARS_MAX]
        known = account if accounts.find(account) is not None else ""
        limits.check_sign_in(known, address)
        if await accounts.check_password(account, password) is None:
            raise SignInNeeded("the account or the password is wrong")
        limits.signed_in(account, address)


def set_cookie(response: Response, secret: str | None) -> None:
    """Give the browser its session id, or take it back."""
    response.set_cookie(
        COOKIE, secret or "", secure=True, httponly=True, samesite="Strict", path="/",
        max_age=None if secret else 0,
    )  # fmt: skip


def routes(services: Services, sign_in: SignIn) -> Blueprint:
    """Return the routes of the session."""
    api = Blueprint("session", __name__, url_prefix="/api/v1/session")

    def begun(secret: str, session: Session, status: int) -> Response:
        shown = {
            "account": session.account, "role": session.role, "csrf": session.csrf,
            "until_ms": session.until_ms,
        }  # fmt: skip
        response = shape.item("session", services.clock.now_ms(), shown, status)
        set_cookie(response, secret)
        return response

    @api.post("")
    async def begin() -> Response:
        check_origin(request)
        body = await shape.body(request)
        account, password = shape.text(body, "account"), shape.text(body, "password")
        return begun(*await sign_in.begin(account, password, client_address(request)), 201)

    @api.put("/password")
    async def change_password() -> Response:
        body = await shape.body(request)
        old, new = shape.text(body, "current"), shape.text(body, "password")
        principal = cast(Principal, g.principal)
        if principal.via != "session":
            raise Denied("only who is signed in has a password to change here")
        await sign_in.check(principal.name, old, client_address(request))
        await services.accounts.set_password(principal.name, new)
        return begun(*services.desk.sign_in(principal.name, services.clock.now_ms()), 200)

    @api.get("")
    async def show() -> Response:
        principal = principal_of(request, services)
        if principal is None:
            raise SignInNeeded("nobody is signed in")
        session = session_of(request, services)
        shown = {
            "account": principal.name,
            "via": principal.via,
            "role": principal.role,
            "csrf": session.csrf if session else None,
        }
        return shape.item("session", services.clock.now_ms(), shown)

    @api.delete("")
    async def end() -> Response:
        if principal_of(request, services) is None:
            raise SignInNeeded("nobody is signed in")
        services.desk.sign_out(request.cookies.get(COOKIE, ""))
        response = shape.answer(None)
        set_cookie(response, None)
        return response

    return api
