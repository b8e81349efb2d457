"""Groups: who gets an order, and how many jobs look as one."""

from typing import Any

import pytest

from mesh.rest.groups import chosen, drafts, group, groups, to_do
from mesh.rest.orders import KnownLists
from mesh.rest.problems import RequestProblem

IDS = [f"01890a5d-ac96-774b-bcce-b30209900{n:03d}" for n in range(6)]
SERVERS: list[dict[str, Any]] = [
    {"id": IDS[n], "name": f"web-{n}", "site": "ab"[n % 2], "state": state, "cleaned": n == 3,
     "bmc": None, "hold": False, "job": None, "macs": []}
    for n, state in enumerate(("active", "active", "available", "available"))
]  # fmt: skip
KNOWN = KnownLists(servers=SERVERS, pending=[], jobs=[], images={"debian": "b3:" + "2" * 64})


def jobs(*states: str, **more: Any) -> list[dict[str, Any]]:
    return [
        {"id": IDS[n], "group": "g", "kind": "server.release", "site": "ab"[n % 2],
         "server": "s", "server_name": f"web-{n}", "state": state, "author": "ann@hub",
         "error": "disk died" if state == "failed" else None,
         "waits_for": "the budget" if state == "blocked" else None,
         "created_ms": 10 + n,
         "ended_ms": 100 - n if state in ("failed", "succeeded") else None,
         **more}
        for n, state in enumerate(states)
    ]  # fmt: skip


def test_each_server_gets_an_order_or_a_reason() -> None:
    made, refused = drafts("server.release", {}, SERVERS, KNOWN)
    assert [one.server for one in made] == IDS[:3]
    assert {one.order_class for one in made} == {"destructive"}
    (no,) = refused
    assert no["server_name"] == "web-3"
    assert "nothing to release" in no["detail"]


@pytest.mark.parametrize(
    ("kind", "params", "servers", "code", "says"),
    [
        ("server.accept", {}, SERVERS, "bad-request", "groups are of server.boot-by, "),
        ("server.release", {}, [], "not-found", "nothing passes the filter"),
        ("server.release", {}, SERVERS[:1] * 1001, "too-large", "at most 1000 servers"),
        ("server.release", {}, SERVERS[3:], "conflict", "no server can take the order: web-3"),
        ("server.deploy", {"image": "x"}, SERVERS, "not-found", "there is no asset 'x'"),
        ("server.power", {}, SERVERS, "bad-request", "params.on"),
        (
            "server.deploy", {"image": "debian", "hostname": "a"}, SERVERS, "bad-request",
            "4 servers cannot all be called 'a'",
        ),
    ],
)  # fmt: skip
def test_what_is_wrong_for_all_is_refused_whole(
    kind: str, params: Any, servers: Any, code: str, says: str
) -> None:
    with pytest.raises(RequestProblem) as caught:
        drafts(kind, params, servers, KNOWN)
    assert (caught.value.code, says in str(caught.value)) == (code, True), str(caught.value)


def test_servers_are_meant_by_name_or_by_a_filter() -> None:
    def passing(text: str) -> list[Any]:
        return [server for server in SERVERS if text == "site:a" and server["site"] == "a"]

    names = {"servers": ["web-0", IDS[0], "web-1"]}
    assert [s["name"] for s in chosen(names, KNOWN, passing)] == ["web-0", "web-1"]
    assert len(chosen({"filter": "site:a", "expect": 2}, KNOWN, passing)) == 2
    for wrong, says in (
        ({}, "either servers or filter"),
        ({**names, "filter": "x"}, "either servers or filter"),
        ({"servers": ["nobody"]}, "there is no server nobody"),
        ({"filter": "site:a", "expect": 3}, "2 servers are meant by now, not 3"),
    ):
        with pytest.raises(RequestProblem, match=says):
            chosen(wrong, KNOWN, passing)


@pytest.mark.parametrize(
    ("states", "state"),
    [
        (("queued", "blocked"), "waiting"),
        (("running", "failed"), "running"),
        (("parked", "succeeded"), "parked"),
        (("parked", "queued"), "waiting"),
        (("succeeded", "succeeded"), "succeeded"),
        (("succeeded", "cancelled"), "cancelled"),
        (("failed", "cancelled", "succeeded"), "failed"),
    ],
)
def test_many_jobs_look_as_one(states: tuple[str, ...], state: str) -> None:
    assert group("g", jobs(*states))["state"] == state


def test_a_group_tells_counts_the_first_error_and_who_waits_for_what() -> None:
    shown = group("g", jobs("failed", "blocked", "blocked", "succeeded", "failed"))
    assert (shown["total"], shown["over"]) == (5, 3)
    assert shown["states"] == {"blocked": 2, "failed": 2, "succeeded": 1}
    assert shown["error"] == "web-4: disk died"
    assert shown["waits"] == [
        {"waits_for": "the budget", "jobs": 2, "servers": ["web-1", "web-2"]}
    ]
    assert (shown["sites"], shown["created_ms"], shown["ended_ms"]) == (["a", "b"], 10, None)
    assert group("g", jobs("failed", "succeeded"))["ended_ms"] == 100
    others = [*jobs("queued"), *jobs("queued", group="h"), *jobs("queued", group=None)]
    assert [found["id"] for found in groups(others)] == ["h", "g"]


def test_cancel_and_retry_go_to_the_jobs_that_can_take_them() -> None:
    found = jobs("failed", "blocked", "parked", "succeeded", "running", "cancelled")
    assert [d.params["job"] for d in to_do("g", "job.cancel", found)] == [
        IDS[1], IDS[2], IDS[4],
    ]  # fmt: skip
    assert [d.params["job"] for d in to_do("g", "job.retry", found)] == [
        IDS[0], IDS[2], IDS[5],
    ]  # fmt: skip
    with pytest.raises(RequestProblem, match="all have ended"):
        to_do("g", "job.cancel", jobs("succeeded"))
