"""A node dies for good in the middle of its jobs; the others of its site finish them."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.fleet import Fleet, run, until

LINKED_S = 60.0
TAKEN_S = 100.0
"""The guard time of a site that has only just grown, and the looks after it."""
HELD_S = 150.0
"""An order whose owner is dead waits 30 s; a node that starts while one is away 30 more."""
EACH_ONCE = [
    "power off", "boot Pxe Continuous", "power on", "boot Hdd Continuous", "power off",
    "power on",
]  # fmt: skip
"""What a deploy orders of a BMC."""
ORDER = re.compile(r'"msg": "bmc order", "server": "([^"]+)", "detail": "([^"]+)"')


class Site(Fleet):
    """Three nodes at site two."""

    def start(self) -> None:
        """Start the hub, three nodes, the rack and the origin; all is linked at the end."""
        self.more = [self.folder / "node-three", self.folder / "node-four"]
        self.start_hub()
        for place, data in enumerate([self.two, *self.more]):
            self.join("two", data, "node", "site-operator")
            self.run_node(data, *(("--subnet", "127.92.0.0/24") if place == 0 else ()))
        self.start_rack(self.two, *self.more)
        self.start_origin()
        until("all are linked", self.all_linked, LINKED_S)
        self.register_image("two")

    def all_linked(self) -> bool:
        """Say whether each node sees the two others."""
        told = [self.status(data) for data in self.nodes]
        return all(s and sum(p["role"] == "node" for p in s["peers"]) == 2 for s in told)

    @property
    def nodes(self) -> list[Path]:
        """The data folders of the site's nodes."""
        return [self.two, *self.more]

    def data_of(self, node_id: str) -> Path:
        """Return the folder of a node."""
        return next(d for d in self.nodes if self.status(d)["node"] == node_id)

    def bmc_orders(self, server: int, after: int) -> list[str]:
        """Return what a server's BMC was ordered, from a place in the rack's log on."""
        found = ORDER.findall(self.log("rack")[after:])
        return [what for name, what in found if name == f"sim-{server}"]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    made = Site(tmp_path_factory.mktemp("takeover") / "fleet", servers=2)
    try:
        made.start()
        made.accept(2)
        yield made
    finally:
        made.processes.stop_all()


@pytest.mark.slow
def test_another_node_ends_the_deploys_of_one_that_dies_for_good(site: Site) -> None:
    at = len(site.log("rack"))
    jobs = [site.deploy_order(f"srv{number}") for number in (1, 2)]
    until("the first writes", lambda: site.step(jobs[0], "write image")["state"] == "running")
    site.pause("rack")  # it stands still in the middle
    runner = site.job(jobs[0])["runner"]
    victim = site.data_of(runner)
    left = [data for data in site.nodes if data != victim]
    site.kill(victim.name)
    until("it was taken over", lambda: site.job(jobs[0], left[0])["runner"] != runner, TAKEN_S)
    site.go_on("rack")
    for number, job in enumerate(jobs, 1):
        item = site.ended(job, data=left[0])
        assert (item["state"], item["error"]) == ("succeeded", None)
        assert item["runner"] != runner
        assert site.disk_holds_image(number - 1)
        assert site.bmc_orders(number, at) == EACH_ONCE
        assert site.console(number - 1).count("system is up as") == 1
    assert "taken over" in run("job", "logs", jobs[0], "--data", left[0]).out
    orders = len(site.log("rack"))
    site.run_node(victim)
    until("it is back", site.all_linked, LINKED_S)
    until("it knows", lambda: site.job(jobs[0], victim)["state"] == "succeeded")
    assert not ORDER.findall(site.log("rack")[orders:]), "it does nothing of it again"
    site.no_traceback()


@pytest.mark.slow
def test_a_node_that_stood_still_leaves_its_job_to_who_took_it(site: Site) -> None:
    site.make_available("srv1")
    job = site.deploy_order("srv1")
    until("it writes", lambda: site.step(job, "write image")["state"] == "running")
    site.pause("rack")
    runner = site.job(job)["runner"]
    victim = site.data_of(runner)
    left = next(data for data in site.nodes if data != victim)
    site.pause(victim.name)
    until("it was taken over", lambda: site.job(job, left)["runner"] != runner, TAKEN_S)
    site.go_on("rack")
    site.go_on(victim.name)
    item = site.ended(job, data=left)
    assert (item["state"], item["error"]) == ("succeeded", None)
    until("all say the same", lambda: site.job(job, victim)["runner"] == item["runner"])
    assert site.disk_holds_image(0)
    site.no_traceback()


@pytest.mark.slow
def test_one_node_of_three_says_that_jobs_stand_still_until_another_is_back(site: Site) -> None:
    left, first, second = site.nodes
    for data in (first, second):
        site.kill(data.name)
    sentence = "jobs stand still: 1 of 3 nodes of the site answer"
    until("it says so", lambda: sentence in str(site.status(left)["problems"]), LINKED_S)
    job = site.order("server", "power", "srv2", "on", data=left)
    site.run_node(first)
    until("it is over", lambda: "stand still" not in str(site.status(left)), LINKED_S)
    item = site.ended(job, HELD_S, left)
    assert (item["state"], item["error"]) == ("succeeded", None)
    site.run_node(second)
    site.no_traceback()
