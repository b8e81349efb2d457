"""Ranges and conditions of HTTP: which part of a representation a request asks for.

It knows no sockets and no files. Rule: what is not one well-formed byte range is ignored and
the whole is sent (RFC 9110 section 14.2), a range that starts behind the end is refused with
416, and ``If-Range`` counts only by strong comparison of entity tags (section 13.1.5).
"""

import re
from dataclasses import dataclass
from typing import Final

_RANGE: Final = re.compile(r"bytes=(\d{0,19})-(\d{0,19})\Z", re.ASCII)


@dataclass(frozen=True, slots=True)
class Span:
    """The bytes to send: ``offset`` and ``length``; ``partial`` says 206 rather than 200."""

    offset: int
    length: int
    partial: bool


def select(size: int, etag: str, range_header: str | None, if_range: str | None) -> Span | None:
    """Return the part of ``size`` bytes that is asked for, or None: not satisfiable (416).

    ``etag`` is the strong entity tag with its quotes; headers are None when absent.
    """
    assert size >= 0
    whole = Span(0, size, partial=False)
    if range_header is None or (if_range is not None and if_range.strip() != etag):
        return whole
    match = _RANGE.match(range_header.strip().lower().replace(" ", ""))
    if match is None or match.group() == "bytes=-":
        return whole
    first, last = match.groups()
    if not first:  # the last n bytes
        length = min(int(last), size)
        return Span(size - length, length, partial=True) if length else None
    start = int(first)
    if last and int(last) < start:
        return whole
    if start >= size:
        return None
    end = min(int(last), size - 1) if last else size - 1
    return Span(start, end - start + 1, partial=True)


def requested_bytes(range_header: str | None) -> int:
    """Return the length of the closed range that is asked for; 0 for anything else."""
    match = _RANGE.match((range_header or "").strip().lower().replace(" ", ""))
    if match is None or not all(match.groups()):
        return 0
    return max(0, int(match[2]) - int(match[1]) + 1)


def unchanged(etag: str, if_none_match: str | None) -> bool:
    """Say whether ``If-None-Match`` names this entity (weak comparison, section 13.1.2)."""
    if if_none_match is None:
        return False
    tags = [tag.strip().removeprefix("W/") for tag in if_none_match.split(",")]
    return "*" in tags or etag in tags
