"""Who runs an order, by what every node of the site can see."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from mesh.proto import tables
from mesh.proto.ids import uuid7
from mesh.proto.rendezvous import ranked
from node.work.orders import Orders
from node.work.ports import Limits
from node.work.rows import SiteRows, is_job, plan_of

NODES = ["a" * 32, "b" * 32, "c" * 32]
START_MS = 1_800_000_000_000


class Rows:
    """NODE rows of three nodes; nothing else."""

    version = 1

    def __init__(self, **bodies: Any) -> None:
        self._bodies = bodies

    def authored(self, scope: str, table: str, /) -> list[Any]:
        assert (scope, table) == (tables.FLEET, tables.NODE)
        return [SimpleNamespace(author=n, key=n, body=b) for n, b in self._bodies.items()]


class Members:
    def members(self) -> list[Any]:
        roles = frozenset({"node"})
        return [SimpleNamespace(node_id=n, site="lab", roles=roles) for n in NODES]

    def active(self, node_id: str, /) -> bool:
        return node_id in NODES


def orders(
    at: str, connected: set[str], jobs: list[str] = NODES, holders: list[str] = NODES
) -> Orders:
    bodies = {node: {"services": ["jobs"] if node in jobs else []} for node in NODES}
    rows = SiteRows(Rows(**bodies), Members(), "lab", at)  # type: ignore[arg-type]
    return Orders(
        rows, limits=Limits(), destructive_per_hour=5, started_ms=START_MS,
        connected=lambda: connected, holders=lambda: {"bmc-7": holders},
    )  # fmt: skip


def order_at(ms: int, n: int = 1) -> str:
    return uuid7(ms, n.to_bytes(10, "big"))


def test_all_nodes_name_the_same_runner_and_the_work_is_spread() -> None:
    seen: set[str | None] = set()
    for n in range(50):
        order = order_at(START_MS + n, n)
        named = {orders(at, set(NODES) - {at}).runner_of(order, 0) for at in NODES}
        assert named == {ranked(NODES, order)[0]}
        seen |= named
    assert seen == set(NODES)


def test_only_nodes_that_run_jobs_are_asked() -> None:
    capable = NODES[:2]
    for n in range(20):
        order = order_at(START_MS, n)
        assert orders(NODES[0], set(NODES[1:]), capable).runner_of(order, 0) in capable


def test_an_order_from_before_our_start_waits_for_the_row_of_who_did_it() -> None:
    old = order_at(START_MS - 3_600_000)
    at = ranked(NODES, old)[0]
    assert orders(at, set(NODES) - {at}).runner_of(old, 29.9) is None
    assert orders(at, set(NODES) - {at}).runner_of(old, 30.0) == at


def test_an_owner_out_of_reach_is_passed_over_after_the_same_time() -> None:
    order = order_at(START_MS)
    first, second, _third = ranked(NODES, order)
    assert orders(second, set(NODES) - {first, second}).runner_of(order, 1) is None
    assert orders(second, set(NODES) - {first, second}).runner_of(order, 30) == second


def test_a_node_that_cannot_open_the_bmcs_secret_gets_no_job() -> None:
    held = NODES[:2]
    for n in range(20):
        order = order_at(START_MS, n)
        near = set(NODES[1:])
        assert orders(NODES[0], near, holders=held).runner_of(order, 0, "bmc-7") in held
        assert (
            orders(NODES[0], near, holders=held).runner_of(order, 0) == ranked(NODES, order)[0]
        )
    order = order_at(START_MS)
    # nobody has it: the owner of all takes the order, and says so
    assert (
        orders(NODES[0], set(NODES[1:]), holders=[]).runner_of(order, 0, "bmc-7")
        == (ranked(NODES, order)[0])
    )
    # who has it is out of reach: nobody else takes it
    assert orders(NODES[2], {NODES[1]}, holders=NODES[:1]).runner_of(order, 60, "bmc-7") is None


def test_job_rows_of_other_builds_and_garbage_are_passed_over() -> None:
    good = {
        "id": "j", "kind": "server.power", "runner": "n", "state": "running", "attempt": 1,
        "params": {"on": True}, "steps": [{"id": "power", "state": "done"}],
    }  # fmt: skip
    assert is_job(good)
    for name in good:
        assert not is_job({**good, name: 3.5})
    assert not is_job({**good, "steps": [{}]})
    assert not is_job({**good, "kind": "server.polish"})
    assert not is_job({})


def test_rows_without_steps_have_an_empty_plan() -> None:
    assert plan_of({"kind": "job.cancel", "steps": [], "params": {}}) == ()
