"""A real Debian, deployed by us: it comes up under its ordered name and lets the key in."""

import shutil
from pathlib import Path

import pytest

from tests.vm.bmcs import RedfishLab
from tests.vm.lab import MIB, Host, Lab, run
from tests.vm.real_site import RealSite

pytestmark = [pytest.mark.vm, pytest.mark.root, pytest.mark.slow]

DEPLOY_S = 900.0
SSH_S = 60.0


def key(folder: Path, name: str) -> Path:
    run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", folder / name])
    return folder / name


def ssh(host: Host, identity: Path, address: str, command: str) -> str:
    """Run a command on the machine, from a host on its wire; raise with what ssh said."""
    options = ("BatchMode=yes", "StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null",
               "IdentitiesOnly=yes", "ConnectTimeout=10", "LogLevel=ERROR")  # fmt: skip
    words = [word for option in options for word in ("-o", option)]
    return host.run(
        ["ssh", "-i", identity, *words, f"debian@{address}", command], SSH_S
    ).strip()


def test_a_debian_by_debootstrap_comes_up_and_answers_on_ssh_with_the_given_key(
    boot_files, debian, tmp_path
):
    if not shutil.which("ssh"):
        pytest.skip("ssh is missing: apt-get install openssh-client")
    ours, stranger = key(tmp_path, "ours"), key(tmp_path, "stranger")
    with Lab("debian", tmp_path / "lab") as lab:
        machine = lab.machine("srv1", 1024 * MIB, firmware="uefi", network="pxe")
        bmcs = RedfishLab(lab.host("bmc", "10.77.0.201"), [machine])
        operator = lab.host("operator", "10.77.0.202")
        site = RealSite([lab.host("site", "10.77.0.1")], boot_files)
        site.start()
        site.add_image("debian-12", debian)
        site.discover(bmcs, machine)
        site.accept(bmcs, machine)
        job = site.order("server", "deploy", machine.name, "--image", "debian-12",
                         "--hostname", "db-1", "--ssh-key", f"@{ours}.pub")  # fmt: skip
        site.succeeded(job, DEPLOY_S)
        assert site.state(machine.name) == "active"

        at = machine.address()
        site.wait("ssh answers", lambda: ssh(operator, ours, at, "hostname"), SSH_S)
        assert ssh(operator, ours, at, "hostname") == "db-1"
        assert ssh(operator, ours, at, "sudo -n cat /proc/1/comm") == "systemd"
        assert "Debian" in ssh(operator, ours, at, "grep PRETTY_NAME /etc/os-release")
        root_mib = int(ssh(operator, ours, at, "df --output=size -BM / | tail -1").strip("M "))
        assert root_mib > 800, "the root file system took the disk up to the first-boot data"
        with pytest.raises(RuntimeError, match="Permission denied"):
            ssh(operator, stranger, at, "hostname")
