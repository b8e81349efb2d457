"""The hub stops, starts and changes nothing: sites work on, and it catches up."""

import json

import pytest
from demo_processes import rackmesh, wait_for

from tests.support.fleet import IMAGE, Fleet, one_sentence, run


def facts_of(site: Fleet) -> dict[str, str]:
    """What a hub must know again after a restart."""
    names = ("admin-password", "api-token")
    files = {name: (site.hub / name).read_text() for name in names}
    with site.api(site.hub) as client:
        listed = {
            noun: client.get(f"/{noun}")["items"] for noun in ("tokens", "secrets", "assets")
        }
        for token in listed["tokens"]:  # who came with it is told since the hub's start only
            for live in ("contacted_ms", "refused", "refused_ms"):
                token.pop(live)
        status = client.get("/status")["item"]
    servers = [(s["id"], s["name"], s["state"]) for s in site.get(site.hub, "/servers")]
    keys = ("node", "root_fingerprint")
    return {**files, **{noun: json.dumps(listed[noun], sort_keys=True) for noun in listed},
            "servers": str(servers), **{key: status[key] for key in keys}}  # fmt: skip


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_a_hub_that_restarts_keeps_everything_and_its_nodes_come_back(
    site: Fleet, how: str
) -> None:
    said = run("token", "create", "--site", "late", "--data", site.hub)
    before, port = facts_of(site), site.hub_port
    assert "rack-bmc" in before["secrets"]
    assert IMAGE in before["assets"]
    if how == "stop":
        site.processes.stop("hub")
        assert not (site.hub / "run" / "ports.json").exists()
    else:
        site.kill("hub")
    site.start_hub()
    assert site.hub_port == port
    for data in (site.one, site.two):
        site.wait_linked(data)
    assert facts_of(site) == before
    data = site.folder / f"late-{how}"
    joined = run("node", "join", "--token-file", "-", "--data", data, stdin=said.out)
    assert joined.code == 0, "a token from before the restart is still good"


@pytest.mark.slow
def test_a_site_works_on_without_its_hub_and_the_hub_catches_up(site: Fleet) -> None:
    site.make_available("srv1")
    site.make_available("srv2")
    site.processes.stop("hub")
    away = run("server", "list", "--data", site.hub)
    assert (away.code, str(site.hub) in one_sentence(away)) == (5, True)
    status = run("status", "--data", site.two)
    assert (status.code, "0 of 1 hubs" in status.out) == (3, True), status.out
    job = site.deploy_order("srv1", data=site.two)
    site.succeeded(job)
    assert site.disk_holds_image(0)
    mac = site.machines()[4]["mac"]
    rackmesh(
        "server", "accept", mac, "srv-late", "--wait", "--timeout", "30", "--data", site.two
    )
    said = run("asset", "add", "x", "http://127.0.0.1:1/x", "--data", site.two)
    assert said.code != 0
    assert one_sentence(said)
    site.start_hub()
    for data in (site.one, site.two):
        site.wait_linked(data)
    wait_for(
        "the hub knows what was done without it",
        lambda: (
            site.server("srv1", site.hub)["state"] == "active"
            and site.server("srv-late", site.hub)
            and site.job(job, site.hub)["state"] == "succeeded"
        ),
        30,
        site.processes,
    )
    for name in ("srv1", "srv-late"):
        here, there = site.server(name, site.two), site.server(name, site.hub)
        assert {**here, "hold": None} == {**there, "hold": None}
    assert site.job(job, site.hub) == site.job(job, site.two), "its evidence too"
    site.succeeded(site.order("server", "release", "srv1", "--yes"))
    site.no_traceback()


def test_orders_at_a_node_need_the_role_site_operator(site: Fleet) -> None:
    data = site.folder / "plain"
    site.join("three", data, "node")
    site.run_node(data)
    try:
        said = run("server", "power", "srv1", "on", "--data", data)
        assert (said.code, "site-operator" in one_sentence(said)) == (6, True), said.err
    finally:
        site.processes.stop(data.name)
