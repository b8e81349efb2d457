"""Real firmware against a node's boot services: what it asks for, in what order."""

import os
import subprocess
from pathlib import Path

import pytest
import trio

from node.boot.files import BootFiles
from node.boot.service import BootConfig
from node.proto.boot_script import wait_script
from tests.support.boot_node import SCOPE, boot_node
from tests.support.netns import entered
from tests.vm.lab import Lab, Machine

pytestmark = [pytest.mark.vm, pytest.mark.root, pytest.mark.slow]

REPOSITORY = Path(__file__).resolve().parents[2]
NODE = "10.77.0.1"
SUBNET = {
    "cidr": "10.77.0.0/24",
    "first": "10.77.0.100",
    "last": "10.77.0.199",
    "lease_s": 600,
    "salt": "5a17",
}
SCRIPT = "#!ipxe\necho THE-SCRIPT-RAN\nsleep 300\n"
FIRMWARE_S = 150.0
OVMF = Path("/usr/share/OVMF/OVMF_CODE.fd")


@pytest.fixture(scope="module")
def loaders(virtual_machines: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("loaders")
    done = subprocess.run(
        [REPOSITORY / "scripts/fetch-boot-files", folder],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        pytest.skip(done.stderr.strip().splitlines()[-1])
    return folder


async def boot(
    tmp_path: Path, loaders: Path, extra: list[str]
) -> tuple[Machine, dict[str, dict[str, int]]]:
    """Start a machine from the network, let it wait once; return when its script ran."""
    with Lab("fw", tmp_path / "lab") as lab:
        host = lab.host("node", NODE)
        machine = lab.machine("srv1")
        with entered(f"/run/netns/{host.namespace}"):
            async with boot_node(
                tmp_path,
                BootConfig(site="lab", interface="eth0"),
                subnet=SUBNET,
                files=BootFiles(loaders),
                guard_s=FIRMWARE_S,
            ) as node:
                urls = node.boot.urls(machine.mac)
                node.decisions.script = wait_script(urls, machine.mac, "please wait", 2)
                machine.start("network", extra)
                try:
                    await node.decisions.script_asked.wait()
                    node.decisions.script = SCRIPT
                    while "THE-SCRIPT-RAN" not in machine.console_path.read_text("latin-1"):
                        await trio.sleep(0.2)
                finally:
                    machine.stop()
                (binding,) = node.store.rows(SCOPE, "binding")
                asked = ("script", machine.mac, binding.body["ip"])
                assert node.decisions.asked == [asked, asked]
                (seen,) = node.store.authored(SCOPE, "sighting")
                assert seen.body["uuid"] == machine.uuid
                return machine, node.boot.statistics()


async def test_a_bios_machine_with_an_ipxe_rom_runs_its_script(
    tmp_path: Path, loaders: Path
) -> None:
    _, counts = await boot(tmp_path, loaders, [])
    assert counts["dhcp"]["ack"] == 1
    assert counts["tftp"].get("finished", 0) == 0


async def test_a_uefi_machine_gets_ipxe_by_tftp_and_runs_its_script(
    tmp_path: Path, loaders: Path
) -> None:
    if not OVMF.exists():
        pytest.skip("the UEFI firmware is missing: apt-get install ovmf")
    flash = f"if=pflash,format=raw,readonly=on,file={OVMF}"
    _, counts = await boot(
        tmp_path, loaders, ["-drive", flash, "-global", "virtio-net-pci.romfile="]
    )
    assert counts["dhcp"]["ack"] == 2
    assert counts["tftp"]["finished"] == 1
    assert counts["tftp"]["looked"] == 1
    assert "failed" not in counts["tftp"]


def test_the_repository_holds_no_loaders() -> None:
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=REPOSITORY, capture_output=True, text=True, check=True
    ).stdout.split()
    assert not [name for name in tracked if os.path.splitext(name)[1] in {".efi", ".kpxe"}]
