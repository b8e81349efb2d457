import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.errors import OriginError
from cache.proto.origin import Answer, Partial, judge, request_headers, validator_of

DATE = {"date": "Mon, 23 Nov 2026 12:00:00 GMT"}


def test_nothing_had_asks_for_everything() -> None:
    assert request_headers(Partial(0, '"e"'), True) == {"Accept-Encoding": "identity"}


def test_a_rest_is_asked_for_only_under_a_strong_validator_or_a_declared_hash() -> None:
    assert request_headers(Partial(5, '"e"'), False)["If-Range"] == '"e"'
    assert request_headers(Partial(5, None), True)["Range"] == "bytes=5-"
    assert "Range" not in request_headers(Partial(5, None), False)


@pytest.mark.parametrize(
    ("headers", "validator"),
    [
        ({"etag": '"abc"'}, '"abc"'),
        ({"etag": 'W/"abc"'}, None),
        ({"last-modified": "Mon, 23 Nov 2026 11:58:00 GMT", **DATE}, "same"),
        ({"last-modified": "Mon, 23 Nov 2026 11:59:30 GMT", **DATE}, None),
        ({"last-modified": "nonsense", **DATE}, None),
        ({}, None),
    ],
)
def test_what_counts_as_strong(headers: dict[str, str], validator: str | None) -> None:
    want = headers["last-modified"] if validator == "same" else validator
    assert validator_of(headers) == want


def test_a_partial_answer_is_appended_only_where_we_stopped() -> None:
    headers = {"Content-Range": "bytes 5-9/10"}
    assert judge(206, headers, Partial(5, '"e"')) == Answer("append", 5, 10, '"e"')
    with pytest.raises(OriginError, match="from byte 5, not 4"):
        judge(206, headers, Partial(4, '"e"'))


def test_a_whole_answer_starts_again() -> None:
    answer = judge(200, {"Content-Length": "10", "ETag": '"n"'}, Partial(5, '"e"'))
    assert answer == Answer("restart", 0, 10, '"n"')


@given(
    st.integers(100, 599),
    st.dictionaries(
        st.sampled_from(["content-range", "content-length", "etag", "date", "last-modified"]),
        st.text(max_size=40),
    ),
)
def test_garbage_never_raises_anything_else(status: int, headers: dict[str, str]) -> None:
    with contextlib.suppress(OriginError):
        judge(status, headers, Partial(7, None))
