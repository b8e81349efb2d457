"""What the tests with virtual machines share: the built ramdisk and image, and the skip."""

import subprocess
from pathlib import Path

import pytest

from tests.support.redfish_emulator import need_emulator
from tests.vm.lab import why_not

REPOSITORY = Path(__file__).resolve().parents[2]
BUILT = REPOSITORY / ".cache/vm"
BUILD_S = 900


def build(argv: list[str]) -> None:
    """Run one of our build scripts; skip with its sentence when it cannot."""
    done = subprocess.run(
        argv, cwd=REPOSITORY, capture_output=True, text=True, timeout=BUILD_S, check=False
    )
    if done.returncode:
        pytest.skip(done.stderr.strip().splitlines()[-1])


@pytest.fixture(scope="session")
def virtual_machines() -> None:
    """Skip where no virtual machines can be run, or have no BMC."""
    if reason := why_not():
        pytest.skip(reason)
    need_emulator()


@pytest.fixture(scope="session")
def ramdisk(virtual_machines: None) -> Path:
    """A folder with vmlinuz and initrd for virtual machines."""
    build(["scripts/build-ramdisk", "--kernel", "cloud", "--output", str(BUILT / "ramdisk")])
    return BUILT / "ramdisk"


@pytest.fixture(scope="session")
def image(virtual_machines: None) -> Path:
    """A disk image that boots on BIOS and UEFI, and phones in."""
    build(["scripts/build-image", "--kind", "vm", "--output", str(BUILT / "vm.img")])
    return BUILT / "vm.img"


@pytest.fixture(scope="session")
def boot_files(ramdisk: Path) -> Path:
    """A folder with the ramdisk, iPXE and the loader of local UEFI disks."""
    build(["scripts/fetch-boot-files", str(ramdisk)])
    return ramdisk


@pytest.fixture(scope="session")
def debian(virtual_machines: None) -> Path:
    """A real Debian with cloud-init and OpenSSH."""
    build(["scripts/build-image", "--kind", "debian", "--output", str(BUILT / "debian.img")])
    return BUILT / "debian.img"
