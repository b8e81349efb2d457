"""Orders that are not simply carried out: refused, without a secret, their runner gone."""

from pathlib import Path
from typing import Any

from mesh.proto import tables
from mesh.proto.rendezvous import owner
from tests.support.work_site import WorkSite, step


async def put_order(site: WorkSite, signed: bytes, order_id: str) -> None:
    """Let an order arrive as a hub's does: as a row."""
    body = {"signed": signed, "created_ms": 1}
    await site.store.write(lambda tx: tx.put(site.scope, tables.ORDER, order_id, body))


async def test_an_order_that_is_refused_here_ends_with_the_sentence(tmp_path: Path) -> None:
    async with WorkSite(tmp_path).running() as site:
        await site.accept()
        on = {"server": site.server, "on": True}
        for kind, params, changes, words in (
            ("server.power", on, {"not_after_ms": site.clock.now_ms() - 5_000}, "out of time"),
            ("server.power", on, {"order_class": "destructive"}, "calls itself destructive"),
            ("server.release", {"server": site.server}, {"order_class": "normal"}, "destroy"),
            ("job.cancel", {"job": site.new_id()}, {}, "there is no job"),
        ):
            key = site.new_id()
            await put_order(site, site.order(kind, params, id=key, **changes), key)
            row = await site.end(key)
            assert (row["state"], row["runner"]) == ("failed", site.node.node_id)
            assert words in row["error"]
            assert (row["author"], row["params"]) == ("ann@hub", {})
        foreign = site.order("server.power", on, region="us", id=(key := site.new_id()))
        await put_order(site, foreign, key)
        await site.until(lambda: key in site.work._refused)
        assert site.job(key) == {}
        retry = await site.give("job.retry", {"job": row["id"]})
        assert (await site.end(retry))["error"] == "it was refused as it is"


async def test_a_job_whose_secret_nobody_has_says_who_must_set_it(tmp_path: Path) -> None:
    site = WorkSite(tmp_path)
    site.opens[site.node.node_id] = {}
    async with site.running():
        await site.accept()
        job = await site.power(False)
        await site.until(lambda: site.job(job).get("state") == "blocked")
        assert site.job(job)["waits_for"] == (
            "no node of site lab has the secret 'bmc1': somebody must set it again on a hub"
            " (rackmesh secret set bmc1 --site lab --username NAME)"
        )
        site.opens[site.node.node_id] = {"bmc1": 2}
        assert (await site.end(job))["state"] == "succeeded"
        rows = site.store.authored(site.scope, tables.NODE_SECRET)
        assert [(row.author, row.key, row.body) for row in rows] == [
            (site.node.node_id, "bmc1", {"version": 2})
        ]
        site.opens[site.node.node_id] = {}
        await site.until(lambda: not site.store.authored(site.scope, tables.NODE_SECRET))


async def test_a_node_that_joined_later_gets_no_job_that_it_cannot_do(tmp_path: Path) -> None:
    async with WorkSite(tmp_path).running() as site:
        await site.accept()
        later = site.org.admit("node2")
        site.peers.nodes = {later.node_id: {}}
        nodes = sorted([site.node.node_id, later.node_id])
        while owner(nodes, order := site.new_id()) != later.node_id:
            pass
        on = {"server": site.server, "on": False}
        job = await site.end(await site.give("server.power", on, id=order))
        assert (job["state"], job["runner"]) == ("succeeded", site.node.node_id)


async def hand_on(site: WorkSite, node: str, **more: Any) -> dict[str, Any]:
    params = {"node": node, "name": "node2", **more}
    key = site.new_id()
    signed = site.order("secret.release", params, id=key, order_class="normal")
    await put_order(site, signed, key)
    return await site.end(key)


async def test_secrets_are_handed_on_by_a_node_that_can_open_them(tmp_path: Path) -> None:
    site = WorkSite(tmp_path)
    site.opens[site.node.node_id] = {"bmc1": 1, "bmc2": 1}
    async with site.running():
        later = site.org.admit("node2").node_id
        site.peers.nodes = {later: {}}
        job = await hand_on(site, later)
        assert (job["state"], job["error"], job["server_name"]) == ("succeeded", None, "node2")
        assert job["params"]["secrets"] == ["bmc1", "bmc2"]
        copies = site.store.authored(site.scope, tables.SECRET_COPY)
        assert [row.key for row in copies] == [f"{later}/bmc1", f"{later}/bmc2"]
        job = await hand_on(site, later, secrets=["bmc1", "none"])
        assert (job["state"], job["params"]["secrets"]) == ("failed", ["bmc1"])
        assert job["error"] == "not released: none (nobody can open it)"
        far = site.org.admit("far1", "far").node_id
        assert (await hand_on(site, far))["error"] == "node2 is no active node of site lab"
        site.opens[site.node.node_id] = {}
        await site.until(lambda: not site.store.authored(site.scope, tables.NODE_SECRET))
        assert "no other node of site lab can open" in (await hand_on(site, later))["error"]


async def runs_elsewhere(site: WorkSite, runner: str) -> dict[str, Any]:
    """Let a job stand in the rows that another node runs and that has taken the server."""
    job = await site.end(await site.deploy())
    row = {**job, "id": site.new_id(), "runner": runner, "state": "running", "ended_ms": None}
    row["steps"] = [dict(entry) for entry in job["steps"]]
    row["steps"][-1].update(state="running", ended_ms=None)
    server = {**site.server_row(), "state": "deploy-wait", "job": row["id"]}

    def fn(tx: Any) -> None:
        tx.put(site.scope, tables.JOB, row["id"], row)
        tx.put(site.scope, tables.SERVER, site.server, server)

    await site.store.write(fn)
    return row


async def test_a_runner_that_is_gone_is_named_and_its_job_can_be_cancelled(
    tmp_path: Path,
) -> None:
    async with WorkSite(tmp_path).running() as site:
        await site.accept()
        other = site.org.admit("node2")
        row = await runs_elsewhere(site, other.node_id)
        site.peers.nodes = {}
        waiting = await site.mine("server.power", {"server": site.server, "on": True})
        await site.until(lambda: site.job(waiting).get("state") == "blocked")
        assert site.job(waiting)["waits_for"] == (
            "waits for server.deploy of srv1 to end"
            f" (its runner {other.node_id[:8]} is out of reach)"
        )
        verb = await site.mine("job.cancel", {"job": row["id"]})
        await site.until(lambda: site.work._first_seen.get(verb))
        assert site.job(verb) == {}  # it may come back: its job is its own

        gone = site.org.roster(other, "lab", ("node",), "revoked", version=2)
        site.org.register.merge(gone)
        assert (await site.end(verb))["state"] == "succeeded"
        assert site.job(row["id"])["state"] == "cancelled"
        assert (await site.end(waiting))["state"] == "succeeded"
        assert site.server_row()["state"] == "deploy-wait failed"
        await site.give("job.retry", {"job": row["id"]})
        await site.until(lambda: site.job(row["id"])["state"] == "succeeded")
        assert site.job(row["id"])["runner"] == site.node.node_id
        assert step(site.job(row["id"]), "phone-in")["state"] == "done"
