"""BMCs of a lab's machines: what a test may order, and the one that speaks Redfish.

    with Lab("x", folder) as lab:
        machines = [lab.machine("srv1")]
        bmc = RedfishLab(lab.host("bmc", "10.77.0.201"), machines)
        bmc.url(machines[0])            # what ``server accept --bmc`` takes; USER, PASSWORD

``Bmcs`` is the seam: whatever protocol a BMC speaks, the scenarios order it about by these four
words. RedfishLab is one emulator process (bmc.py) in a host's namespace for some machines; it
knows bmc.py's configuration. Rule: what cannot be had here is one sentence (NoEmulator).
"""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Protocol

from tests.support.emulator_env import PYTHON, make_emulator, password_hash
from tests.vm.lab import POLL_S, Boot, Host, Machine

REPOSITORY = Path(__file__).resolve().parents[2]
USER = "admin"
PASSWORD = "lab-password"
PORT = 8000
START_S = 30.0
LOG_SHOWN = 1500
TARGETS = {"network": "Pxe", "disk": "Hdd"}

Power = Literal["on", "off"]


class Bmcs(Protocol):
    """The BMCs of some machines; all take the login USER, PASSWORD."""

    def url(self, machine: Machine) -> str:
        """Return the address that ``server accept --bmc`` takes."""
        ...

    def boot(self, machine: Machine, device: Boot) -> None:
        """Set what the machine boots from at its next starts."""
        ...

    def reset(self, machine: Machine, power: Power) -> None:
        """Switch the power on, or off at once; on when it is on changes nothing."""
        ...

    def power(self, machine: Machine) -> Power:
        """Return what the BMC says now."""
        ...


class Together:
    """BMCs of several makes as one."""

    def __init__(self, *labs: tuple[Bmcs, Sequence[Machine]]) -> None:
        self._labs = {machine.name: lab for lab, machines in labs for machine in machines}

    def url(self, machine: Machine) -> str:
        """Return the address that ``server accept --bmc`` takes."""
        return self._labs[machine.name].url(machine)

    def boot(self, machine: Machine, device: Boot) -> None:
        """Set what the machine boots from at its next starts."""
        self._labs[machine.name].boot(machine, device)

    def reset(self, machine: Machine, power: Power) -> None:
        """Switch the power on, or off at once."""
        self._labs[machine.name].reset(machine, power)

    def power(self, machine: Machine) -> Power:
        """Return what the BMC says now."""
        return self._labs[machine.name].power(machine)


class RedfishLab:
    """The BMCs of some machines; ended with their lab, and the machines with it."""

    def __init__(self, host: Host, machines: Sequence[Machine], port: int = PORT) -> None:
        make_emulator()
        self._host = host
        self._port = port
        self._state = host.lab.folder / "bmc"
        self._state.mkdir(exist_ok=True)
        self._log = host.lab.folder / "bmc.log"
        config = {
            "listen": [host.address, port],
            "state": str(self._state),
            "users": str(self._users()),
            "systems": [self._system(machine) for machine in machines],
        }
        self._process = host.popen(
            [PYTHON, REPOSITORY / "tests/vm/bmc.py", json.dumps(config)], "bmc.log"
        )
        self._wait_up()

    def url(self, machine: Machine) -> str:
        """Return the URL of the machine's ComputerSystem."""
        return f"http://{self._host.address}:{self._port}/redfish/v1/Systems/{machine.uuid}"

    def ask(self, machine: Machine, method: str, path: str = "", body: object = None) -> str:
        """Do one request from the BMC's own namespace, for tests without a driver."""
        argv = ["curl", "-fsS", "-m", "20", "-u", f"{USER}:{PASSWORD}", "-X", method]
        if body is not None:
            argv += ["-H", "Content-Type: application/json", "-d", json.dumps(body)]
        return self._host.run([*argv, self.url(machine) + path])

    def boot(self, machine: Machine, device: Boot) -> None:
        """Set what the machine boots from at its next starts."""
        target = {"BootSourceOverrideTarget": TARGETS[device]}
        boot = {"Boot": target | {"BootSourceOverrideEnabled": "Once"}}
        self.ask(machine, "PATCH", "", boot)

    def reset(self, machine: Machine, power: Power) -> None:
        """Switch the power on, or off at once."""
        kind = "On" if power == "on" else "ForceOff"
        self.ask(machine, "POST", "/Actions/ComputerSystem.Reset", {"ResetType": kind})

    def power(self, machine: Machine) -> Power:
        """Return what the BMC says now."""
        return "on" if json.loads(self.ask(machine, "GET"))["PowerState"] == "On" else "off"

    def log(self) -> str:
        """Return what the emulator said last, and whether it still runs."""
        said = self._log.read_text(errors="replace")[-LOG_SHOWN:]
        return f"BMC: exit code {self._process.poll()}\n{said}"

    def _users(self) -> Path:
        users = self._state / "htpasswd"
        users.write_text(f"{USER}:{password_hash(PASSWORD)}\n")
        return users

    def _system(self, machine: Machine) -> dict[str, object]:
        enter = ["ip", "netns", "exec", machine.lab.name]
        return {
            "uuid": machine.uuid,
            "name": machine.name,
            "mac": machine.mac,
            "mode": "UEFI" if machine.firmware == "uefi" else "Legacy",
            "log": str(machine.folder / "qemu.log"),
            "argv": {
                "network": [*enter, *machine.argv("network")],
                "disk": [*enter, *machine.argv("disk")],
            },
        }

    def _wait_up(self) -> None:
        limit = time.monotonic() + START_S
        while time.monotonic() < limit:
            text = self._log.read_text(errors="replace")
            if "Running on" in text:
                return
            if self._process.poll() is not None:
                break
            time.sleep(POLL_S)
        raise RuntimeError(f"the BMC did not start: {self.log()}")
