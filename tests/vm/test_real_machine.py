"""The main job on a virtual machine with real firmware: from a bare server and back to one.

Nothing stands for anything here: SeaBIOS and iPXE boot from the node's DHCP, TFTP and HTTP, the
ramdisk is ours, the BMC speaks Redfish, the disk boots by itself.
"""

import hashlib
from pathlib import Path

import pytest

from tests.vm.bmcs import PASSWORD, USER, RedfishLab
from tests.vm.conftest import build
from tests.vm.lab import MIB, Lab
from tests.vm.real_site import SITE, RealSite

pytestmark = [pytest.mark.vm, pytest.mark.root, pytest.mark.slow]

DISCOVER_S = 120.0
JOB_S = "240"
OFF_S = 30.0


@pytest.fixture(scope="session")
def boot_files(ramdisk: Path) -> Path:
    """A folder with the ramdisk and iPXE."""
    build(["scripts/fetch-boot-files", str(ramdisk)])
    return ramdisk


def first_bytes_sha256(path: Path, count: int, skip: set[int]) -> str:
    """Hash the first bytes of a disk, with the named sectors taken as zeros."""
    with path.open("rb") as file:
        data = bytearray(file.read(count))
    for sector in skip:
        data[sector * 512 : sector * 512 + 512] = bytes(512)
    return hashlib.sha256(data).hexdigest()


def test_a_bare_server_is_discovered_deployed_boots_phones_in_and_is_released_empty(
    boot_files, image, tmp_path
):
    with Lab("real", tmp_path / "lab") as lab:
        machine = lab.machine("srv1", 128 * MIB)
        bmc = RedfishLab(lab.host("bmc", "10.77.0.201"), [machine])
        site = RealSite(lab.host("site", "10.77.0.1"), boot_files)
        site.start()
        url = site.serve_image(image)
        site.rackmesh("asset", "add", "vm-os", url, "--want", SITE, "--data", site.hub)

        bmc.boot(machine, "network")
        bmc.reset(machine, "on")

        def seen() -> bool:
            items = site.ask("server", "pending", "--data", site.node)["items"]
            return any(item["mac"] == machine.mac and item["summary"] for item in items)

        site.wait("the machine was discovered", seen, DISCOVER_S)
        site.rackmesh("secret", "set", "bmc1", "--site", SITE, "--username", USER,
                      "--data", site.hub, stdin=PASSWORD)  # fmt: skip
        site.rackmesh("server", "accept", machine.mac, "srv1", "--bmc", bmc.url(machine),
                      "--bmc-secret", "bmc1", "--wait", "--timeout", "60",
                      "--data", site.hub)  # fmt: skip
        assert machine.disk_is_empty(), "accept never writes a disk"

        site.rackmesh("server", "deploy", "srv1", "--image", "vm-os", "--hostname", "web-1",
                      "--wait", "--timeout", JOB_S, "--data", site.hub)  # fmt: skip
        assert site.state("srv1") == "active"
        machine.wait_console("RACKMESH-IMAGE-UP web-1", OFF_S)
        moved = set(range(34))  # sector 0, the header and the entries of the GPT
        size = image.stat().st_size
        assert first_bytes_sha256(machine.disk, size, moved) == first_bytes_sha256(
            image, size, moved
        )
        told = [line for line in machine.console().splitlines() if line.startswith("RACKMESH")]
        assert told
        assert not [line for line in told if "cap=" in line]

        site.rackmesh("server", "release", "srv1", "--yes", "--wait", "--timeout", JOB_S,
                      "--data", site.hub)  # fmt: skip
        assert site.state("srv1") == "available"
        assert bmc.power(machine) == "off"
        assert machine.disk_is_empty()
