"""Forms of the console: their token, their fields, and what is said after one was sent.

Rule: the guard (hub/app.py) checks the token of every form before a handler runs. A session's
token never stands in a page as it is: pages are compressed, and a secret that is compressed
beside text that a stranger may choose can be guessed by the length (BREACH). Each page masks it
with random bytes of its own.
"""

import os
from collections.abc import Mapping
from typing import Final
from urllib.parse import quote, unquote

from quart import Request, Response, request

from hub.api.auth import session_of
from hub.desk import same_text
from hub.errors import BadRequest, Denied
from hub.ports import Services

FIELD: Final = "csrf"
TEXT_CHARS_MAX: Final = 4096
NOTICE: Final = "__Host-rackmesh-said"
NOTICE_CHARS_MAX: Final = 600


def mask(token: str) -> str:
    """Return a token (hexadecimal) so that it looks different each time."""
    secret = bytes.fromhex(token)
    noise = os.urandom(len(secret))
    return noise.hex() + bytes(a ^ b for a, b in zip(noise, secret, strict=True)).hex()


def unmask(masked: str) -> str:
    """Return what was masked; an empty text for what nobody masked."""
    try:
        both = bytes.fromhex(masked)
    except ValueError:
        return ""
    half = len(both) // 2
    return bytes(a ^ b for a, b in zip(both[:half], both[half:], strict=False)).hex()


async def check_token(asked: Request, services: Services) -> None:
    """Raise Denied unless the form that a browser sends is of its own session."""
    session, form = session_of(asked, services), await asked.form
    if session is None or not same_text(unmask(form.get(FIELD, "")), session.csrf):
        raise Denied("this form is from another session: load the page again, then send it")


async def fields(longer: Mapping[str, int] | None = None) -> Mapping[str, str]:
    """Return the form's fields, the first value of each; BadRequest for one too long.

    ``longer``: how many characters the fields may have that need more than others.
    """
    form = await request.form
    for name in form:
        most = (longer or {}).get(name, TEXT_CHARS_MAX)
        if any(len(value) > most for value in form.getlist(name)):
            raise BadRequest(f"{name[:40]} has more than {most} characters")
    return {name: str(form[name]).strip() for name in form}


async def many(name: str, most: int) -> list[str]:
    """Return all values of a field that may come more than once (ticked boxes)."""
    found = [str(value) for value in (await request.form).getlist(name)]
    if len(found) > most or any(len(value) > TEXT_CHARS_MAX for value in found):
        raise BadRequest(f"at most {most} can be chosen at once, not {len(found)}")
    return found


def go(where: str, said: str = "") -> Response:
    """Return a redirect that makes the browser GET a page of ours, which then says so."""
    assert where.startswith("/")
    response = Response("", 303, headers={"Location": where})
    if said:
        response.set_cookie(
            NOTICE, quote(said[:NOTICE_CHARS_MAX]), secure=True, httponly=True,
            samesite="Strict", path="/", max_age=60,
        )  # fmt: skip
    return response


def said(asked: Request) -> str:
    """Return what the page before wants said on this one."""
    return unquote(asked.cookies.get(NOTICE, ""))[:NOTICE_CHARS_MAX]


def forget_said(response: Response) -> None:
    """Say it once."""
    response.set_cookie(
        NOTICE, "", secure=True, httponly=True, samesite="Strict", path="/", max_age=0
    )
