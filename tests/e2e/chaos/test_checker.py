"""The checker can fail: it finds each thing that must not be in books that are else right."""

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tests.e2e.chaos.books import BmcOrder, Books, Disk, Given
from tests.e2e.chaos.checker import violations

WHOLE = "11" * 32
ORDERS = {
    "d": ("power off", "boot Pxe Continuous", "power on", "boot Hdd Continuous", "power off",
          "power on"),
    "r": ("power off", "boot Pxe Continuous", "power on", "power off"),
}  # fmt: skip


def job(key: str, kind: str, at: int, **more: Any) -> dict[str, Any]:
    steps = [{"id": "phone-in", "evidence": {"attempt": 1}}]
    return {
        "id": key, "kind": kind, "server_name": "srv1", "state": "succeeded", "error": None,
        "waits_for": None, "started_ms": at, "ended_ms": at + 90, "steps": steps, **more,
    }  # fmt: skip


def good() -> Books:
    """A server that was deployed, released and deployed again, the last time with a retry."""
    jobs = {
        "d1": job("d1", "server.deploy", 100),
        "r1": job("r1", "server.release", 200),
        "d2": job("d2", "server.deploy", 300),
        "t1": job("t1", "job.retry", 350, ended_ms=350),
    }
    row = {"name": "srv1", "state": "active", "job": None}
    rows: dict[str, Any] = {
        "server": {"s": row}, "inventory": {}, "binding": {}, "subnet": {},
        "order": {key: {} for key in jobs}, "job": jobs, "sighting": {}, "site_secret": {},
        "node_secret": {}, "budget": {"n/d1": {}, "n/r1": {}, "n/policy": {}},
        "job_log": {"d1": {}}, "staged": {},
    }  # fmt: skip
    given = [
        Given("d1", "server.deploy", "srv1"), Given("r1", "server.release", "srv1"),
        Given("d2", "server.deploy", "srv1"), Given("t1", "job.retry", "srv1", "d2"),
    ]  # fmt: skip
    bmc = [
        BmcOrder(jobs[key]["started_ms"] + 10 * n, "sim-1", what)
        for key in ("d1", "r1", "d2")
        for n, what in enumerate(ORDERS[key[0]])
    ]
    names = ("hub", "node-one", "node-two")
    return Books(
        WHOLE, given=given, machines={"srv1": "sim-1"}, bmc_orders=bmc,
        rows={name: copy.deepcopy(rows) for name in names},
        job_authors={name: {"d1": {"n"}} for name in names},
        shown={name: copy.deepcopy(jobs) for name in names},
        disks={"sim-1": Disk(WHOLE, False, 370)},
    )  # fmt: skip


def everywhere(books: Books, change: Callable[[Any], object]) -> None:
    for rows in books.rows.values():
        change(rows)


def drop_job(books: Books) -> None:
    everywhere(books, lambda rows: rows["job"].pop("d2"))
    for shown in books.shown.values():
        del shown["d2"]


def with_disk(**change: Any) -> Callable[[Books], None]:
    def act(books: Books) -> None:
        books.disks["sim-1"] = replace(books.disks["sim-1"], **change)

    return act


def with_job(key: str, **change: Any) -> Callable[[Books], None]:
    return lambda books: everywhere(books, lambda rows: rows["job"][key].update(change))


def with_server(**change: Any) -> Callable[[Books], None]:
    return lambda books: everywhere(books, lambda rows: rows["server"]["s"].update(change))


def swapped(books: Books) -> None:
    """The second deploy set the boot device after it had switched the machine on."""
    orders = books.bmc_orders
    orders[11], orders[12] = replace(orders[12], at_ms=310), replace(orders[11], at_ms=320)


def not_ended(books: Books) -> None:
    with_job("t1", state="running", waits_for="its turn")(books)


TAMPERED: dict[str, tuple[Callable[[Books], Any], str]] = {
    "a lost order": (drop_job, "is lost"),
    "a job that nobody ordered": (lambda b: b.given.pop(0), "nobody ordered"),
    "a job that is stuck": (not_ended, "is stuck"),
    "a failure without a sentence": (with_job("t1", state="failed"), "without a sentence"),
    "an order that became another": (with_job("r1", kind="server.power"), "not Given"),
    "two runners": (lambda b: b.job_authors["hub"]["d1"].add("m"), "begun by 2 nodes"),
    "other bytes on the disk": (with_disk(image_sha256="22" * 32), "does not have the image"),
    "a disk written after success": (with_disk(written_ms=999), "609 ms after"),
    "no phone-in": (
        lambda b: everywhere(b, lambda r: r["job"]["d2"]["steps"][0]["evidence"].clear()),
        "never phoned in",
    ),
    "a wrong state": (with_server(state="deploying"), "is deploying after"),
    "a server held by a dead job": (with_server(job="d2"), "still belongs to job d2"),
    "power in the wrong order": (swapped, "is out of order in job d2"),
    "power after the end": (
        lambda b: b.bmc_orders.append(BmcOrder(999, "sim-1", "power off")), "belongs to no job",
    ),
    "a missing power order": (lambda b: b.bmc_orders.pop(2), "out of order in job d1"),
    "hub and node differ": (
        lambda b: b.rows["hub"]["binding"].update(m={"ip": "127.0.0.9"}), "differ in binding m",
    ),
    "another state at the hub": (
        lambda b: b.shown["hub"]["d1"].update(state="running"), "show job d1 as",
    ),
    "destruction that was not counted": (
        lambda b: everywhere(b, lambda r: r["budget"].pop("n/r1")), "does not count r1",
    ),
    "destruction that was counted twice": (
        lambda b: everywhere(b, lambda r: r["budget"].update({"m/r1": {}})), "stands 2 times",
    ),
    "an order without a job": (
        lambda b: everywhere(b, lambda r: r["order"].update(x={})), "order x has no job",
    ),
    "a log without a job": (lambda b: b.rows["hub"]["job_log"].update(x={}), "a log of job x"),
    "half a delta": (lambda b: b.rows["hub"]["staged"].update(rows={}), "never finished"),
    "a partial file": (lambda b: b.left_over.append("hub: cache/partial/x"), "left over"),
    "a crash": (lambda b: b.ends.append("hub with code 1: oops"), "ended by itself"),
}  # fmt: skip


def test_books_in_order_have_no_violation() -> None:
    assert violations(good()) == []


def test_an_order_that_nobody_answered_may_have_been_taken_or_not() -> None:
    books = good()
    del books.given[0]
    books.unanswered = [("server.deploy", "srv1")]
    assert violations(books) == []
    books = good()
    books.unanswered = [("server.deploy", "srv1")]
    assert violations(books) == []


@pytest.mark.parametrize("what", list(TAMPERED))
def test_the_checker_finds(what: str) -> None:
    tamper, sentence = TAMPERED[what]
    books = good()
    tamper(books)
    found = violations(books)
    assert any(sentence in line for line in found), found
