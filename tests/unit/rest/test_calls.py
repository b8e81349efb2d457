"""What comes in is checked against the table: one sentence for each thing that can be wrong."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.rest.calls import Call, read_call
from mesh.rest.lists import plan
from mesh.rest.operations import OPERATIONS, PREFIX, find, methods
from mesh.rest.problems import RequestProblem


def call(
    operation: str, body: Any = None, key: str | None = None, query: Any = None, **parts: str
) -> Call:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return read_call(OPERATIONS[operation], "ann", parts, query or {}, data, key)


@pytest.mark.parametrize(
    ("operation", "body", "says"),
    [
        (
            "createToken", {"site": "No Site"},
            "site is 'No Site': expected 1 to 31 lower-case letters, digits and dashes",
        ),
        ("createToken", {"site": "fra1", "ttl_s": 0}, "ttl_s is 0: expected int >= 1"),
        ("createToken", {"site": "fra1", "ttl_s": True}, "ttl_s is True: expected int"),
        ("setSecret", {}, "the body is not right: object missing required field site"),
        ("createToken", {"site": "fra1", "x": 1}, "the body has no field 'x'; known: site"),
        (
            "createOrder", {"kind": "server.explode"},
            "kind is 'server.explode': expected one of bmc.scan, job.archive, job.cancel,",
        ),
        (
            "declareAsset", {"name": "x", "want": ["a", "No"]},
            "want[1] is ['a', 'No']: expected 1 to 31 lower-case letters",
        ),
        ("createOrder", [], "the body must be a JSON object"),
        ("createOrder", b"{", "the body must be JSON"),
        ("createOrder", b"[" * 100_000, "the body must be JSON"),
        ("createOrder", b'{"kind": "\\ud800"}', "the body must be JSON"),
    ],
)  # fmt: skip
def test_a_wrong_body_is_named_with_what_would_be_right(
    operation: str, body: Any, says: str
) -> None:
    with pytest.raises(RequestProblem) as caught:
        call(operation, body)
    assert says in str(caught.value)
    assert caught.value.code == "bad-request"


def test_null_is_the_same_as_missing_and_empty_queries_are_none() -> None:
    assert call("createOrder", {"kind": "job.retry", "site": None}).body.site is None
    null, missing = {"site": "fra1", "ttl_s": None}, {"site": "fra1"}
    assert call("createToken", null).body == call("createToken", missing).body
    assert call("listServers", query={"filter": "", "cursor": ""}).plan == plan("servers")


def test_a_key_comes_from_the_header_or_the_order_but_not_two_of_them() -> None:
    order = {"kind": "job.retry", "idempotency_key": "a"}
    assert call("createOrder", order).key == "a"
    assert call("createOrder", order, "a").key == "a"
    assert call("createOrder", {"kind": "job.retry"}, "b").key == "b"
    with pytest.raises(RequestProblem, match="differ"):
        call("createOrder", order, "b")
    for wrong in ("", "two words", "\u00fc", "k" * 129):
        with pytest.raises(RequestProblem, match="1 to 128 visible ASCII characters"):
            call("createOrder", {"kind": "job.retry"}, wrong)
    assert call("listServers", key="ignored").key is None


def test_names_in_a_path_are_bounded_and_printable() -> None:
    for odd in ("x" * 101, "a\nb", "\x00"):
        with pytest.raises(RequestProblem) as caught:
            call("getServer", server=odd)
        assert caught.value.code == "not-found"


def test_every_operation_is_found_by_its_method_and_path() -> None:
    assert not PREFIX.endswith("/")
    for operation in OPERATIONS.values():
        found = find(operation.method, operation.path)
        assert found is not None
        assert found[0] is operation
        assert operation.summary.endswith(".")
    assert find("GET", "/servers/web-1") == (OPERATIONS["getServer"], {"server": "web-1"})
    assert find("GET", "/servers/") is None
    assert find("GET", "/servers/a/b") is None
    assert methods("/assets", "hub") == ["GET", "POST"]
    assert methods("/assets", "node") == ["GET"]
    assert methods("/nothing", "hub") == []


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)
FIELDS = st.sampled_from(
    ["site", "name", "kind", "want", "ttl_s", "roles", "servers", "filter"]
)


@given(st.sampled_from(sorted(OPERATIONS)), st.dictionaries(FIELDS, JSON) | JSON)
def test_garbage_never_raises_anything_else(operation: str, body: Any) -> None:
    try:
        call(operation, body)
    except RequestProblem:
        return


@given(st.sampled_from(sorted(OPERATIONS)), st.binary(max_size=40), st.text(max_size=20))
def test_garbage_bytes_and_queries_never_raise_anything_else(
    operation: str, body: bytes, text: str
) -> None:
    query = {"filter": text, "limit": text, "cursor": text, "after": text, text: text}
    for asked in ({}, query, {"filter": text}, {"limit": text}, {"cursor": text}):
        try:
            call(operation, body, text, asked, server=text)
        except RequestProblem:
            continue


def test_an_unknown_field_is_refused_also_when_it_is_null() -> None:
    operation = OPERATIONS["collectAssets"]
    read_call(operation, "ann", {}, {}, b'{"dry_run": null}', None)
    with pytest.raises(RequestProblem, match="no field 'x'"):
        read_call(operation, "ann", {}, {}, b'{"dry_run": true, "x": null}', None)
