"""kill -9 in the middle of the work: it is done once, and what is on the disk is right."""

import pytest

from tests.support.fleet import Fleet, until

DEPLOY_STEPS = ("power off", "ramdisk reports", "phone-in")


def in_the_middle_of(site: Fleet, job: str, step: str) -> int:
    """Wait until the machine has begun to write or wipe, then hold it there; how far it is."""

    def begun() -> bool:
        return site.step(job, step)["state"] == "running"

    until(f"{step} has begun", begun)
    site.pause("rack")
    assert begun(), f"{step} was over before the rack was held"
    return site.step(job, step)["done"] or 0


def deployed_once(site: Fleet, job: str, server: int, starts: int) -> None:
    """Check that the job has put the right bytes there, and that the system started once."""
    item = site.succeeded(job)
    shown = site.server(f"srv{server}")
    assert (shown["state"], shown["error"]) == ("active", None)
    assert site.disk_holds_image(server - 1)
    assert site.console(server - 1).count("system is up as") == starts + 1
    later = [
        other["id"]
        for other in site.get(site.two, "/jobs")
        if other["server"] == item["server"] and other["created_ms"] >= item["created_ms"]
    ]
    assert later == [job], "one order is one job"
    until("the hub knows", lambda: site.server(shown["name"], site.hub)["state"] == "active")
    site.no_traceback()


def starts_of(site: Fleet, server: int) -> int:
    """How often the installed system has started so far."""
    site.make_available(f"srv{server}")
    return site.console(server - 1).count("system is up as")


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["hub", "node-two", "rack"])
def test_a_deploy_outlives_a_kill_while_the_image_is_written(site: Fleet, victim: str) -> None:
    starts = starts_of(site, 1)
    job = site.deploy_order("srv1")
    in_the_middle_of(site, job, "write image")
    site.kill(victim)
    if victim != "rack":
        site.go_on("rack")
    site.heal()
    deployed_once(site, job, 1, starts)


@pytest.mark.slow
@pytest.mark.parametrize("step", DEPLOY_STEPS)
def test_a_deploy_outlives_a_kill_of_the_node_at_any_step(site: Fleet, step: str) -> None:
    starts = starts_of(site, 2)
    job = site.deploy_order("srv2")
    until(f"{step} has begun", lambda: site.step(job, step)["state"] in ("running", "done"))
    site.kill("node-two")
    site.heal()
    deployed_once(site, job, 2, starts)


@pytest.mark.slow
def test_a_release_outlives_a_kill_of_the_node_while_it_wipes(site: Fleet) -> None:
    if site.server("srv1")["state"] == "available":
        site.succeeded(site.deploy_order("srv1"))
    job = site.order("server", "release", "srv1", "--yes")
    in_the_middle_of(site, job, "wipe disks")
    site.kill("node-two")
    site.go_on("rack")
    site.heal()
    site.succeeded(job)
    server = site.server("srv1")
    assert (server["state"], server["cleaned"]) == ("available", True)
    assert site.disk_is_empty(0)
    site.no_traceback()
