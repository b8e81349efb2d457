"""A virtual machine by UEFI HTTP boot at a site of two nodes, one of which dies in the middle.

The two nodes are in namespaces of their own on the machine's wire; both answer all of its
broadcasts. The one that does not run the job is killed while the image is being written.
"""

import pytest

from tests.vm.bmcs import RedfishLab
from tests.vm.lab import MIB, Lab
from tests.vm.real_site import RealSite
from tests.vm.test_real_machine import UP, UP_S, check_deployed

pytestmark = [pytest.mark.vm, pytest.mark.root, pytest.mark.slow]

ADDRESSES = ("10.77.0.1", "10.77.0.2")
LINKED_S = 60.0
STEP_S = 180.0


def test_a_deploy_by_uefi_http_boot_outlives_the_node_that_does_not_run_it(
    boot_files, image, tmp_path
):
    with Lab("two", tmp_path / "lab") as lab:
        machine = lab.machine("srv1", 192 * MIB, firmware="uefi", network="http")
        bmcs = RedfishLab(lab.host("bmc", "10.77.0.201"), [machine])
        hosts = [lab.host(f"n{at}", address) for at, address in enumerate(ADDRESSES, 1)]
        site = RealSite(hosts, boot_files)
        site.start()

        def linked() -> bool:
            told = [site.ask("status", "--data", data)["item"] for data in site.nodes]
            return all(any(p["role"] == "node" for p in one["peers"]) for one in told)

        site.wait("the two nodes are linked", linked, LINKED_S)
        site.add_image("vm-os", image)
        site.discover(bmcs, machine)
        assert site.requests("/boot/v1/file/snponly.efi") == ["HEAD", "GET"]
        dhcp = [
            site.ask("status", "--data", data)["item"]["services"]["boot"]["dhcp"]
            for data in site.nodes
        ]
        assert all(one["ack"] >= 3 for one in dhcp), "both: its firmware, iPXE, the ramdisk"
        bound = f'"mac": "{machine.mac}", "ip": "{machine.address()}"'
        assert any(bound in site.log(data) for data in site.nodes)
        site.accept(bmcs, machine)
        at = len(machine.console())
        job = site.order("server", "deploy", machine.name, "--image", "vm-os",
                         "--hostname", "web-two")  # fmt: skip
        machine.wait_console("step write_image begins", STEP_S, after=at)
        runner = site.job(job)["runner"]
        nodes = site.ask("node", "list", "--data", site.hub)["items"]
        (name,) = [node["name"] for node in nodes if node["id"] == runner]
        (other,) = [data for data in site.nodes if data.name != name]
        site.kill_node(other)
        assert site.succeeded(job)["attempt"] == 1, "nothing had to be begun again"
        check_deployed(machine, image, "web-two")

        # the node that is gone stands in the scripts; a later start passes over it
        at = len(machine.console())
        bmcs.reset(machine, "off")
        bmcs.boot(machine, "network")
        bmcs.reset(machine, "on")
        machine.wait_console(f"{UP} web-two", 2 * UP_S, after=at)
