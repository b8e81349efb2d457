"""scripts/demo --vm: the demo on a virtual machine with UEFI, an NVMe disk and a Redfish BMC.

Everything runs in namespaces of its own, and all of it ends with this process: so the demo
stays in the foreground. The lab is that of the tests (tests/vm/lab.py).
"""

import os
import signal
import sys
from pathlib import Path
from typing import Any

from demo import LOOPBACK, Demo, shown
from demo_processes import (
    NAMESPACES,
    ROOT,
    DemoFailed,
    Processes,
    ask,
    note_pid,
    rackmesh,
    say,
    wait_for,
)

sys.path.insert(0, str(ROOT))

from tests.support.emulator_env import NoEmulator, make_emulator
from tests.vm.bmcs import PASSWORD, USER, RedfishLab
from tests.vm.lab import MIB, Lab, image_sha256, why_not

DISK_MIB = 256
DISCOVER_S = 180
SERVER = "srv1"
POWER_ON = "power on"


def need_machines() -> None:
    """Fail with one sentence where no virtual machine can be run."""
    if reason := why_not():
        raise DemoFailed(reason)
    try:
        make_emulator()
    except NoEmulator as exc:
        raise DemoFailed(str(exc)) from exc


class VmDemo(Demo):
    """The main job on one virtual machine at site two."""

    goals = ("deployed", "released_without_hub", "hub_caught_up")
    job_s = 300

    def __init__(self, folder: Path, boot: Path, image: Path) -> None:
        super().__init__(folder, boot, image, servers=1)
        self.figures: dict[str, Any] = dict.fromkeys(self.goals, False)
        self.lab = Lab("demo", folder / "lab")
        self.outside = Processes(folder)
        self.namespace = ""

    def run(self) -> None:
        """The scenario; what the lab says when it fails becomes the one sentence."""
        note_pid(self.folder, "demo", os.getpid())
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            self.make_machine()
            self.start_all()
            self.deploy_and_release()
        except (RuntimeError, OSError) as exc:
            raise DemoFailed(str(exc)) from exc

    def make_machine(self) -> None:
        """Make the namespaces, the machine and its BMC."""
        self.lab.__enter__()
        site, bmc = self.lab.host("site", "10.77.0.1"), self.lab.host("bmc", "10.77.0.201")
        self.namespace = site.namespace
        names = (site.namespace, bmc.namespace, self.lab.name)
        (self.folder / NAMESPACES).write_text("\n".join(names))
        self.processes.prefix = ("ip", "netns", "exec", site.namespace)
        self.machine = self.lab.machine(
            SERVER, DISK_MIB * MIB, firmware="uefi", disk="nvme", network="pxe"
        )
        self.bmc = RedfishLab(bmc, [self.machine])

    def start_all(self) -> None:
        """Hub, two sites, the origin; switch the machine on."""
        say(f"starting a hub and a node at each of two sites, in namespace {self.namespace}")
        self.start_hub()
        self.start_node("one", self.one, *LOOPBACK, "--subnet", "127.81.0.0/24")
        self.start_node("two", self.two, "--interface", "eth0", "--subnet", "10.77.0.0/24")
        for data in (self.one, self.two):
            rackmesh("status", "--wait", "30", "--data", data)
        self.start_origin()
        say("switching the virtual machine on: UEFI, PXE, an NVMe disk, a Redfish BMC")
        self.bmc.boot(self.machine, "network")
        self.bmc.reset(self.machine, "on")

    def deploy_and_release(self) -> None:
        """From an image's URL to an empty disk."""
        self.register_image()
        self.accept_servers()
        size = self.figures["image_bytes"] = self.image.stat().st_size
        self.figures["image_sha256"] = image_sha256(self.image, size)
        say("deploying srv1 by an order given at the hub; site two fetches from site one")
        self.figures["disk_sha256"] = self.deploy(SERVER, self.hub)
        self.figures["deployed"] = self.figures["disk_sha256"] == self.figures["image_sha256"]
        self.figures["power_on_to_active_s"] = self.power_on_to_active_s()
        say(f"from power on to active: {self.figures['power_on_to_active_s']} s")
        say("stopping the hub; releasing srv1 by an order given at site two's own node")
        self.processes.stop("hub")
        rackmesh(
            "server", "release", SERVER, "--yes", "--wait", "--timeout", str(self.job_s),
            "--data", self.two, quiet=False,
        )  # fmt: skip
        self.figures["released_without_hub"] = self.machine.disk_is_empty()
        say("starting the hub again")
        self.start_hub()
        self.figures["hub_caught_up"] = wait_for(
            "the hub knows that srv1 is available", self.available, 60, self.processes
        )
        self.figures["origin_bytes"] = self.origin_bytes()
        residency = ask("asset", "show", "demo-os", "--data", self.hub)["item"]["sites"]
        self.figures["peer_bytes"] = sum(r["peer_bytes"] for r in residency)

    def accept_servers(self) -> None:
        """Take the machine in once it has reported."""
        say("waiting for the machine to boot off the network and report")
        wait_for("the machine was discovered", self.discovered, DISCOVER_S, self.processes)
        rackmesh(
            "secret", "set", "bmc", "--site", "two", "--username", USER, "--data", self.hub,
            stdin=PASSWORD,
        )  # fmt: skip
        rackmesh(
            "server", "accept", self.machine.mac, SERVER, "--bmc", self.bmc.url(self.machine),
            "--bmc-secret", "bmc", "--wait", "--timeout", "60", "--data", self.hub,
        )  # fmt: skip
        say(f"accepted {self.machine.mac} as {SERVER}")

    def disk_sha256(self, index: int) -> str:
        """Hash what the image wrote, without the partition table that first boot changes."""
        return self.machine.disk_sha256(self.image.stat().st_size)

    def power_on_to_active_s(self) -> float:
        """Return the time from the deploy's first power-on to its end, from the job's row."""
        jobs = ask("job", "list", "--data", self.two)["items"]
        job = next(job for job in jobs if job["kind"] == "server.deploy")
        began = next(s["started_ms"] for s in job["steps"] if s["name"] == POWER_ON)
        return round((job["ended_ms"] - began) / 1000, 1)

    def available(self) -> bool:
        """Tell whether the hub has caught up."""
        item = ask("server", "show", SERVER, "--data", self.hub)["item"]
        return bool(item["state"] == "available")

    def where_to_look(self) -> None:
        """Print what a person can try next, and wait until somebody ends the demo."""
        forward = ROOT / "scripts" / "lib" / "demo_forward.py"
        inside = f"/run/netns/{self.namespace}"
        self.outside.start("forward", sys.executable, forward, inside, str(self.hub_port))
        log = self.folder / "forward.log"
        port = wait_for(
            "the console's way in", lambda: log.read_text().strip(), 10, self.outside
        )
        password = (self.hub / "admin-password").read_text().strip()
        say(f"""
The demo is up, until you press Ctrl-C.
  console    https://127.0.0.1:{port}   user admin, password {password}
             (the browser will say that it does not know the certificate)
  try next   .venv/bin/rackmesh server deploy {SERVER} --image demo-os --wait \\
                 --data {shown(self.hub)}
  screen     {shown(self.machine.console_path)}
  logs       {shown(self.folder)}/*.log""")
        try:
            signal.pause()
        except KeyboardInterrupt:
            say("stopping")

    def close(self) -> None:
        """Stop everything, the machine and the namespaces too."""
        self.outside.stop_all()
        self.processes.stop_all()
        self.lab.close()
        for name in ("demo.pid", NAMESPACES):
            (self.folder / name).unlink(missing_ok=True)
