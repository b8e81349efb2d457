"""How a job's row is made ours (node/work/takeover.py); the leases are tested in unit/node."""

from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any, cast

from node.proto.tenure import Grant
from node.work.rows import SiteRows
from node.work.takeover import Takeover
from node.work.tenure import SiteTenure

ME, GONE = "me", "gone"


class Store:
    """One row of a job."""

    def __init__(self, row: dict[str, Any]) -> None:
        self.row = row

    async def write(self, fn: Callable[[Any], bool]) -> bool:
        return fn(self)

    def get(self, _scope: str, _table: str, _key: str) -> Any:
        return SimpleNamespace(body=self.row)

    def put(self, _scope: str, _table: str, _key: str, body: dict[str, Any]) -> None:
        self.row = body


class Lease:
    """A lease that was granted; ``held``: and not to somebody else since."""

    held = True

    def stands(self, _job: Mapping[str, Any]) -> Grant:
        return Grant(2, ME)

    def holds(self, job: Mapping[str, Any]) -> bool:
        assert job["epoch"] == 2
        return self.held


def heir(*nodes: str) -> tuple[Takeover, Store, Lease]:
    steps = [
        {"id": "off", "kind": "set", "state": "done", "attempts": 1},
        {"id": "flash", "kind": "one-shot", "state": "waiting", "attempts": 0},
    ]
    row = {"id": "j", "state": "running", "runner": GONE, "epoch": 1, "steps": steps}
    store, lease = Store(row), Lease()
    rows = SimpleNamespace(
        node_id=ME, scope="s", store=store,
        jobs=lambda: {"j": store.row}, site_nodes=lambda: list(nodes),
    )  # fmt: skip
    takeover = Takeover(
        cast(SiteRows, rows),
        cast(SiteTenure, lease),
        lambda _job: [ME],
        lambda _job, _from: None,
        lambda _job: None,
    )
    return takeover, store, lease


async def test_a_granted_job_is_written_only_while_it_is_held():
    takeover, store, lease = heir(ME, GONE, "third")
    lease.held = False
    await takeover.look()
    assert store.row["runner"] == GONE, "somebody else was granted it since"
    lease.held = True
    await takeover.look()
    assert (store.row["runner"], store.row["epoch"]) == (ME, 2)
    assert store.row["steps"][1]["state"] == "waiting"


async def test_of_two_nodes_the_heir_takes_a_one_shot_step_for_begun():
    takeover, store, _ = heir(ME, GONE)
    await takeover.look()
    assert store.row["runner"] == ME
    assert [step["state"] for step in store.row["steps"]] == ["done", "running"]
