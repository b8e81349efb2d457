"""Whether an origin still has what it had: conditional requests (RFC 9110 13.1, 15.4.5).

It knows no sockets. Rules: a tag decides where both answers have one, else the date, else the
size; content of which nothing is known but an equal size counts as the same, so an origin that
gives no validator is never read again for nothing. Here a weak tag and a fresh date will do: at
worst content is read that turns out to be the same.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from cache.errors import OriginError

FIELD_CHARS_MAX: Final = 256
"""A longer tag or date is taken for none: what is seen goes into rows."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What an origin said of the content that it had; None: it did not say."""

    etag: str | None = None
    modified: str | None = None
    size: int | None = None


@dataclass(frozen=True, slots=True)
class Checked:
    """What an origin said when asked again: ``seen`` holds from now on."""

    changed: bool
    seen: Seen


def seen_in(headers: Mapping[str, str]) -> Seen:
    """Return what the headers of a 200 answer say of its content."""
    lower = {name.lower(): value for name, value in headers.items()}
    length = lower.get("content-length", "")
    known = length.isascii() and length.isdigit() and len(length) < 16
    if lower.get("content-encoding", "identity").lower() not in ("", "identity"):
        known = False  # it is the size of something else
    size = int(length) or None if known else None  # some origins say 0 to every HEAD
    return Seen(_field(lower.get("etag")), _field(lower.get("last-modified")), size)


def condition(seen: Seen) -> dict[str, str]:
    """Return the headers that ask for an answer only if the content is another one."""
    headers = {"Accept-Encoding": "identity"}
    if seen.etag is not None:
        headers["If-None-Match"] = seen.etag
    elif seen.modified is not None:
        headers["If-Modified-Since"] = seen.modified
    return headers


def compare(status: int, headers: Mapping[str, str], seen: Seen) -> Checked:
    """Say what an answer means; raise OriginError with one sentence when it says nothing."""
    if status == 304:
        return Checked(False, seen)
    if status != 200:
        raise OriginError(f"the origin answered {status}")
    now = seen_in(headers)
    return Checked(differs(seen, now), now)


def differs(before: Seen, now: Seen) -> bool:
    """Tell whether two answers are of different content, as far as they say."""
    if before.etag is not None and now.etag is not None:
        return before.etag.removeprefix("W/") != now.etag.removeprefix("W/")
    if before.modified is not None and now.modified is not None:
        return before.modified != now.modified
    return None not in (before.size, now.size) and before.size != now.size


def _field(text: str | None) -> str | None:
    good = text and len(text) <= FIELD_CHARS_MAX and text.isascii() and text.isprintable()
    return text if good else None
