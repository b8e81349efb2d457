"""What may be forgotten, and what never is."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import pytest

from node.proto import sweep
from node.proto.sweep import DAY_MS, HOUR_MS, Known, decide

NOW = 1_800_000_000_000
LONG_MS = 31 * DAY_MS


@dataclass
class Row:
    key: str
    body: dict[str, Any] = field(default_factory=dict)
    author: str = "n1"
    hlc: int = NOW << 16


def known(**rows: Any) -> Known:
    base: dict[str, Any] = {
        "node": "n1", "owner": True, "now_ms": NOW, "jobs": [], "orders": [], "servers": [],
        "inventories": [], "sightings": [], "budgets": [], "claims": [], "named": {},
    }  # fmt: skip
    return Known(**{**base, **rows})


def keys(found: Iterable[sweep.Gone], table: str) -> list[str]:
    return [gone.key for gone in found if gone.table == table]


def job(key: str, age_ms: int, server: str | None = None, **more: Any) -> Row:
    at = NOW - age_ms
    body = {"state": "succeeded", "server": server, "created_ms": at, "ended_ms": at}
    return Row(key, body | {"kind": "server.power", "not_after_ms": at + DAY_MS} | more)


def test_ended_jobs_go_after_a_month_with_their_orders() -> None:
    jobs = [job("old", LONG_MS), job("older", LONG_MS + 1), job("new", 29 * DAY_MS)]
    found = decide(known(jobs=jobs, orders=[Row("old"), Row("new"), Row("older")]))
    assert keys(found, "job") == ["older", "old"]
    assert keys(found, "order") == ["older", "old"]


@pytest.mark.parametrize(
    "state", ["queued", "blocked", "running", "retry_wait", "held", "parked", None]
)
def test_a_job_that_has_not_ended_stays_however_old(state: str | None) -> None:
    jobs = [job("j", 12 * LONG_MS, state=state)]
    assert decide(known(jobs=jobs, orders=[Row("j")])) == []


def test_the_last_job_of_each_server_stays_and_so_does_what_its_row_names() -> None:
    jobs = [
        job("first", LONG_MS + 2, "s1"),
        job("last", LONG_MS + 1, "s1"),
        job("verb", LONG_MS, "s1", kind="job.retry"),
        job("gone", LONG_MS, "server that is no more"),
        job("named", LONG_MS + 3, "s2"),
        job("later", LONG_MS, "s2"),
        job("boots", LONG_MS + 3, "s3"),
        job("newer", LONG_MS, "s3"),
    ]
    live = {"boot": {"kind": "live", "job": "boots"}}
    servers = [Row("s1"), Row("s2", {"job": "named"}), Row("s3", live)]
    found = keys(decide(known(jobs=jobs, servers=servers)), "job")
    assert sorted(found) == ["first", "gone", "verb"]


def test_beyond_the_number_the_oldest_go_but_never_while_their_order_is_good(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sweep, "JOBS_KEPT_MAX", 3)
    jobs = [job(f"j{n}", n * DAY_MS, not_after_ms=NOW - n * DAY_MS) for n in range(1, 6)]
    assert keys(decide(known(jobs=jobs)), "job") == ["j5", "j4"]
    fresh = [job(f"j{n}", n * HOUR_MS) for n in range(1, 6)]
    assert decide(known(jobs=fresh)) == []
    verbs = [job(f"v{n}", n * HOUR_MS, not_after_ms=None) for n in range(1, 27)]
    assert decide(known(jobs=verbs)) == []
    verbs = [job(f"v{n}", n * HOUR_MS, not_after_ms=None) for n in range(30, 34)]
    assert keys(decide(known(jobs=verbs)), "job") == ["v33"]


def test_an_order_that_never_became_a_job_goes_after_a_month() -> None:
    orders = [
        Row("refused", {"created_ms": NOW - LONG_MS}),
        Row("waits", {"created_ms": NOW - DAY_MS}),
        Row("odd", {"created_ms": "x"}, hlc=(NOW - LONG_MS) << 16),
    ]
    assert sorted(keys(decide(known(orders=orders)), "order")) == ["odd", "refused"]


def test_a_budget_entry_goes_after_two_hours_at_its_author_and_the_policy_stays() -> None:
    old, new = {"at_ms": NOW - 3 * HOUR_MS}, {"at_ms": NOW - HOUR_MS}
    budgets = [Row("o", old), Row("n", new), Row("p", old, "n2"), Row("policy", {"limit": 5})]
    assert keys(decide(known(budgets=budgets)), "budget") == ["o"]


def test_a_budget_entry_of_a_clock_that_ran_years_ahead_goes_too() -> None:
    ahead = {"at_ms": NOW + 3652 * DAY_MS}
    budgets = [Row("a", ahead), Row("b", ahead, "n2"), Row("c", {"at_ms": NOW + 60_000})]
    assert keys(decide(known(budgets=budgets)), "budget") == ["a"]


def machine(key: str, age_ms: int, author: str = "n1") -> Row:
    return Row(key, {"last_ms": NOW - age_ms, "at_ms": NOW - age_ms}, author)


def test_machines_nobody_took_in_go_after_a_week_and_servers_never() -> None:
    week = 8 * DAY_MS
    rows = [machine("old", week), machine("new", DAY_MS), machine("server", week),
            machine("wanted", week), machine("old", week, "n2")]  # fmt: skip
    accepting = job("a", DAY_MS, state="queued", params={"machine": "wanted"})
    found = decide(
        known(
            sightings=rows, inventories=rows[:4], jobs=[accepting],
            servers=[Row("s", {"macs": ["server"]})],
        )
    )  # fmt: skip
    assert keys(found, "sighting") == keys(found, "inventory") == ["old"]


def test_a_machine_that_another_node_saw_lately_keeps_our_sighting() -> None:
    rows = [machine("m", 8 * DAY_MS), machine("m", DAY_MS, "n2")]
    assert decide(known(sightings=rows)) == []


def test_of_too_many_machines_the_newest_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep, "MACHINES_KEPT_MAX", 2)
    rows = [machine(f"m{n}", n * HOUR_MS) for n in range(5)]
    found = decide(known(sightings=rows, inventories=rows))
    assert keys(found, "sighting") == keys(found, "inventory") == ["m4", "m3", "m2"]


def test_a_claim_goes_a_day_after_a_hub_has_signed_that_content() -> None:
    day_old = (NOW - DAY_MS - 1) << 16
    claims = [
        Row("img", {"name": "img", "asset": "b3:1"}, hlc=day_old),
        Row("other", {"name": "other", "asset": "b3:2"}, hlc=day_old),  # signed otherwise
        Row("young", {"name": "young", "asset": "b3:3"}),
        Row("his", {"name": "img", "asset": "b3:1"}, "n2", day_old),
        Row("unsigned", {"name": "unsigned", "asset": "b3:4"}, hlc=day_old),
    ]
    named = {"img": "b3:1", "other": "b3:9", "young": "b3:3"}
    assert keys(decide(known(claims=claims, named=named)), "asset") == ["img"]


def test_who_is_not_the_owner_ends_only_rows_of_his_own() -> None:
    rows = [machine("m", 8 * DAY_MS)]
    found = decide(
        known(owner=False, jobs=[job("j", LONG_MS)], inventories=rows, sightings=rows)
    )
    assert [gone.table for gone in found] == ["sighting"]


def test_one_sweep_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep, "SWEEP_MAX", 2)
    jobs = [job(f"j{n}", LONG_MS + n) for n in range(5)]
    assert keys(decide(known(jobs=jobs)), "job") == ["j4", "j3"]


@pytest.mark.parametrize("odd", [None, "x", -1, [], {}, True, 1 << 70])
def test_rows_that_hold_anything_are_judged_without_a_word(odd: Any) -> None:
    fields = ("state", "server", "created_ms", "ended_ms", "params", "macs", "job", "last_ms",
              "at_ms", "not_after_ms", "name", "asset", "kind")  # fmt: skip
    rows = [Row("k", dict.fromkeys(fields, odd)), Row("k2", {"state": "failed"} | dict.fromkeys(
        ("created_ms", "ended_ms", "not_after_ms", "server"), odd))]  # fmt: skip
    tables = ("jobs", "orders", "servers", "inventories", "sightings", "budgets", "claims")
    decide(known(**dict.fromkeys(tables, rows)))


def test_ended_jobs_are_archived_by_their_runner_and_those_of_gone_nodes_by_the_owner() -> None:
    week = 7 * DAY_MS
    jobs = [
        job("new", week, runner="n1"), job("old", week + 1, runner="n1"),
        job("older", week + 2, runner="n1", state="failed"), job("done", LONG_MS, runner="n1",
        archived_ms=1), job("parked", LONG_MS, runner="n1", state="parked"),
        job("theirs", LONG_MS, runner="n2"), job("gone", LONG_MS, runner="n3"),
    ]  # fmt: skip
    alive = frozenset({"n1", "n2"})
    found = sweep.to_archive(known(jobs=jobs, alive=alive, archive_ms=week))
    assert keys(found, "job") == ["gone", "older", "old"]
    found = sweep.to_archive(known(jobs=jobs, alive=alive, archive_ms=week, owner=False))
    assert keys(found, "job") == ["older", "old"]
    assert sweep.to_archive(known(jobs=jobs, alive=alive)) == []
