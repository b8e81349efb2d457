from typing import Any

import pytest

from mesh.proto.beside import aside
from node.proto.residency import (
    Fetch,
    Follow,
    Holder,
    Resolve,
    View,
    decide,
    sharing,
    waits_for,
)

ASSET = "b3:" + "1" * 64
URL = "http://origin.example/image"


def view(**changes: Any) -> View:
    base: dict[str, Any] = {
        "node": "n1",
        "site": "one",
        "alive": ["n1"],
        "references": {"img": {"name": "img", "url": URL, "want": ["one"], "sha256": None}},
        "names": {},
        "holders": {},
        "held": [],
        "wanted": [],
        "claimed": {},
        "failed": [],
    }
    return View(**{**base, **changes})


FETCH = Fetch("img", ASSET, "aa")
NAMED = {"img": {"asset": ASSET, "sha256": "aa"}}


def test_a_wanting_site_resolves_what_nobody_has_seen() -> None:
    assert decide(view()) == [Resolve("img", URL, None)]


def test_a_site_that_does_not_want_it_does_nothing() -> None:
    assert decide(view(site="two")) == []


def test_of_two_nodes_exactly_one_asks_the_origin() -> None:
    alive = ["n1", "n2"]
    orders = [decide(view(node=node, alive=alive)) for node in alive]
    assert sorted(map(len, orders)) == [0, 1]


def test_of_two_wanting_sites_exactly_one_asks_the_origin() -> None:
    reference = {"img": {"url": URL, "want": ["two", "one"]}}
    here = decide(view(references=reference))
    there = decide(view(references=reference, site="two", node="n2", alive=["n2"]))
    assert (len(here), len(there)) == (1, 0)


def test_a_named_asset_comes_from_its_holders_not_from_the_origin() -> None:
    holders = {ASSET: [Holder("n9", "two", True)]}
    assert decide(view(names=NAMED, holders=holders)) == [FETCH]


def test_without_holders_the_origin_is_asked_under_the_signed_hash() -> None:
    assert decide(view(names=NAMED)) == [Resolve("img", URL, "aa")]


def test_when_only_pieces_are_left_the_first_site_asks_the_origin_again() -> None:
    references = {"img": {"url": URL, "want": ["one", "two"]}}
    pieces = {ASSET: [Holder("n1", "one", False), Holder("n2", "two", False)]}
    lost: dict[str, Any] = {"names": NAMED, "holders": pieces, "references": references}
    assert decide(view(**lost)) == [Resolve("img", URL, "aa")]
    there = decide(view(**lost, site="two", node="n2", alive=["n2"]))
    assert there == [FETCH]


def test_without_an_origin_even_pieces_are_asked_for() -> None:
    references = {"img": {"url": None, "want": ["one"]}}
    holders = {ASSET: [Holder("n9", "two", False)]}
    found = decide(view(names=NAMED, holders=holders, references=references))
    assert found == [FETCH]


def test_what_is_held_is_left_alone() -> None:
    assert decide(view(names=NAMED, held=[ASSET])) == []


def test_a_job_may_want_what_its_site_does_not() -> None:
    holders = {ASSET: [Holder("n9", "one", True)]}
    orders = decide(view(site="two", names=NAMED, holders=holders, wanted=["img"]))
    assert orders == [FETCH]


def test_all_nodes_of_a_site_share_what_nodes_elsewhere_hold() -> None:
    holders = {ASSET: [Holder("n8", "two", False), Holder("n9", "two", True)]}
    alive = ["n1", "n2"]
    at: dict[str, Any] = {"alive": alive, "names": NAMED, "holders": holders}
    for node in alive:
        assert decide(view(**at, node=node)) == [FETCH]
    found = sharing(view(**at, site_nodes=["n1", "n2", "n3"]), "img", ASSET)
    assert (found.sources, sorted(found.fellows)) == (("n9",), alive)
    assert sorted(found.ring) == ["n1", "n2", "n3"]
    assert sharing(view(**at, node="n2", site_nodes=["n3"]), "img", ASSET) == found
    failed = sharing(view(**at, failed=[("n2", "img")]), "img", ASSET)
    assert (failed.fellows, sorted(failed.ring)) == (("n1",), alive)
    alone = sharing(view(**at, references={}), "img", ASSET)
    assert (alone.fellows, alone.ring) == (("n1",), ("n1",))


def test_what_a_node_of_the_own_site_holds_is_taken_from_there() -> None:
    holders = {ASSET: [Holder("n2", "one", True), Holder("n9", "two", True)]}
    at: dict[str, Any] = {"alive": ["n1", "n2", "n3"], "names": NAMED, "holders": holders}
    assert decide(view(**at)) == [FETCH]
    found = sharing(view(**at), "img", ASSET)
    assert (found.sources, sorted(found.fellows)) == (("n2",), ["n1", "n3"])


def test_where_nobody_holds_it_whole_all_parts_are_sources() -> None:
    holders = {ASSET: [Holder("n2", "one", False), Holder("n9", "two", False)]}
    assert sharing(view(names=NAMED, holders=holders), "img", ASSET).sources == ("n2", "n9")


@pytest.mark.parametrize(
    "reference", [{}, {"want": 7}, {"want": ["one"], "url": 5}, {"want": [None], "url": URL}]
)
def test_odd_rows_are_left_alone(reference: dict[str, Any]) -> None:
    if not isinstance(reference.get("want", []), list):
        reference = {**reference, "want": []}
    assert decide(view(references={"img": reference, "../x": reference})) == []


def test_what_only_a_job_wants_its_node_takes_whoever_owns_the_name() -> None:
    alive = ["n1", "n2", "n3"]
    far = {ASSET: [Holder("n9", "one", True)]}
    for node in alive:
        at: dict[str, Any] = {"site": "two", "alive": alive, "wanted": ["img"], "node": node}
        assert decide(view(**at, names=NAMED, holders=far)) == [FETCH]
        nobody = {"img": {"url": URL, "want": []}}
        assert decide(view(**at, references=nobody)) == [Resolve("img", URL, None)]
        assert decide(view(**at, references=nobody, names=NAMED)) == [Resolve("img", URL, "aa")]


def test_what_the_owner_fails_to_get_a_job_s_node_takes_itself() -> None:
    at: dict[str, Any] = {"alive": ["n1", "n2"], "names": NAMED, "wanted": ["img"]}
    orders = {node: decide(view(**at, node=node)) for node in at["alive"]}
    (other,) = [node for node in at["alive"] if not orders[node]]
    (keeper,) = [node for node in at["alive"] if orders[node]]
    assert keeper in str(waits_for(view(**at, node=other), "img"))
    read = [Resolve("img", URL, "aa")]
    assert decide(view(**at, node=other, failed=[(keeper, "img")])) == read
    assert decide(view(**at, node=other, failed=[(keeper, "x"), ("n9", "img")])) == []


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({}, None),
        ({"site": "two"}, "site one to read the origin of img"),
        ({"references": {}}, "a hub to tell what img is"),
        ({"references": {"img": {"want": ["one"], "url": None}}}, "img to be uploaded"),
        ({"claimed": {"img": "aa"}}, "a hub to sign the name img"),
        (
            {"references": {"img": {"want": [], "url": None}}, "names": NAMED},
            "a node that holds img",
        ),
        ({"names": NAMED, "holders": {ASSET: [Holder("n9", "two", True)]}}, None),
    ],
)
def test_what_a_job_waits_for_is_told(changes: dict[str, Any], sentence: str | None) -> None:
    said = waits_for(view(wanted=["img"], **changes), "img")
    assert said == (sentence and f"waits for {sentence}") or sentence in str(said)
    assert (decide(view(wanted=["img"], **changes)) == []) is (sentence is not None)


def test_what_was_read_and_claimed_is_not_read_again_before_a_hub_signs() -> None:
    assert decide(view(claimed={"img": "aa"})) == []
    other = {"img": {"url": URL, "want": ["one"], "sha256": "bb"}}
    assert decide(view(claimed={"img": "aa"}, references=other)) == [Resolve("img", URL, "bb")]


def test_the_next_in_rank_keeps_up_with_who_reads_the_origin() -> None:
    alive = ["n1", "n2", "n3"]
    keeper = next(n for n in alive if decide(view(node=n, alive=alive)))
    reading: dict[str, Any] = {"alive": alive, "reading": {(keeper, "img")}}
    said = {n: decide(view(node=n, **reading)) for n in alive}
    (heir,) = [n for n in alive if said[n] and n != keeper]
    sentence = f"waits for node {keeper} of this site to read the origin of img"
    assert said[heir] == [Follow("img", keeper, sentence)]
    assert waits_for(view(node=heir, **reading), "img") == sentence
    left = [n for n in alive if n != keeper]
    after = {n: decide(view(node=n, alive=left, reading=reading["reading"])) for n in left}
    assert [n for n in left if after[n]] == [heir]
    assert after[heir] == [Resolve("img", URL, None)]


def test_nobody_keeps_up_with_a_node_that_does_not_read() -> None:
    alive = ["n1", "n2"]
    orders = [
        decide(view(node=n, alive=alive, reading={("n1", "x"), ("n2", "x")})) for n in alive
    ]
    assert sorted(map(len, orders)) == [0, 1]
    elsewhere: dict[str, Any] = {"alive": alive, "reading": {(n, "img") for n in alive}}
    elsewhere["references"] = {"img": {"url": URL, "want": ["other"]}}
    for node in alive:
        found = decide(view(node=node, **elsewhere, wanted=["img"]))
        assert not any(isinstance(order, Follow) for order in found)


def test_work_that_began_before_a_name_moved_gets_what_it_began_with() -> None:
    old = "b3:" + "2" * 64
    holders = {old: [Holder("n2", "one", True)]}
    begun = view(names=NAMED, held=[ASSET], holders=holders, begun=[("img", old)])
    assert decide(begun) == [Fetch(aside("img", old), old, None)]
    assert (
        decide(view(names=NAMED, held=[ASSET, old], holders=holders, begun=[("img", old)]))
        == []
    )
    assert decide(view(names=NAMED, held=[ASSET], begun=[("img", old)])) == [], "nobody has it"
