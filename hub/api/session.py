"""Signing in and out for API clients that keep a cookie; limited by account and address."""

from typing import Final

import trio
from quart import Blueprint, Request, Response, request

from hub.api import shape
from hub.api.auth import COOKIE, check_origin, principal_of, session_of
from hub.desk import Session
from hub.errors import SignInNeeded, TooMany
from hub.ports import Services
from hub.proto.throttle import Throttle

TRIES: Final = 5
REFILL_S: Final = 10.0
NAME_CHARS_MAX: Final = 64


class SignIn:
    """Checks passwords, but not more often than the throttle allows."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._by_pair = Throttle(TRIES, REFILL_S)
        self._by_account = Throttle(10 * TRIES, REFILL_S / 5)
        self._by_address = Throttle(4 * TRIES, REFILL_S / 4)

    async def begin(self, account: str, password: str, address: str) -> tuple[str, Session]:
        """Return a new session and its id; SignInNeeded or TooMany otherwise."""
        now_s = trio.current_time()
        account = account[:NAME_CHARS_MAX]
        pair = f"{account}@{address}"
        for throttle, name in (
            (self._by_pair, pair), (self._by_address, address), (self._by_account, account),
        ):  # fmt: skip
            if not throttle.allow(name, now_s):
                raise TooMany(
                    f"too many tries; try again in {throttle.wait_s(name, now_s):.0f} s"
                )
        desk = self._services.desk
        if not await desk.check_password(account, password):
            raise SignInNeeded("the account or the password is wrong")
        self._by_pair.forgive(pair)
        return desk.sign_in(account, self._services.clock.now_ms())


def client_address(asked: Request) -> str:
    """Return the address that the throttle counts by."""
    return asked.remote_addr or "unknown"


def set_cookie(response: Response, secret: str | None) -> None:
    """Give the browser its session id, or take it back."""
    response.set_cookie(
        COOKIE, secret or "", secure=True, httponly=True, samesite="Strict", path="/",
        max_age=None if secret else 0,
    )  # fmt: skip


def routes(services: Services, sign_in: SignIn) -> Blueprint:
    """Return the routes of the session."""
    api = Blueprint("session", __name__, url_prefix="/api/v1/session")

    @api.post("")
    async def begin() -> Response:
        check_origin(request)
        body = await shape.body(request)
        account, password = shape.text(body, "account"), shape.text(body, "password")
        secret, session = await sign_in.begin(account, password, client_address(request))
        shown = {"account": session.account, "csrf": session.csrf, "until_ms": session.until_ms}
        response = shape.item("session", services.clock.now_ms(), shown, 201)
        set_cookie(response, secret)
        return response

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
