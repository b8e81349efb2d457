"""The outer form of answers and the checks of what comes in.

Lists are ``{"schema", "as_of_ms", "items"}``, single resources ``{"schema", "as_of_ms",
"item"}``. Rule: a body is one JSON object of at most BODY_BYTES_MAX; each field is checked here
before it goes further, and a wrong one is named in one sentence.
"""

import json
from typing import Any, Final, cast

from quart import Request, Response

from hub.errors import BadRequest
from mesh.proto.ids import NAME_PATTERN, SITE_PATTERN

BODY_BYTES_MAX: Final = 1 << 20
TEXT_CHARS_MAX: Final = 4096


def items(noun: str, now_ms: int, values: Any) -> Response:
    """Return a list."""
    return answer({"schema": f"rackmesh/{noun}/1", "as_of_ms": now_ms, "items": values})


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


def optional_text(value: dict[str, Any], field: str) -> str | None:
    """Return a text field that may be missing or null."""
    return None if value.get(field) is None else text(value, field)


def texts(value: dict[str, Any], field: str, count_max: int = 100) -> list[str]:
    """Return a list of texts; missing is empty."""
    found = value.get(field, [])
    if (
        not isinstance(found, list)
        or len(found) > count_max
        or not all(isinstance(entry, str) and len(entry) <= TEXT_CHARS_MAX for entry in found)
    ):
        raise BadRequest(f"{field} must be a list of at most {count_max} texts")
    return found


def whole(value: dict[str, Any], field: str, least: int, most: int, default: int) -> int:
    """Return a whole number within bounds."""
    found = value.get(field, default)
    if not isinstance(found, int) or isinstance(found, bool) or not least <= found <= most:
        raise BadRequest(f"{field} must be a whole number from {least} to {most}")
    return found


def site_name(found: str) -> str:
    """Return a site name after checking its spelling."""
    if not SITE_PATTERN.match(found):
        raise BadRequest(
            f"a site is 1 to 31 lower-case letters, digits and dashes, not {found[:60]!r}"
        )
    return found


def plain_name(found: str, what: str) -> str:
    """Return a name after checking its spelling."""
    if not NAME_PATTERN.match(found):
        raise BadRequest(
            f"{what} is 1 to 63 letters, digits, dots, dashes, underscores, not {found[:60]!r}"
        )
    return found
