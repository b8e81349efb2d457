"""The main job on virtual machines with real firmware: from a bare server and back to one.

Nothing stands for anything here: SeaBIOS, OVMF and iPXE boot from the node's DHCP, TFTP and
HTTP, the ramdisk is ours, one BMC speaks IPMI and one Redfish, the disk boots by itself.
"""

from pathlib import Path
from typing import Any

import pytest

from tests.vm.bmcs import RedfishLab, Together
from tests.vm.ipmi import IpmiLab
from tests.vm.lab import MIB, Lab, Machine, image_sha256, run
from tests.vm.real_site import RealSite

pytestmark = [pytest.mark.vm, pytest.mark.root, pytest.mark.slow]

UP = "RACKMESH-IMAGE-UP"
UP_S = 90.0


def check_deployed(machine: Machine, image: Path, hostname: str) -> None:
    """The machine runs from its own disk, which holds the image; nothing secret was shown."""
    machine.wait_console(f"{UP} {hostname}", UP_S)
    size = image.stat().st_size
    assert machine.disk_sha256(size) == image_sha256(image, size)
    told = [line for line in machine.console().splitlines() if line.startswith("RACKMESH")]
    assert told
    assert not [line for line in told if "cap=" in line]


def evidence(job: Any) -> dict[str, Any]:
    """Return what each step of a job left as its proof."""
    return {step["name"]: step["evidence"] for step in job["steps"]}


def test_servers_with_bios_or_uefi_go_from_bare_to_deployed_to_empty(
    boot_files, image, tmp_path
):
    with Lab("real", tmp_path / "lab") as lab:
        bios = lab.machine("bios", 128 * MIB)
        uefi = lab.machine("uefi", 128 * MIB, firmware="uefi", disk="nvme", network="pxe")
        both = (bios, uefi)
        oob = lab.host("bmc", "10.77.0.201")
        bmcs = Together((IpmiLab(oob, [bios]), [bios]), (RedfishLab(oob, [uefi]), [uefi]))
        site = RealSite([lab.host("site", "10.77.0.1")], boot_files)
        site.start()
        site.add_image("vm-os", image)

        site.discover(bmcs, *both)
        boot = site.ask("status", "--data", site.node)["item"]["services"]["boot"]
        assert boot["dhcp"]["ack"] == 5, "PXE (UEFI alone), iPXE and the ramdisk ask once each"
        assert boot["tftp"]["finished"] == boot["tftp"]["looked"] == 1, "looks, then fetches"
        assert "failed" not in boot["tftp"]
        site.accept(bmcs, *both)
        assert bios.disk_is_empty(), "accept never writes a disk"
        assert uefi.disk_is_empty(), "accept never writes a disk"

        jobs = [
            site.order("server", "deploy", machine.name, "--image", "vm-os",
                       "--hostname", f"web-{machine.name}")
            for machine in both
        ]  # fmt: skip
        for machine, job in zip(both, jobs, strict=True):
            proof = evidence(site.succeeded(job))
            assert site.state(machine.name) == "active"
            assert proof["write image"]["bytes"] == image.stat().st_size
            assert proof["write image"]["direct"] is True
            assert proof["first-boot data"]["cidata"] == "partition"
            check_deployed(machine, image, f"web-{machine.name}")
            run(["sgdisk", "-v", machine.disk])

        # a later start, when nobody knows any more what the BMC was told: network first
        starts = {machine.name: len(machine.console()) for machine in both}
        for machine in both:
            bmcs.reset(machine, "off")
            bmcs.boot(machine, "network")
            bmcs.reset(machine, "on")
        for machine in both:
            at = starts[machine.name]
            machine.wait_console(f"{UP} web-{machine.name}", 2 * UP_S, after=at)
            assert "/boot/v1/script" in machine.console()[at:], "the network was asked first"
            assert "ramdisk up" not in machine.console()[at:]

        jobs = [site.order("server", "release", machine.name, "--yes") for machine in both]
        for machine, job in zip(both, jobs, strict=True):
            wiped = evidence(site.succeeded(job))["wipe disks"]
            formatted = wiped["methods"] == "nvme-format-user-data"
            assert (wiped["nonzero"], wiped["samples"]) == (0, 256)
            assert wiped["verified_bytes"] == (0 if formatted else 128 * MIB)
            assert site.state(machine.name) == "available"
            assert bmcs.power(machine) == "off"
            assert machine.disk_is_empty()
