"""How to ask an origin for the rest of a file: ranges and validators (RFC 9110 13.1.5, 14).

It knows no sockets. Rule: bytes of two answers are put together only when a strong validator,
or a declared hash of the whole, proves that both are of one representation.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Literal

from cache.errors import OriginError


@dataclass(frozen=True, slots=True)
class Partial:
    """What an earlier try left: verified length and the validator it came with."""

    length: int
    validator: str | None


@dataclass(frozen=True, slots=True)
class Answer:
    """What to do with a response: ``start`` is the offset of its first byte."""

    action: Literal["append", "restart"]
    start: int
    size: int | None
    validator: str | None


def request_headers(partial: Partial, declared: bool) -> dict[str, str]:
    """Return the headers of the next try; ``declared``: the operator gave the SHA-256."""
    headers = {"Accept-Encoding": "identity"}
    if partial.length and (partial.validator is not None or declared):
        headers["Range"] = f"bytes={partial.length}-"
        if partial.validator is not None:
            headers["If-Range"] = partial.validator
    return headers


def validator_of(headers: Mapping[str, str]) -> str | None:
    """Return a strong ETag, or Last-Modified with a Date at least a minute later, or None.

    RFC 9110 section 8.8.2.2: such a Last-Modified may be used as a strong validator.
    """
    etag = headers.get("etag", "")
    if len(etag) >= 2 and etag.startswith('"') and etag.endswith('"'):
        return etag
    modified, date = _date(headers.get("last-modified")), _date(headers.get("date"))
    if etag or modified is None or date is None or date - modified < timedelta(minutes=1):
        return None
    return headers["last-modified"]


def _date(text: str | None) -> datetime | None:
    try:
        return parsedate_to_datetime(text).replace(tzinfo=None) if text else None
    except (ValueError, TypeError, IndexError):
        return None


def judge(status: int, headers: Mapping[str, str], partial: Partial) -> Answer:
    """Say what a response means; raise OriginError with one sentence when it is no use."""
    lower = {name.lower(): value for name, value in headers.items()}
    if lower.get("content-encoding", "identity").lower() not in ("", "identity"):
        raise OriginError(f"the origin encodes the content ({lower['content-encoding']})")
    if status == 206:
        start, size = _content_range(lower.get("content-range", ""))
        if start != partial.length:
            raise OriginError(f"the origin answered from byte {start}, not {partial.length}")
        return Answer("append", start, size, partial.validator or validator_of(lower))
    if status == 200:
        text = lower.get("content-length", "")
        size = int(text) if text.isdigit() and len(text) < 16 else None
        return Answer("restart", 0, size, validator_of(lower))
    if status == 416:
        return Answer("restart", -1, None, None)
    raise OriginError(f"the origin answered {status}")


def _content_range(text: str) -> tuple[int, int | None]:
    unit, _, rest = text.partition(" ")
    span, _, total = rest.partition("/")
    first, _, _last = span.partition("-")
    if unit != "bytes" or not first.isdigit() or len(first) > 15:
        raise OriginError(f"the origin's Content-Range {text[:80]!r} cannot be read")
    return int(first), int(total) if total.isdigit() and len(total) < 16 else None
