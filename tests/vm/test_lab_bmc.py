"""The lab's BMC really switches a machine on and off and chooses what it boots from."""

import shutil

import pytest

from tests.vm.bmcs import RedfishLab
from tests.vm.lab import MIB, Lab

pytestmark = [pytest.mark.vm, pytest.mark.root, pytest.mark.slow]

BOOT_S = 60


def test_power_and_boot_device_follow_redfish(virtual_machines, tmp_path):
    if not shutil.which("curl"):
        pytest.skip("curl is missing: apt-get install curl")
    with Lab("bmc", tmp_path / "lab") as lab:
        machine = lab.machine("srv1", 16 * MIB)
        bmc = RedfishLab(lab.host("bmc", "10.77.0.201"), [machine])

        assert bmc.power(machine) == "off"
        bmc.boot(machine, "network")
        assert '"BootSourceOverrideTarget": "Pxe"' in bmc.ask(machine, "GET")
        bmc.reset(machine, "on")
        assert bmc.power(machine) == "on"
        machine.wait_console("net0: 52:54:00:77:00:01", BOOT_S)
        bmc.reset(machine, "on")
        assert machine.console().count("SeaBIOS (version") == 1
        bmc.reset(machine, "off")
        assert bmc.power(machine) == "off"
        at = len(machine.console())
        bmc.boot(machine, "disk")
        bmc.reset(machine, "on")
        machine.wait_console("Booting from Hard Disk", BOOT_S, after=at)
    assert "net0" not in machine.console()[at:].split("Booting from Hard Disk")[0]
