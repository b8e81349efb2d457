"""Ranges, conditions and request targets of the boot listener."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.boot.http import split_target
from node.boot.routes import form_fields
from node.proto.http_range import Span, select, unchanged

TAG = '"v1"'


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (None, Span(0, 100, partial=False)),
        ("bytes=0-9", Span(0, 10, partial=True)),
        ("bytes=90-", Span(90, 10, partial=True)),
        ("bytes=90-500", Span(90, 10, partial=True)),
        ("bytes=-10", Span(90, 10, partial=True)),
        ("bytes=-500", Span(0, 100, partial=True)),
        ("Bytes = 0 - 0", Span(0, 1, partial=True)),
        ("bytes=100-", None),
        ("bytes=-0", None),
        ("bytes=9-5", Span(0, 100, partial=False)),
        ("bytes=0-1,5-6", Span(0, 100, partial=False)),
        ("lines=0-1", Span(0, 100, partial=False)),
        ("bytes=-", Span(0, 100, partial=False)),
        ("bytes=\u0661-", Span(0, 100, partial=False)),
    ],
)
def test_a_range_selects_its_bytes(asked: str | None, expected: Span | None) -> None:
    assert select(100, TAG, asked, None) == expected


def test_if_range_keeps_the_range_only_for_the_same_entity() -> None:
    part = Span(5, 5, partial=True)
    assert select(100, TAG, "bytes=5-9", TAG) == part
    for other in ('"v2"', 'W/"v1"', "Mon, 23 Nov 2026 10:00:00 GMT"):
        assert select(100, TAG, "bytes=5-9", other) == Span(0, 100, partial=False)


def test_an_empty_file_has_no_satisfiable_range() -> None:
    assert select(0, TAG, None, None) == Span(0, 0, partial=False)
    assert select(0, TAG, "bytes=0-", None) is None


def test_if_none_match_compares_weakly() -> None:
    assert unchanged(TAG, 'W/"v1", "x"')
    assert unchanged(TAG, "*")
    assert not unchanged(TAG, '"x"')
    assert not unchanged(TAG, None)


@given(st.integers(0, 10**6), st.text(max_size=30), st.text(max_size=10))
def test_garbage_never_raises(size: int, asked: str, if_range: str) -> None:
    for header in (asked, f"bytes={asked}"):
        span = select(size, TAG, header, if_range)
        assert span is None or 0 <= span.offset <= span.offset + span.length <= size


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("/a?mac=52%3A54", ("/a", {"mac": "52:54"})),
        ("/a%3Ab?x=1&x=2&y", ("/a:b", {"x": "1", "y": ""})),
        ("http://10.0.0.1:80/boot?x=1", ("/boot", {"x": "1"})),
        ("//x", ("/.//x", {})),
        ("*", (None, {})),
        ("/%ff", (None, {})),
        ("http://[", (None, {})),
    ],
)
def test_a_target_is_split_and_decoded(target: str, expected: tuple[object, ...]) -> None:
    assert split_target(target) == expected


@given(st.text(max_size=200))
def test_no_target_raises(target: str) -> None:
    split_target(target)
    split_target("/" + target)


@pytest.mark.parametrize(
    ("kind", "body", "fields"),
    [
        ("application/x-www-form-urlencoded", b"a=1&b=%20x", {"a": "1", "b": " x"}),
        ("application/json; charset=utf-8", b'{"a": 1, "b": "x"}', {"a": "1", "b": "x"}),
        ("application/json", b"[1]", None),
        ("application/json", b"{", None),
        ("application/json", b"[" * 100_000, None),
        ("", b"\xff", None),
        ("", b"&".join(b"a=1" for _ in range(100)), None),
    ],
)
def test_posted_fields_are_a_form_or_an_object(
    kind: str, body: bytes, fields: dict[str, str] | None
) -> None:
    assert form_fields({"content-type": kind}, body) == fields
