"""IPMI BMCs of a lab's machines: OpenIPMI's ipmi_sim over a program that starts real QEMUs.

    bmcs = IpmiLab(lab.host("bmc", "10.77.0.201"), machines)
    bmcs.url(machines[0])            # ipmi://10.77.0.201:623; USER, PASSWORD

It orders them about by ipmitool, a client that nobody here wrote. Rules: power is switched at
once and a repeated order changes nothing, because a client repeats what is slow; a machine is
on as long as its QEMU holds a lock; all die with the lab, because each simulator lives in a
process namespace of its own.
"""

import shlex
import shutil
import time
from collections.abc import Sequence

import pytest
from ipmi_simulator import PASSWORD as SIM_PASSWORD
from ipmi_simulator import sim_files

from tests.vm.bmcs import PASSWORD, START_S, USER, Power
from tests.vm.lab import POLL_S, Boot, Host, Machine

PORT = 623
DEVICES = {"network": "pxe", "disk": "disk"}

CHASSIS = r"""#!/bin/sh
# ipmi_sim calls: chassis.sh MC get ITEM... | set ITEM VALUE...
cd "$(dirname "$0")" || exit 1
shift; verb=$1; shift
alive() { ! flock --shared --nonblock lock true; }
off() { alive && kill -9 "$(cat pid)"; flock --wait 10 lock true; }
on() {
    alive && return
    flock --wait 2 lock ./start.sh </dev/null >>qemu.log 2>&1 &
    for try in 1 2 3 4 5 6 7 8 9 10; do alive && return; sleep 0.05; done
}
case $verb in
get) for item; do case $item in
         power) alive && echo power:1 || echo power:0;;
         boot) echo "boot:$(cat boot 2>/dev/null || echo none)";;
         *) echo "$item:0";;
     esac; done;;
set) while [ $# -gt 1 ]; do case $1:$2 in
         power:1) on;;
         power:0) off;;
         reset:*) off; on;;
         boot:*) echo "$2" >boot;;
     esac; shift 2; done;;
esac
exit 0
"""

START = """#!/bin/sh
echo $$ >pid
[ "$(cat boot 2>/dev/null)" = pxe ] && exec {network}
exec {disk}
"""
"""``bootdev disk`` arrives as ``default``, so all but ``pxe`` is the disk."""


def why_not() -> str | None:
    """Return the reason why these BMCs cannot be had, None when they can."""
    for tool, package in (("ipmi_sim", "openipmi"), ("ipmitool", "ipmitool")):
        if not shutil.which(tool):
            return f"{tool} is missing: apt-get install {package}"
    return None


class IpmiLab:
    """The BMCs of some machines, one port each; ended with their lab, machines and all."""

    def __init__(self, host: Host, machines: Sequence[Machine]) -> None:
        if reason := why_not():
            pytest.skip(reason)
        assert PASSWORD == SIM_PASSWORD
        self._host = host
        self._ports = {machine.name: PORT + n for n, machine in enumerate(machines)}
        for machine in machines:
            self._start(machine)
        for machine in machines:
            self._wait_up(machine)

    def url(self, machine: Machine) -> str:
        """Return the address that ``server accept --bmc`` takes."""
        return f"ipmi://{self._host.address}:{self._ports[machine.name]}"

    def boot(self, machine: Machine, device: Boot) -> None:
        """Set what the machine boots from at its next starts."""
        self.ask(machine, "chassis", "bootdev", DEVICES[device])

    def reset(self, machine: Machine, power: Power) -> None:
        """Switch the power on, or off at once."""
        self.ask(machine, "power", power)

    def power(self, machine: Machine) -> Power:
        """Return what the BMC says now."""
        return "on" if "is on" in self.ask(machine, "power", "status") else "off"

    def ask(self, machine: Machine, *words: str) -> str:
        """Run ipmitool in the BMC's own namespace."""
        port = str(self._ports[machine.name])
        return self._host.run(
            ["ipmitool", "-I", "lanplus", "-C", "3", "-H", self._host.address, "-p", port,
             "-U", USER, "-P", PASSWORD, *words]
        )  # fmt: skip

    def _start(self, machine: Machine) -> None:
        folder = machine.folder / "bmc"
        argv = sim_files(
            folder, self._host.address, self._ports[machine.name], CHASSIS, username=USER
        )
        enter = ["ip", "netns", "exec", machine.lab.name]
        start = folder / "start.sh"
        start.write_text(
            START.format(
                network=shlex.join([*enter, *machine.argv("network")]),
                disk=shlex.join([*enter, *machine.argv("disk")]),
            )
        )
        start.chmod(0o755)
        reap = ["sh", "-c", '"$@" & wait $!', "sh"]  # the first process buries all orphans
        self._host.popen(
            ["unshare", "--pid", "--fork", "--kill-child", *reap, *argv],
            f"{machine.name}/bmc.log",
        )

    def _wait_up(self, machine: Machine) -> None:
        limit, said = time.monotonic() + START_S, ""
        while time.monotonic() < limit:
            try:
                self.ask(machine, "power", "status")
                return
            except RuntimeError as exc:
                said = str(exc)
                time.sleep(POLL_S)
        raise RuntimeError(f"the BMC of {machine.name} did not start: {said}")
