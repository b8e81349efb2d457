"""Signing in and out in the browser, and the own password."""

from quart import Blueprint, Response, request

from hub import show
from hub.api import problems
from hub.api.auth import COOKIE, check_origin, client_address, session_of
from hub.api.session import set_cookie
from hub.errors import BadRequest, Denied, HubError, SignInNeeded, TooMany
from hub.pages.asking import need
from hub.pages.context import Console
from hub.pages.forms import go
from hub.pages.page import Page
from mesh.errors import Refused

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

    @pages.get("/password")
    async def password_form() -> Response:
        return _password(console, "")

    @pages.post("/password")
    async def change_password() -> Response:
        who, form = need("viewer"), await request.form
        if who.via != "session":
            raise Denied("only who is signed in has a password to change here")
        old, new = form.get("current", ""), form.get("password", "")
        if max(len(old), len(new)) > FIELD_CHARS_MAX:
            raise BadRequest("the password is too long")
        if new != form.get("again", ""):
            return _password(console, "The new password was not typed the same twice.", 400)
        try:
            await console.sign_in.check(who.name, old, client_address(request))
            await services.accounts.set_password(who.name, new)
        except (HubError, Refused) as exc:
            return _password(console, show.sentence(str(exc)), 400)
        secret, _ = services.desk.sign_in(who.name, services.clock.now_ms())
        response = go("/", "The password is changed, and other sessions of yours have ended.")
        set_cookie(response, secret)
        return response


def _password(console: Console, problem: str, status: int = 200) -> Response:
    page = Page(
        title="Change the password", template="session/password.html", at="", still=True,
        values={"problem": problem},
    )  # fmt: skip
    return console.render.page(page, status)
