"""A site in the dark, a node whose state is gone: orders wait, rows come back."""

from collections.abc import Generator

import pytest
from demo_processes import rackmesh, wait_for

from tests.support.fleet import Fleet, fleet, run


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Generator[Fleet]:
    """A hub, two sites with a node each, two machines at site two."""
    with fleet(tmp_path_factory.mktemp("dark"), servers=2, image_mib=24) as made:
        made.start_sites()
        made.register_image()
        made.accept(1)
        yield made


def reached(pair: Fleet, site: str) -> bool:
    """Tell whether the hub has a link to a node of a site."""
    nodes = pair.get(pair.hub, "/nodes")
    return any(node["site"] == site and node["reachable"] for node in nodes)


@pytest.mark.slow
def test_an_order_for_a_dark_site_waits_at_the_hub_and_is_carried_out_once(pair: Fleet) -> None:
    pair.processes.stop(pair.two.name)
    wait_for("the hub misses site two", lambda: not reached(pair, "two"), 30, pair.processes)
    job = pair.deploy_order("srv1")
    said = pair.job(job, pair.hub)
    assert said["state"] == "queued"
    assert "two" in said["waits_for"]
    again = run("server", "deploy", "srv1", "--image", "demo-os", "--data", pair.hub, "--wait",
                "--timeout", "1")  # fmt: skip
    assert again.code == 8, again.err
    late = pair.order("server", "power", "srv1", "on", "--yes", "--valid-s", "1")
    wait_for(
        "the hub says that it ran out",
        lambda: pair.job(late, pair.hub)["state"] == "failed",
        30,
        pair.processes,
    )
    assert "ran out of time before a node of site two" in pair.job(late, pair.hub)["error"]
    pair.run_node(pair.two)
    assert pair.succeeded(job)["state"] == "succeeded"
    assert pair.disk_holds_image(0)
    wait_for(
        "the site says so, too",
        lambda: pair.job(late, pair.two)["runner"] is not None,
        30,
        pair.processes,
    )
    assert "ran out of time" in pair.job(late, pair.two)["error"]
    pair.no_traceback()


@pytest.mark.slow
def test_a_node_whose_state_is_gone_takes_its_rows_back_from_the_hub(pair: Fleet) -> None:
    before = pair.server("srv1", pair.two)
    wait_for(  # what nobody else holds yet is lost with the disk
        "the hub has what is lost next",
        lambda: (pair.server("srv1", pair.hub) or {}).get("state") == before["state"],
        30,
        pair.processes,
    )
    pair.processes.stop(pair.two.name)
    for path in pair.two.glob("state.db*"):
        path.unlink()
    pair.run_node(pair.two)
    wait_for(
        "the server is known again",
        lambda: run("server", "show", "srv1", "--data", pair.two).code == 0,
        30,
        pair.processes,
    )
    after = pair.server("srv1", pair.two)
    assert (after["id"], after["state"]) == (before["id"], before["state"])
    log = pair.log(pair.two.name)
    assert "state lost or restored, waiting for a peer" in log
    rackmesh("server", "power", "srv1", "off", "--wait", "--timeout", "60", "--data", pair.two)
    pair.no_traceback()


@pytest.mark.slow
def test_a_node_whose_state_is_gone_and_that_meets_nobody_says_what_it_waits_for(
    pair: Fleet,
) -> None:
    pair.processes.stop("hub")
    pair.processes.stop(pair.one.name)
    pair.processes.stop(pair.two.name)
    for path in pair.two.glob("state.db*"):
        path.unlink()
    lines = pair.log(pair.two.name).count("waiting for a peer")
    pair.processes.start(pair.two.name, *pair.node_words(pair.two))
    wait_for(
        "it says what it waits for",
        lambda: pair.log(pair.two.name).count("waiting for a peer") > lines,
        30,
        pair.processes,
    )
    pair.processes.stop(pair.two.name)
    pair.run_node(pair.two, "--force-epoch")
    assert pair.status(pair.two) is not None
