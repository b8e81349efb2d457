"""Plans and pages of lists in memory."""

import base64
import json
import re
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.rest.lists import LISTS, page, plan
from mesh.rest.problems import RequestProblem
from mesh.rest.requests import ListQuery

SERVERS = [
    {"id": f"s{n}", "name": f"web-{n % 4}", "site": "ab"[n % 2], "changed_ms": n % 3 or None}
    for n in range(11)
]


def walk(noun: str, items: list[dict[str, Any]], **query: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    cursor: str | None = None
    while True:
        part = page(plan(noun, ListQuery(cursor=cursor, **query)), items)
        found += part.items
        cursor = part.next
        if cursor is None:
            return found


@pytest.mark.parametrize("noun", LISTS)
def test_what_can_be_asked_of_a_list_is_in_its_resources(noun: str) -> None:
    of = LISTS[noun]
    asked = {path.partition(".")[0] for path in of.keys.values()} | {*of.text, *of.identity}
    asked |= set(of.sorts) - set(of.derived)
    assert asked <= of.item.__annotations__.keys()
    assert plan(noun).order


@pytest.mark.parametrize("limit", [1, 2, 5, 11, 12])
@pytest.mark.parametrize("sort", [None, "-name", "changed_ms,-name", "-changed_ms,site"])
def test_pages_together_are_the_list_and_nothing_comes_twice(
    limit: int, sort: str | None
) -> None:
    found = walk("servers", SERVERS, limit=limit, sort=sort)
    assert found == walk("servers", SERVERS, limit=100, sort=sort)
    assert sorted(item["id"] for item in found) == sorted(item["id"] for item in SERVERS)


def test_the_order_is_what_was_asked_for() -> None:
    found = walk("servers", SERVERS, sort="-changed_ms,name")
    keys = [(-(item["changed_ms"] or -1), item["name"], item["id"]) for item in found]
    assert keys == sorted(keys)


def test_what_goes_and_comes_between_pages_moves_nothing_else() -> None:
    first = page(plan("servers", ListQuery(limit=3)), SERVERS)
    rest = [item for item in SERVERS if item not in first.items[1:]]
    second = page(plan("servers", ListQuery(limit=100, cursor=first.next)), rest)
    assert [*first.items, *second.items] == walk("servers", SERVERS, limit=100)


def test_a_filter_and_chosen_fields_hold_over_all_pages() -> None:
    found = walk("servers", SERVERS, limit=2, filter="site:a", fields="id,site")
    assert found == [{"id": i, "site": "a"} for i in ("s0", "s4", "s8", "s10", "s2", "s6")]


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ({"sort": "color"}, "servers cannot be sorted by 'color'; known: changed_ms,"),
        ({"filter": "color:red"}, "there is no filter key 'color' here"),
        ({"cursor": "!"}, "the cursor '!' is none of this list"),
        ({"cursor": base64.b64encode(b'["site,name,id",1,"b","c"]').decode()}, "is none of"),
        ({"cursor": base64.b64encode(b'["name,id","b","c"]').decode()}, "is none of"),
        ({"fields": "id,color"}, "servers have no field 'color'"),
    ],
)
def test_what_cannot_be_meant_is_refused(query: dict[str, Any], says: str) -> None:
    with pytest.raises(RequestProblem, match=re.escape(says)):
        plan("servers", ListQuery(**query))


@given(
    st.text(max_size=40) | st.binary(max_size=40).map(lambda b: base64.b64encode(b).decode())
)
def test_a_garbage_cursor_is_refused(cursor: str) -> None:
    if cursor:
        with pytest.raises(RequestProblem):
            plan("jobs", ListQuery(cursor=cursor))


@given(st.lists(st.fixed_dictionaries({
    "id": st.text(max_size=3), "state": st.sampled_from(["running", "failed", None]),
    "created_ms": st.none() | st.integers() | st.booleans() | st.text(max_size=2),
})))  # fmt: skip
def test_odd_values_have_a_place_too(items: list[dict[str, Any]]) -> None:
    unique = list({item["id"]: item for item in items}.values())
    found = walk("jobs", unique, limit=2, sort="over,-created_ms")
    assert sorted(map(json.dumps, found)) == sorted(map(json.dumps, unique))


def test_limits_stand_in_the_query_type() -> None:
    for limit in (0, 5001):
        with pytest.raises(msgspec.ValidationError):
            msgspec.convert({"limit": limit}, ListQuery)
