import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.errors import OriginError
from cache.proto.revalidation import Checked, Seen, compare, condition, seen_in

DAY, NEXT = "Mon, 23 Nov 2026 12:00:00 GMT", "Tue, 24 Nov 2026 12:00:00 GMT"


def test_a_tag_is_asked_by_and_a_date_only_where_there_is_none() -> None:
    assert condition(Seen('"a"', DAY, 5))["If-None-Match"] == '"a"'
    assert "If-Modified-Since" not in condition(Seen('"a"', DAY, 5))
    assert condition(Seen(None, DAY, 5))["If-Modified-Since"] == DAY
    assert condition(Seen(None, None, 5)) == {"Accept-Encoding": "identity"}


@pytest.mark.parametrize(
    ("before", "headers", "changed"),
    [
        (Seen('"a"', DAY, 5), {"ETag": '"a"', "Last-Modified": NEXT}, False),
        (Seen('W/"a"'), {"ETag": '"a"'}, False),
        (Seen('"a"', DAY, 5), {"ETag": '"b"', "Last-Modified": DAY}, True),
        (Seen('"a"', DAY), {"Last-Modified": DAY}, False),
        (Seen(None, DAY, 5), {"Last-Modified": NEXT, "Content-Length": "5"}, True),
        (Seen(None, NEXT, 5), {"Last-Modified": DAY, "Content-Length": "5"}, True),
        (Seen(None, None, 5), {"Content-Length": "5"}, False),
        (Seen(None, None, 5), {"Content-Length": "6"}, True),
        (Seen(None, None, 5), {}, False),
        (Seen(None, None, 5), {"Content-Length": "0"}, False),
        (Seen(None, None, 5), {"Content-Length": "3", "Content-Encoding": "gzip"}, False),
        (Seen(), {"ETag": '"a"', "Content-Length": "6"}, False),
    ],
)
def test_a_tag_decides_then_the_date_then_the_size(
    before: Seen, headers: dict[str, str], changed: bool
) -> None:
    assert compare(200, headers, before) == Checked(changed, seen_in(headers))


def test_not_modified_keeps_what_was_seen() -> None:
    assert compare(304, {}, Seen('"a"')) == Checked(False, Seen('"a"'))


@pytest.mark.parametrize("status", [206, 403, 404, 500, 503])
def test_other_answers_say_nothing_of_the_content(status: int) -> None:
    with pytest.raises(OriginError, match=f"answered {status}"):
        compare(status, {"ETag": '"b"'}, Seen('"a"'))


def test_overlong_and_unprintable_fields_count_as_none() -> None:
    assert seen_in({"ETag": "x" * 257, "Last-Modified": "\x00"}) == Seen()


@given(st.integers(), st.dictionaries(st.sampled_from(["ETag", "Content-Length"]), st.text()))
def test_garbage_never_raises(status: int, headers: dict[str, str]) -> None:
    with contextlib.suppress(OriginError):
        compare(status, headers, Seen('"a"', DAY, 5))
