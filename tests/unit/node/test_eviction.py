"""What may go when a node's disk is short: never what somebody will miss."""

from typing import Any

import pytest

from mesh.proto.beside import aside, next_of
from node.proto.eviction import evictable
from node.proto.residency import Holder, View

OLD, NEW, LOOSE = ("b3:" + digit * 64 for digit in "123")
URL = "http://origin.example/image"
SHELF = [(OLD, "old"), (NEW, "new"), (LOOSE, "new")]


def view(**changes: Any) -> View:
    base: dict[str, Any] = {
        "node": "n1",
        "site": "one",
        "alive": ["n1"],
        "references": {name: {"url": URL, "want": []} for name in ("old", "new")},
        "names": {"old": {"asset": OLD}, "new": {"asset": NEW}},
        "holders": {},
        "held": [OLD, NEW, LOOSE],
        "wanted": frozenset(),
        "claimed": {},
        "failed": [],
    }
    return View(**{**base, **changes})


def test_what_no_name_stands_for_goes_first_then_the_oldest() -> None:
    assert evictable(view(), SHELF, ()) == [LOOSE, OLD, NEW]


def test_what_this_site_wants_a_job_works_with_or_waits_for_stays() -> None:
    references = {"old": {"url": URL, "want": ["one"]}, "new": {"url": URL, "want": []}}
    assert evictable(view(references=references), SHELF, ()) == [LOOSE, NEW]
    assert evictable(view(), SHELF, [NEW]) == [LOOSE, OLD]
    assert evictable(view(wanted=frozenset({"old"})), SHELF, ()) == [LOOSE, NEW]


def test_what_a_name_stood_for_before_goes_first_unless_a_job_began_with_it() -> None:
    shelf = [(NEW, "new"), (LOOSE, aside("new", LOOSE)), (OLD, next_of("old"))]
    references = {"old": {"url": URL, "want": ["one"]}, "new": {"url": URL, "want": ["one"]}}
    here = view(references=references, names={"new": {"asset": NEW}, "old": {"asset": NEW}})
    assert evictable(here, shelf, ()) == [LOOSE], "nor does what shall be the name's"
    assert evictable(here, shelf, [LOOSE]) == []


def test_what_is_pinned_here_stays_and_elsewhere_it_may_go() -> None:
    references = {"old": {"url": URL, "pin": ["one"]}, "new": {"url": URL, "pin": ["two"]}}
    assert evictable(view(references=references), SHELF, ()) == [LOOSE, NEW]
    for odd in ("one", None, [1], {"one": 1}):
        references["old"] = {"url": URL, "pin": odd}
        assert OLD in evictable(view(references=references), SHELF, ())


@pytest.mark.parametrize("reference", [{"url": URL, "want": ["two"]}, {"url": None}])
def test_the_last_whole_copy_stays_while_it_is_wanted_or_has_no_origin(
    reference: dict[str, Any],
) -> None:
    one = view(references={"old": reference})
    shelf = [(OLD, "old")]
    assert evictable(one, shelf, ()) == []
    for holder, gone in (
        (Holder("n1", "one", True), []),
        (Holder("n2", "two", False), []),
        (Holder("n2", "two", True), [OLD]),
    ):
        known = view(references=one.references, holders={OLD: [holder]})
        assert evictable(known, shelf, ()) == gone


def test_what_was_found_for_a_wanted_name_and_is_not_signed_yet_stays() -> None:
    references = {"new": {"url": URL, "want": ["one"]}}
    assert evictable(view(references=references, names={}), [(NEW, "new")], ()) == []
