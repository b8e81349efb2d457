"""Rows become documents: the same ones in any order, and nothing twice."""

import json
import random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from hub.proto import rollup
from mesh.proto import tables
from tests.support.hub_bench import HUB, NODE_A, NODE_B, Member, Row

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
FIELDS = st.sampled_from(
    [
        *("id", "name", "site", "state", "macs", "bmc", "steps", "mac", "first_ms", "last_ms"),
        *("summary", "where", "want", "url", "services", "have", "of", "origin_bytes"),
        *("updated_ms", "error", "evidence", "cleaned", "job"),
        *("serial", "tags", "administration", "inventory"),
    ]
)
BODIES = st.dictionaries(FIELDS, ANYTHING, max_size=8)
TABLES = st.sampled_from([*rollup.SITE_TABLES, *rollup.FLEET_TABLES, "unheard of"])
ROWS = st.lists(
    st.builds(
        Row, st.sampled_from([NODE_A, NODE_B, HUB]), TABLES, st.sampled_from("xyz"), BODIES
    ),
    max_size=8,
    unique_by=lambda row: (row.author, row.table, row.key),
)
MEMBERS = [Member(NODE_A), Member(NODE_B, site="ams1"), Member(HUB, "", frozenset({"hub"}))]


@settings(max_examples=50, deadline=None)
@given(ROWS, st.randoms(use_true_random=False))
def test_documents_do_not_depend_on_the_order_of_rows(
    rows: list[Row], order: random.Random
) -> None:
    shuffled = order.sample(rows, len(rows))
    assert rollup.site_documents("fra1", rows) == rollup.site_documents("fra1", shuffled)
    assert rollup.fleet_documents(rows, MEMBERS) == rollup.fleet_documents(
        shuffled, MEMBERS[::-1]
    )


@settings(max_examples=50, deadline=None)
@given(ROWS)
def test_garbage_never_raises_and_is_json(rows: list[Row]) -> None:
    for document in [
        *rollup.site_documents("fra1", rows),
        *rollup.fleet_documents(rows, MEMBERS),
    ]:
        assert isinstance(json.loads(document.text), dict)


@settings(max_examples=50, deadline=None)
@given(ROWS)
def test_reading_the_same_rows_again_changes_nothing(rows: list[Row]) -> None:
    documents = rollup.site_documents("fra1", rows)
    first = rollup.changes({}, documents)
    stored = {(document.kind, document.id): document.digest for document in first.put}
    assert rollup.changes(stored, documents) == rollup.Changes([], [])


def test_a_row_that_is_gone_takes_its_document_with_it() -> None:
    documents = rollup.site_documents("fra1", [Row(NODE_A, tables.SERVER, "s1", {"name": "w"})])
    stored = {(document.kind, document.id): document.digest for document in documents}
    assert rollup.changes(stored, []).drop == [("server", "s1")]


def test_an_accepted_machine_is_no_longer_pending() -> None:
    seen = Row(NODE_A, tables.SIGHTING, "52:54:00:00:00:01", {"last_ms": 5, "first_ms": 1})
    taken = Row(NODE_A, tables.SERVER, "s1", {"macs": ["52:54:00:00:00:01"]})
    assert [d.kind for d in rollup.site_documents("fra1", [seen])] == ["pending"]
    assert [d.kind for d in rollup.site_documents("fra1", [seen, taken])] == ["server"]


def test_a_machine_with_the_serial_number_of_a_server_is_said_to_have_it() -> None:
    server = Row(NODE_A, tables.SERVER, "s1", {"name": "db1", "macs": ["aa"], "serial": "CZ1"})
    rows = [server, Row(NODE_A, tables.SIGHTING, "bb", {"mac": "bb"})]
    for serial, said in ((" cz1", True), ("cz2", False), ("None", False)):
        about = Row(NODE_A, tables.INVENTORY, "bb", {"mac": "bb", "serial": serial})
        found = [d for d in rollup.site_documents("x", [*rows, about]) if d.kind == "pending"]
        (seen,) = [json.loads(document.text) for document in found]
        assert ("is that of db1" in (seen["conflict"] or "")) == said


def test_a_row_cannot_place_itself_in_another_site_or_under_another_id() -> None:
    row = Row(NODE_A, tables.SERVER, "s1", {"id": "s9", "site": "ams1", "name": "w"})
    (document,) = rollup.site_documents("fra1", [row])
    assert (document.id, document.site) == ("s1", "fra1")
    assert json.loads(document.text)["site"] == "fra1"


def test_presence_of_a_revoked_node_does_not_count() -> None:
    reference = Row(HUB, tables.REFERENCE, "img", {"name": "img", "want": ["fra1"]})
    presence = Row(
        NODE_A, tables.PRESENCE, "b3:x",
        {"name": "img", "site": "fra1", "state": "verified", "have": 1, "of": 1},
    )  # fmt: skip

    def state(member: Member) -> Any:
        documents = rollup.fleet_documents([reference, presence], [member])
        asset = next(document for document in documents if document.kind == "asset")
        return json.loads(asset.text)["sites"][0]["state"]

    assert state(Member(NODE_A)) == "verified"
    assert state(Member(NODE_A, status="revoked")) == "wanted"


def residencies(*rows: Row) -> dict[str, dict[str, str]]:
    """State by site by name."""
    documents = rollup.fleet_documents(rows, MEMBERS)
    found = [json.loads(d.text) for d in documents if d.kind == "asset"]
    return {item["name"]: {r["site"]: r["state"] for r in item["sites"]} for item in found}


def held(name: str, key: str, state: str = "verified", author: str = NODE_A) -> Row:
    body = {"name": name, "site": "anywhere", "state": state, "have": 1, "of": 1}
    return Row(author, tables.PRESENCE, key, body)


def reference(name: str) -> Row:
    return Row(HUB, tables.REFERENCE, name, {"name": name, "want": ["fra1"]})


def test_content_is_there_under_each_of_its_names() -> None:
    names = [Row(HUB, tables.NAME, name, {"asset": "b3:x"}) for name in ("im0", "im1")]
    both = [reference("im0"), reference("im1"), reference("new")]
    found = residencies(*both, *names, held("im0", "b3:x"), held("new", "name:new", "fetching"))
    assert found == {
        "im0": {"fra1": "verified"}, "im1": {"fra1": "verified"}, "new": {"fra1": "fetching"},
    }  # fmt: skip
    other = residencies(
        *both, *names, held("im0", "b3:other"), held("im1", "name:im1", "failed")
    )
    assert (other["im0"], other["im1"]) == ({"fra1": "wanted"}, {"fra1": "failed"})


def test_a_node_cannot_say_that_another_site_holds_something() -> None:
    assert residencies(reference("im0"), held("im0", "b3:x", author=NODE_B)) == {
        "im0": {"ams1": "verified", "fra1": "wanted"}
    }
    assert residencies(reference("im0"), held("im0", "b3:x", author=HUB)) == {
        "im0": {"fra1": "wanted"}
    }


def test_a_site_without_a_row_of_its_own_is_known_by_its_members() -> None:
    documents = rollup.fleet_documents([], MEMBERS)
    assert [d.id for d in documents if d.kind == "site"] == ["ams1", "fra1"]


def test_nesting_without_end_is_cut() -> None:
    value: Any = "deep"
    for _ in range(100):
        value = [value]
    assert "deep" not in json.dumps(rollup.plain(value))
