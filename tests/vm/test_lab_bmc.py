"""The lab's BMCs really switch a machine on and off and choose what it boots from."""

import shutil
from pathlib import Path

import pytest

from tests.vm.bmcs import RedfishLab
from tests.vm.ipmi import IpmiLab
from tests.vm.lab import MIB, Lab

pytestmark = [pytest.mark.vm, pytest.mark.root, pytest.mark.slow]

BOOT_S = 60


KINDS = {
    "redfish": (RedfishLab, '"BootSourceOverrideTarget": "Pxe"', ("GET",)),
    "ipmi": (IpmiLab, "Force PXE", ("chassis", "bootparam", "get", "5")),
}


def left_running(folder: Path) -> list[str]:
    """Return the command lines that still name a folder."""
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue  # it ended meanwhile
        if str(folder) in line:
            lines.append(line)
    return lines


@pytest.mark.parametrize("kind", KINDS)
def test_power_and_boot_device_follow_the_bmc(kind, virtual_machines, tmp_path):
    if not shutil.which("curl"):
        pytest.skip("curl is missing: apt-get install curl")
    make, says_network, look = KINDS[kind]
    with Lab("bmc", tmp_path / "lab") as lab:
        machine = lab.machine("srv1", 16 * MIB)
        bmc = make(lab.host("bmc", "10.77.0.201"), [machine])

        assert bmc.power(machine) == "off"
        bmc.boot(machine, "network")
        assert says_network in bmc.ask(machine, *look)
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
    assert left_running(tmp_path) == []
