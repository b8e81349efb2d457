"""A node is killed at the worst moments of a boot by real firmware; the machine gets there.

Two nodes on the machine's wire. The one that the machine is sent to gets SIGKILL between OFFER
and ACK, in the middle of a boot file, in the middle of the image, and stays dead until the
machine has reported. No machine has a BMC: nobody can switch it off and on again.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mesh.proto.rendezvous import owner
from node.proto.dhcp import ACK, OFFER
from tests.vm.conftest import REPOSITORY
from tests.vm.lab import MIB, Firmware, Lab, Machine
from tests.vm.real_site import RealSite
from tests.vm.test_real_machine import UP, check_deployed, evidence

pytestmark = [pytest.mark.vm, pytest.mark.root, pytest.mark.slow]

ADDRESSES = ("10.77.0.1", "10.77.0.2")
FIRST, SECOND = ADDRESSES
PYTHON = REPOSITORY / ".venv/bin/python"
LINKED_S = 60.0
WATCH_S = 30.0
MOMENT_S = 120.0
REPORT_S = 240.0
STEP_S = 180.0
ROTTEN_AT = 4096
"""Within the first chunk of the image."""
ONLY_IPV4 = ("-fw_cfg", "name=opt/org.tianocore/IPv6PXESupport,string=n")
"""OVMF's PXE over IPv6 would wait for a minute before its HTTP boot has a turn."""


class TwoNodes:
    """A site of two nodes, and what the tests do to it."""

    def __init__(self, lab: Lab, boot_files: Path, image: Path) -> None:
        self._lab = lab
        self.image = image
        hosts = [lab.host(f"n{at}", address) for at, address in enumerate(ADDRESSES, 1)]
        self.site = RealSite(hosts, boot_files)
        self.site.start()
        self._linked()
        self.site.add_image("vm-os", image)
        nodes = self.site.ask("node", "list", "--data", self.site.hub)["items"]
        self.ids = {node["name"]: node["id"] for node in nodes}
        self._machines = 0

    def machine(self, name: str, firmware: Firmware) -> Machine:
        """Make a machine that the site sends to the first node."""
        network = "rom" if firmware == "bios" else "pxe"
        machine = self._lab.machine(name, 128 * MIB, firmware=firmware, network=network)
        self._machines += 1
        ids = [self.ids[data.name] for data in self.site.nodes]
        macs = (f"52:54:00:78:{self._machines:02x}:{last:02x}" for last in range(256))
        machine.mac = next(mac for mac in macs if owner(ids, mac) == ids[0])
        return machine

    def kill_at(self, machine: Machine, server: str, moment: str, **more: Any) -> None:
        """Have a node killed at a moment of what it does for a machine (wire.py)."""
        data = self.site.nodes[ADDRESSES.index(server)]
        config = {"interface": machine.tap, "moment": moment, "server": server,
                  "mac": machine.mac, "kill": self.site.process(data)}  # fmt: skip
        argv = ["env", f"PYTHONPATH={REPOSITORY}", PYTHON, "-m", "tests.vm.wire"]
        log = self._wire_log(machine)
        log.unlink(missing_ok=True)
        self._lab.popen([*argv, json.dumps({**config, **more})], log.name)
        self.site.wait("the wire is watched", lambda: self.wire(machine), WATCH_S)

    def wire(self, machine: Machine) -> list[dict[str, Any]]:
        """Return what was seen on the machine's wire."""
        return [json.loads(line) for line in self._wire_log(machine).read_text().splitlines()]

    def killed(self, machine: Machine, server: str) -> int:
        """Wait for the kill; return how many bytes the node had sent of what was watched."""

        def seen() -> list[dict[str, Any]]:
            return [line for line in self.wire(machine) if "killed" in line]

        (line,) = self.site.wait("the moment has come", seen, MOMENT_S)
        self.site.kill_node(self.site.nodes[ADDRESSES.index(server)])
        return int(line["bytes"])

    def reported(self, machine: Machine) -> None:
        """Wait until the ramdisk has reported to the node that is left; switch off."""

        def told() -> bool:
            items = self.site.ask("server", "pending", "--data", self.site.node)["items"]
            return any(item["mac"] == machine.mac and item["summary"] for item in items)

        self.site.wait(f"{machine.name} has reported", told, REPORT_S)
        machine.stop()

    def whole(self) -> None:
        """Start what was killed; wait until the two are as before."""
        for data in self.site.nodes:
            if not self.site.runs(data):
                self.site.start_node(data)
        self._linked()

    def holds_image(self, data: Path) -> Path | None:
        """Return the file of a node's cache that is the whole image."""
        files = (data / "cache/assets").glob("*/data")
        want = self.image.read_bytes()
        return next((file for file in files if file.read_bytes() == want), None)

    def _wire_log(self, machine: Machine) -> Path:
        return self._lab.folder / f"wire-{machine.name}.log"

    def _linked(self) -> None:
        def linked() -> bool:
            told = [self.site.ask("status", "--data", data)["item"] for data in self.site.nodes]
            return all(any(p["role"] == "node" for p in one["peers"]) for one in told)

        self.site.wait("the two nodes are linked", linked, LINKED_S)


@pytest.fixture(scope="module")
def site_of_two(
    boot_files: Path, image: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[TwoNodes]:
    """One site for all."""
    with Lab("kill", tmp_path_factory.mktemp("kill") / "lab") as lab:
        yield TwoNodes(lab, boot_files, image)


@pytest.fixture
def two(site_of_two: TwoNodes) -> TwoNodes:
    """The site with both nodes up, whatever a test has left of it."""
    site_of_two.whole()
    return site_of_two


@pytest.mark.parametrize("firmware", ["bios", "uefi"])
def test_a_node_that_dies_between_its_offer_and_the_ack_stops_no_boot(two, firmware):
    machine = two.machine(f"offer-{firmware}", firmware)
    two.kill_at(machine, FIRST, "offer")
    machine.start("network", ONLY_IPV4)
    two.killed(machine, FIRST)
    two.reported(machine)
    said = [(line["dhcp"], line["source"]) for line in two.wire(machine) if "dhcp" in line]
    assert (OFFER, FIRST) in said
    assert (ACK, SECOND) in said
    assert (ACK, FIRST) not in said


def test_a_node_that_dies_while_it_sends_the_loader_by_tftp_stops_no_boot(two):
    machine = two.machine("tftp-uefi", "uefi")
    two.kill_at(machine, FIRST, "tftp", bytes=60_000)
    machine.start("network", ONLY_IPV4)
    sent = two.killed(machine, FIRST)
    two.reported(machine)
    assert f"NBP filesize is {loader_bytes(two)} Bytes" in machine.console()
    assert 60_000 < sent < loader_bytes(two)
    assert "PXE-E" in machine.console(), "its first way failed; the next one found a node"


def loader_bytes(two: TwoNodes) -> int:
    return (two.site.boot_files / "snponly.efi").stat().st_size


def test_a_node_that_dies_while_it_sends_the_ramdisk_or_the_image_stops_no_deploy(two):
    """The runner's copy is rotten in its first chunk, so the image comes from the other node;
    when that dies, the rest is taken from the runner.
    """
    site, machine = two.site, two.machine("http-bios", "bios")
    two.kill_at(machine, FIRST, "http", path="/boot/v1/file/initrd", bytes=4 * MIB)
    machine.start("network")
    sent = two.killed(machine, FIRST)
    two.reported(machine)
    assert 4 * MIB < sent < (site.boot_files / "initrd").stat().st_size
    two.whole()
    site.rackmesh("server", "accept", machine.mac, machine.name, "--wait",
                  "--data", site.hub)  # fmt: skip
    site.wait("both hold the image", lambda: all(map(two.holds_image, site.nodes)), STEP_S)
    job = site.order("server", "deploy", machine.name, "--image", "vm-os",
                     "--hostname", "web-image")  # fmt: skip
    site.wait("it waits", lambda: "by hand" in (site.job(job)["waits_for"] or ""), STEP_S)
    runner = site.job(job)["runner"]
    (place,) = [at for at, data in enumerate(site.nodes) if two.ids[data.name] == runner]
    rotten, other = two.holds_image(site.nodes[place]), ADDRESSES[1 - place]
    assert rotten is not None
    # A node that was started anew would read the chunk before it sends it, and heal it.
    site.rackmesh("asset", "verify", "vm-os", "--data", site.nodes[place])
    with rotten.open("r+b") as file:
        file.seek(ROTTEN_AT)
        file.write(b"rotten")
    two.kill_at(machine, other, "http", path="/assets/", bytes=8 * MIB)
    at = len(machine.console())
    machine.start("network")
    sent = two.killed(machine, other)
    machine.wait_console("step write_image done", STEP_S, after=at)
    machine.wait_console(f"{UP} web-image", STEP_S, after=at)
    ended = site.succeeded(job)
    assert (ended["attempt"], ended["runner"]) == (1, runner), "nothing was begun again"
    size = two.image.stat().st_size
    assert 8 * MIB < sent < size
    assert evidence(ended)["write image"]["bytes"] == size
    assert "sent chunk 0 with wrong bytes" in machine.console()[at:]
    check_deployed(machine, two.image, "web-image")
