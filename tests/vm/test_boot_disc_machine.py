"""Discs on real firmware: SeaBIOS and OVMF boot them side by side, with no DHCP anywhere.

The test's own peer stands for a node; the disc is made by the node's own code and files.
"""

from ipaddress import IPv4Address
from pathlib import Path

import pytest
import trio

from node.boot.disc import FILES, disc_body
from node.boot.files import BootFiles
from node.boot.parts_body import PartsBody
from node.proto.disc_config import MachineNetwork, ramdisk_config
from tests.vm.lab import MIB, Firmware, Lab, Machine
from tests.vm.test_ramdisk_machine import NODE, UP_S, URL, start_peer, wait_event

pytestmark = [pytest.mark.vm, pytest.mark.root, pytest.mark.slow]


def make_disc(machine: Machine, address: str, boot_files: Path) -> Path:
    """Write the disc of a machine, as its BMC would read it from the node."""
    network = MachineNetwork(
        address=IPv4Address(address), prefix=24, router=IPv4Address(NODE),
        dns=(IPv4Address(NODE),),
    )  # fmt: skip
    config = ramdisk_config([URL], machine.mac, f"capability-{machine.name}", network)
    found = [BootFiles(boot_files).get(name) for name in FILES]
    body = trio.run(disc_body, config.encode(), [file for file in found if file is not None])
    assert isinstance(body, PartsBody), body
    path = machine.folder / "disc.iso"
    with path.open("wb") as file:
        for part in body.parts:
            file.write(part.content if part.path is None else part.path.read_bytes())
    assert path.stat().st_size == body.size
    return path


def test_both_firmwares_boot_a_disc_and_the_agent_reports_from_its_address(
    boot_files: Path, tmp_path: Path
) -> None:
    with Lab("disc", tmp_path / "lab") as lab:
        config = {
            "listen": [NODE, 8470], "url": URL, "image": str(boot_files / "vmlinuz"),
            "plan": [],
        }  # fmt: skip
        log = start_peer(lab.host("node", NODE), config)
        machines: dict[str, Machine] = {}
        kinds: tuple[Firmware, ...] = ("bios", "uefi")
        for number, firmware in enumerate(kinds, 21):
            machine = lab.machine(f"srv-{firmware}", 16 * MIB, firmware=firmware)
            machines[f"10.77.0.{number}"] = machine
            disc = make_disc(machine, f"10.77.0.{number}", boot_files)
            drive = ["-drive", f"if=none,id=cd0,media=cdrom,readonly=on,file={disc}"]
            machine.start("disk", [*drive, "-device", "ide-cd,drive=cd0,bootindex=0"])
        told = wait_event(log, "hello", 2, UP_S)
        assert {one["mac"] for one in told[:2]} == {m.mac for m in machines.values()}
        for address, machine in machines.items():
            assert f"eth0 has {address}/24" in machine.console()
            assert f"capability-{machine.name}" not in machine.console()
