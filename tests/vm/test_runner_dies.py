"""A node that runs a job dies for good; another one of its site ends it on a real machine.

Three nodes on the machine's wire. In every run the runner dies while the image is written;
RACKMESH_RUNNER_STEPS names other steps of a deploy, as ``power off,ramdisk reports``, or all.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.vm.bmcs import RedfishLab
from tests.vm.lab import MIB, Lab, Machine
from tests.vm.real_site import RealSite
from tests.vm.test_real_machine import check_deployed

pytestmark = [pytest.mark.vm, pytest.mark.root, pytest.mark.slow]

ADDRESSES = ("10.77.0.1", "10.77.0.2", "10.77.0.3")
LINKED_S = 60.0
STEP_S = 180.0
TAKEN_S = 120.0
"""The guard time of a BMC that cannot be fenced, and what a busy machine adds."""
STEPS = (
    "power off", "boot from network", "fetch image", "ramdisk reports", "write image",
    "first-boot data", "phone-in",
)  # fmt: skip
CHOSEN = os.environ.get("RACKMESH_RUNNER_STEPS", "write image")


class Three:
    """A site of three nodes and a machine that they have accepted."""

    def __init__(self, lab: Lab, boot_files: Path, image: Path) -> None:
        self.machine: Machine = lab.machine("srv1", 192 * MIB, network="rom")
        self.bmcs = RedfishLab(lab.host("bmc", "10.77.0.201"), [self.machine])
        hosts = [lab.host(f"n{at}", address) for at, address in enumerate(ADDRESSES, 1)]
        self.site = RealSite(hosts, boot_files)
        self.site.start()
        self.whole()
        self.site.add_image("vm-os", image)
        self.site.discover(self.bmcs, self.machine)
        self.site.accept(self.bmcs, self.machine)

    def whole(self) -> None:
        """Start what is dead; wait until each node sees the two others."""
        for data in self.site.nodes:
            if not self.site.runs(data):
                self.site.start_node(data)

        def linked() -> bool:
            told = [self.site.ask("status", "--data", d)["item"] for d in self.site.nodes]
            return all(sum(p["role"] == "node" for p in one["peers"]) == 2 for one in told)

        self.site.wait("the three nodes are linked", linked, LINKED_S)

    def available(self) -> None:
        """Release the machine when it is deployed."""
        if self.site.state(self.machine.name) != "available":
            self.site.succeeded(
                self.site.order("server", "release", self.machine.name, "--yes")
            )

    def kill_runner_at(self, job: str, step: str) -> str:
        """Kill the job's runner as soon as a step has begun; return the runner."""

        def begun() -> bool:
            steps = {one["name"]: one["state"] for one in self.site.job(job)["steps"]}
            return steps[step] != "waiting"

        self.site.wait(f"{step} has begun", begun, STEP_S)
        runner = str(self.site.job(job)["runner"])
        nodes = self.site.ask("node", "list", "--data", self.site.hub)["items"]
        (name,) = [node["name"] for node in nodes if node["id"] == runner]
        self.site.kill_node(next(data for data in self.site.nodes if data.name == name))
        return runner


@pytest.fixture(scope="module")
def three(
    boot_files: Path, image: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Three]:
    with Lab("runner", tmp_path_factory.mktemp("runner") / "lab") as lab:
        yield Three(lab, boot_files, image)


@pytest.mark.parametrize("step", STEPS if CHOSEN == "all" else CHOSEN.split(","))
def test_a_deploy_ends_at_another_node_when_its_runner_dies(three, image, step):
    site, machine = three.site, three.machine
    three.whole()
    three.available()
    job = site.order("server", "deploy", machine.name, "--image", "vm-os",
                     "--hostname", "web-three")  # fmt: skip
    gone = three.kill_runner_at(job, step)
    site.wait("it was taken over", lambda: site.job(job)["runner"] != gone, TAKEN_S)
    ended = site.succeeded(job)
    assert ended["runner"] != gone
    assert site.state(machine.name) == "active"
    check_deployed(machine, image, "web-three")
