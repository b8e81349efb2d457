"""What did not happen on a disk is not reported as done: the counter-proof of the other tests.

One server's disk takes every write and keeps none, the other's refuses to be written. Both look
well until somebody reads back: a deploy and a release that believed the disk would be green.
"""

import pytest

from tests.vm.bmcs import RedfishLab
from tests.vm.lab import MIB, Lab, Machine
from tests.vm.real_site import RealSite

pytestmark = [pytest.mark.vm, pytest.mark.root, pytest.mark.slow]

DISK_BYTES = 64 * MIB
OLD_DATA = b"what the last tenant left " * 1000
REFUSES = '[inject-error]\nevent = "none"\niotype = "write"\nerrno = "5"\nonce = "off"\n'


def keep_nothing(machine: Machine) -> None:
    """Let the disk take every write and read as zeros."""
    machine.drive = f"driver=null-co,read-zeroes=on,size={DISK_BYTES}"


def refuse_writes(machine: Machine) -> None:
    """Let the disk fail every write; it holds somebody's data."""
    rules = machine.folder / "blkdebug.conf"
    rules.write_text(REFUSES)
    with machine.disk.open("r+b") as disk:
        disk.write(OLD_DATA)
    machine.drive = (
        f"driver=raw,file.driver=blkdebug,file.config={rules},"
        f"file.image.driver=file,file.image.filename={machine.disk}"
    )


def test_a_disk_that_keeps_nothing_is_not_deployed_and_one_that_was_not_wiped_not_released(
    boot_files, image, tmp_path
):
    with Lab("faulty", tmp_path / "lab") as lab:
        forgets = lab.machine("forgets", DISK_BYTES)
        refuses = lab.machine("refuses", DISK_BYTES, firmware="uefi")
        keep_nothing(forgets)
        refuse_writes(refuses)
        bmcs = RedfishLab(lab.host("bmc", "10.77.0.201"), [forgets, refuses])
        site = RealSite([lab.host("site", "10.77.0.1")], boot_files)
        site.start()
        site.add_image("vm-os", image)
        site.discover(bmcs, forgets, refuses)
        site.accept(bmcs, forgets, refuses)
        deploy = site.order("server", "deploy", "forgets", "--image", "vm-os")
        release = site.order("server", "release", "refuses", "--yes")

        job = site.ended(deploy)
        assert job["state"] == "failed"
        assert "does not keep its data" in job["error"], bmcs.log()
        assert site.state("forgets") == "deploying failed"

        job = site.ended(release)
        assert job["state"] == "failed"
        assert "cannot be written" in job["error"], bmcs.log()
        assert site.state("refuses") == "cleaning failed"
        assert refuses.disk.read_bytes()[: len(OLD_DATA)] == OLD_DATA
