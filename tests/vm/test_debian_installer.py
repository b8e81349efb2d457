"""A real Debian installer off a node: kernel, initrd, and a preseed with a secret, once.

No mirror is reachable here, so it need not end: it has its answers when its own early command
tells the node that it has begun.
"""

from pathlib import Path

import pytest

from tests.vm.bmcs import RedfishLab
from tests.vm.conftest import REPOSITORY
from tests.vm.lab import MIB, Lab
from tests.vm.real_site import SITE, RealSite

pytestmark = [pytest.mark.vm, pytest.mark.root, pytest.mark.slow]

FILES = Path(
    "/usr/lib/debian-installer/images/12/amd64/text/debian-installer/amd64"
)  # fmt: skip
PASSWORD = "correct-horse-7"
BEGINS_S = 400.0
EXAMPLE = REPOSITORY / "mesh/cli/examples/debian-preseed.cfg"


def test_debians_installer_reads_its_preseed_once_and_begins(boot_files, tmp_path):
    if not (FILES / "linux").exists():
        pytest.skip("apt-get install debian-installer-12-netboot-amd64")
    with Lab("install", tmp_path / "lab") as lab:
        machine = lab.machine("web", 2048 * MIB, memory_mib=1024)
        bmcs = RedfishLab(lab.host("bmc", "10.77.0.201"), (machine,))
        site = RealSite([lab.host("site", "10.77.0.1")], boot_files)
        site.start()
        at_hub = ("--data", site.hub)
        site.rackmesh("secret", "set", "install-root", "--site", SITE, "--username", "root",
                      *at_hub, stdin=PASSWORD)  # fmt: skip
        site.rackmesh("asset", "add", "debian-installer", "--kernel", FILES / "linux",
                      "--initrd", FILES / "initrd.gz", "--cmdline",
                      "console=ttyS0 netcfg/no_default_route=true"
                      " netcfg/get_nameservers=10.77.0.1",
                      "--want", SITE, *at_hub)  # fmt: skip
        site.rackmesh("template", "add", "debian", EXAMPLE, *at_hub)
        site.discover(bmcs, machine)
        site.accept(bmcs, machine)
        shown = site.rackmesh("template", "render", "debian", "--server", machine.name, *at_hub)
        assert "d-i passwd/root-password password ***" in shown
        job = site.order(
            "server", "deploy", machine.name, "--installer", "debian-installer",
            "--template", "debian", "--var", "mirror=10.77.0.9",
        )  # fmt: skip

        def begun() -> bool:
            return "installs itself" in str(site.job(job)["waits_for"])

        site.wait("the installer says that it begins", begun, BEGINS_S)
        log = site.log(site.node)
        assert log.count('"answers given"') == 1
        assert '"/answers/v1/***"' in log
        assert "/answers/v1/" not in machine.console()
        for text in (log, machine.console(), site.rackmesh("job", "show", job, *at_hub)):
            assert PASSWORD not in text
