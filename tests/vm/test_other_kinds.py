"""Images of the other kinds on real firmware: qcow2, a live system, an ISO booted as it is.

One system (the small test image) in three packings; each machine has its own firmware.
"""

import shutil
from pathlib import Path
from typing import Any

import pytest

from node.ramdisk.gpt import read_table
from tests.vm.bmcs import RedfishLab
from tests.vm.lab import MIB, Lab, image_sha256, run
from tests.vm.real_site import RealSite

pytestmark = [pytest.mark.vm, pytest.mark.root, pytest.mark.slow]

UP = "RACKMESH-IMAGE-UP"
UP_S = 120.0
GRUB_CONFIG = """\
serial --unit=0
terminal_output serial
echo RACKMESH-ISO grub runs
linux /vmlinuz console=ttyS0 quiet
initrd /initrd
boot
"""


@pytest.fixture(scope="session")
def packings(image: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The image as qcow2, its kernel and initrd, and an ISO that starts these."""
    for tool, package in (("qemu-img", "qemu-utils"), ("grub-mkrescue", "grub-common"),
                          ("xorriso", "xorriso"), ("mcopy", "mtools")):  # fmt: skip
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is missing: apt-get install {package}")
    folder = tmp_path_factory.mktemp("packings")
    run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", "-c", image, folder / "os.qcow2"],
        120.0)  # fmt: skip
    with image.open("rb") as file:

        def read(offset: int, length: int) -> bytes:
            file.seek(offset)
            return file.read(length)

        table = read_table(read, image.stat().st_size, 512)
    assert table is not None
    (boot,) = [part for part in table.partitions if part.name == "boot"]
    tree = folder / "tree"
    (tree / "boot/grub").mkdir(parents=True)
    for name in ("vmlinuz", "initrd"):
        run(["mcopy", "-i", f"{image}@@{boot.first * 512}", f"::/{name}", tree / name])
    (tree / "boot/grub/grub.cfg").write_text(GRUB_CONFIG)
    run(["grub-mkrescue", "-o", folder / "os.iso", tree], 120.0)
    return folder


def last_evidence(job: Any) -> dict[str, Any]:
    return dict(job["steps"][-1]["evidence"])


def test_a_qcow2_a_live_system_and_an_iso_run_on_real_firmware(
    boot_files, image, packings, tmp_path
):
    with Lab("kinds", tmp_path / "lab") as lab:
        disk = lab.machine("disk", 128 * MIB)
        live = lab.machine("live", 128 * MIB, firmware="uefi")
        disc = lab.machine("disc", 128 * MIB)
        every = (disk, live, disc)
        bmcs = RedfishLab(lab.host("bmc", "10.77.0.201"), every)
        site = RealSite([lab.host("site", "10.77.0.1")], boot_files)
        site.start()
        tree = packings / "tree"
        site.add_image("cloud", packings / "os.qcow2")
        for name, words in (
            ("rescue", ("--kernel", tree / "vmlinuz", "--initrd", tree / "initrd",
                        "--cmdline", "console=ttyS0 quiet")),
            ("cd", (packings / "os.iso",)),
        ):  # fmt: skip
            site.rackmesh("asset", "add", name, *words, "--want", "lab", "--data", site.hub)
        site.discover(bmcs, *every)
        site.accept(bmcs, *every)
        jobs = {
            machine: site.order("server", "deploy", machine.name, "--image", name)
            for machine, name in zip(every, ("cloud", "rescue", "cd"), strict=True)
        }

        booted = last_evidence(site.succeeded(jobs[live]))
        assert booted == {"attempt": 1, "phoned_in": True}
        live.wait_console(f"{UP} live", UP_S)
        assert live.disk_is_empty()

        read = last_evidence(site.succeeded(jobs[disc]))
        assert read["phoned_in"] is False
        assert read["read_bytes"] >= 64 << 10
        disc.wait_console(UP, UP_S)
        assert "RACKMESH-ISO grub runs" in disc.console()
        assert disc.disk_is_empty()

        for machine in (live, disc):
            assert "cap=" not in machine.console()

        site.succeeded(jobs[disk])
        disk.wait_console(f"{UP} disk", UP_S)
        size = image.stat().st_size
        assert disk.disk_sha256(size) == image_sha256(image, size)
