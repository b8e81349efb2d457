"""The outer form of answers and the checks of what comes in.

What the table of operations describes is checked by ``mesh/rest/calls.py``; this is for what
stands beside it (sessions, uploads). Rule: a body is one JSON object of at most BODY_BYTES_MAX;
each field is checked here before it goes further, and a wrong one is named in one sentence.
"""

import json
from typing import Any, Final, cast

from quart import Request, Response

from hub.errors import BadRequest
from mesh.proto.ids import NAME_PATTERN

BODY_BYTES_MAX: Final = 1 << 20
TEXT_CHARS_MAX: Final = 4096


def item(noun: str, now_ms: int, value: Any, status: int = 200) -> Response:
    """Return one resource."""
    return answer({"schema": f"rackmesh/{noun}/1", "as_of_ms": now_ms, "item": value}, status)


def answer(value: Any, status: int = 200) -> Response:
    """Return JSON that nobody caches."""
    text = json.dumps(value, separators=(",", ":"))
    response = Response(text, status, content_type="application/json")
    response.headers["Cache-Control"] = "no-store"
    return response


async def body(request: Request) -> dict[str, Any]:
    """Return the JSON object in a request's body."""
    data = await request.get_data(as_text=False)
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        raise BadRequest("the body must be JSON") from None
    if not isinstance(value, dict):
        raise BadRequest("the body must be a JSON object")
    return cast(dict[str, Any], value)


def text(value: dict[str, Any], field: str, chars_max: int = TEXT_CHARS_MAX) -> str:
    """Return a text field that must be there."""
    found = value.get(field)
    if not isinstance(found, str) or not found or len(found) > chars_max:
        raise BadRequest(f"{field} must be text of 1 to {chars_max} characters")
    return found


def plain_name(found: str, what: str) -> str:
    """Return a name after checking its spelling."""
    if not NAME_PATTERN.match(found):
        raise BadRequest(
            f"{what} is 1 to 63 letters, digits, dots, dashes, underscores, not {found[:60]!r}"
        )
    return found
