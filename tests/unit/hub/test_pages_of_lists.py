"""Pages from SQL are the pages of the same plan in memory, whatever the documents."""

import json
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hub.proto.rollup import Changes, Document
from hub.store import ReportStore
from mesh.rest.lists import Page, page, plan
from mesh.rest.requests import ListQuery

SITES, NAMES = ("ams1", "fra1"), ("web-1", "Web-2", "db", "ü")
STATES = ("active", "deploying failed", "available")
SERVERS = st.lists(
    st.tuples(
        st.sampled_from(SITES), st.sampled_from(NAMES), st.sampled_from(STATES),
        st.none() | st.integers(0, 3), st.none() | st.sampled_from(["debian", "Web image"]),
    ),
    max_size=12,
)  # fmt: skip
FILTERS = (
    None, "site:fra1", "site:!fra1", "site:ams1 site:fra1", "name:WEB-1", "name:web*", "web",
    "ü", "state:active", "state:*failed", "image:none", "debian site:fra1", "state:nothing",
    "state:!active", "state:!active state:!none web", "name:!WEB-1 site:!none",
)  # fmt: skip
SORTS = (None, "-name", "changed_ms", "-changed_ms,name", "image,-site", "state")


def filled(folder: str, kind: str, items: list[dict[str, Any]]) -> ReportStore:
    store = ReportStore.open(Path(folder) / "report.db")
    documents = [
        Document(kind, item["id"], item["site"], item.get("name", ""), item["state"],
                 json.dumps(item), b"", item.get("group") or "")
        for item in items
    ]  # fmt: skip
    store.apply("s", Changes(documents, []), b"c", 0)
    return store


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(SERVERS, st.sampled_from(FILTERS), st.sampled_from(SORTS), st.integers(1, 5))
def test_a_page_of_servers_is_the_same_from_sql_and_in_memory(
    rows: list[Any], text: str | None, sort: str | None, limit: int
) -> None:
    items = [
        {"id": f"s{n}", "site": site, "name": name, "state": state, "changed_ms": at,
         "image": image, "hostname": None, "macs": ["52:54:00:00:00:01"], "summary": "x"}
        for n, (site, name, state, at, image) in enumerate(rows)
    ]  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        store = filled(folder, "server", items)
        cursor: str | None = None
        for _ in range(len(items) + 1):
            asked = plan(
                "servers", ListQuery(filter=text, sort=sort, limit=limit, cursor=cursor)
            )
            found = store.page("server", asked)
            assert found == page(asked, items)
            cursor = found.next
            if cursor is None:
                break
        assert cursor is None
        store.close()


JOB_STATES = ("queued", "running", "parked", "failed", "succeeded")


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(st.tuples(st.sampled_from(JOB_STATES), st.sampled_from([None, "g1"])), max_size=9),
    st.sampled_from([None, "group:g1", "state:failed", "state:!failed", "late", "group:none"]),
)
def test_jobs_that_look_otherwise_than_they_are_stored_are_found_as_they_look(
    rows: list[Any], text: str | None
) -> None:
    items = [
        {"id": f"j{n}", "site": "fra1", "server_name": "web", "state": state, "group": group,
         "error": None}
        for n, (state, group) in enumerate(rows)
    ]  # fmt: skip

    def seen(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
        late = {"state": "failed", "error": "too late"}
        return [{**job, **late} if job["state"] == "queued" else job for job in found]

    with tempfile.TemporaryDirectory() as folder:
        store = filled(folder, "job", items)
        asked = plan("jobs", ListQuery(filter=text))
        found: Page = store.page("job", asked, seen)
        wanted = page(asked, seen(items))
        assert sorted(map(str, found.items)) == sorted(map(str, wanted.items))
        store.close()


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(SERVERS, st.sampled_from(FILTERS), st.sampled_from(["state", "site", "image"]))
def test_a_tally_counts_what_the_filter_keeps(
    rows: list[Any], text: str | None, field: str
) -> None:
    items = [
        {"id": f"s{n}", "site": site, "name": name, "state": state, "changed_ms": at,
         "image": image, "hostname": None, "macs": [], "summary": "x"}
        for n, (site, name, state, at, image) in enumerate(rows)
    ]  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        store = filled(folder, "server", items)
        asked = plan("servers", ListQuery(filter=text, limit=1))
        kept = Counter(item[field] or "none" for item in items if asked.keeps(item))
        assert store.tally("server", asked, field) == dict(sorted(kept.items()))
        store.close()
