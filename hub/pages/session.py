"""Signing in and out in the browser."""

from quart import Blueprint, Response, request

from hub import show
from hub.api import problems
from hub.api.auth import COOKIE, check_origin, client_address, session_of
from hub.api.session import set_cookie
from hub.errors import BadRequest, SignInNeeded, TooMany
from hub.pages.context import Console
from hub.pages.forms import go

FIELD_CHARS_MAX = 1024


def add(pages: Blueprint, console: Console) -> None:
    """Add the routes."""
    services, bare = console.services, console.render.bare

    @pages.get("/sign-in")
    async def sign_in_form() -> Response:
        if session_of(request, services) is not None:
            return go("/")
        return bare("session/sign_in.html", error=None, account="")

    @pages.post("/sign-in")
    async def sign_in_now() -> Response:
        check_origin(request)
        form = await request.form
        account, password = form.get("account", ""), form.get("password", "")
        if max(len(account), len(password)) > FIELD_CHARS_MAX:
            raise BadRequest("the account or the password is too long")
        address = client_address(request)
        try:
            secret, _ = await console.sign_in.begin(account, password, address)
        except (SignInNeeded, TooMany) as exc:
            error = show.sentence(str(exc))
            response = bare("session/sign_in.html", exc.status, error=error, account=account)
            return problems.told(response, exc)
        response = go("/")
        set_cookie(response, secret)
        return response

    @pages.post("/sign-out")
    async def sign_out() -> Response:
        services.desk.sign_out(request.cookies.get(COOKIE, ""))
        response = go("/sign-in")
        set_cookie(response, None)
        return response
