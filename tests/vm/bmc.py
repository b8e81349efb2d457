"""A BMC for the lab's machines: sushy-tools' Redfish emulator whose driver starts real QEMUs.

.venv-emulator/bin/python tests/vm/bmc.py CONFIG

It runs in the emulator's own environment and imports nothing of Rackmesh; CONFIG is JSON:
{"listen": [ip, port], "state": folder, "users": htpasswd file | null, "systems": [{"uuid",
"name", "mac", "mode": "Legacy" | "UEFI", "log", "argv": {"network": [...], "disk": [...]}}]}.
Rule: power is switched at once and a repeated order changes nothing; all machines die with this
process.
"""

import ctypes
import json
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from sushy_tools import error
from sushy_tools.emulator import main
from sushy_tools.emulator.resources.systems import fakedriver

PR_SET_PDEATHSIG = 1
STOP_S = 10
STARTER = ThreadPoolExecutor(1)
"""The one thread that starts machines: they die with the thread that started them."""


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class QemuDriver(fakedriver.FakeDriver):  # type: ignore[misc]
    """Systems whose power is a QEMU process and whose boot override is its command line."""

    lock = threading.RLock()
    running: dict[str, "subprocess.Popen[bytes]"] = {}  # noqa: RUF012  one per process
    boot: dict[str, str] = {}  # noqa: RUF012

    @property
    def driver(self) -> str:
        return "<qemu>"

    def get_power_state(self, identity: str) -> str:
        with self.lock:
            process = self.running.get(self._get(identity)["uuid"])
            return "On" if process is not None and process.poll() is None else "Off"

    def set_power_state(self, identity: str, state: str) -> None:
        with self.lock:
            system = self._get(identity)
            if state in ("ForceOff", "GracefulShutdown", "ForceRestart", "GracefulRestart"):
                self._off(system)
            elif state not in ("On", "ForceOn"):
                raise error.NotSupportedError(f"power state {state} is not supported")
            if state not in ("ForceOff", "GracefulShutdown"):
                self._on(system)

    def get_boot_device(self, identity: str) -> str:
        return self.boot.get(self._get(identity)["uuid"], "Hdd")

    def set_boot_device(self, identity: str, boot_source: str) -> None:
        if boot_source not in ("Pxe", "Hdd"):
            raise error.NotSupportedError(f"boot device {boot_source} is not supported")
        self.boot[self._get(identity)["uuid"]] = boot_source

    def get_boot_mode(self, identity: str) -> str:
        return str(self._get(identity)["mode"])

    def _on(self, system: dict[str, Any]) -> None:
        if self.get_power_state(system["uuid"]) == "On":
            return
        boot = "network" if self.boot.get(system["uuid"]) == "Pxe" else "disk"
        with open(system["log"], "ab") as log:
            self.running[system["uuid"]] = STARTER.submit(
                subprocess.Popen,
                system["argv"][boot],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                preexec_fn=_die_with_parent,
            ).result()

    def _off(self, system: dict[str, Any]) -> None:
        process = self.running.pop(system["uuid"], None)
        if process is not None:
            process.kill()
            process.wait(STOP_S)


def serve(config: dict[str, Any]) -> None:
    """Serve Redfish until killed."""
    fakedriver.FakeDriver = QemuDriver
    systems = [
        {**system, "power_state": "Off", "nics": [{"mac": system["mac"]}]}
        for system in config["systems"]
    ]
    extra = {
        "SUSHY_EMULATOR_FAKE_DRIVER": True,
        "SUSHY_EMULATOR_FAKE_SYSTEMS": systems,
        "SUSHY_EMULATOR_STATE_DIR": config["state"],
        "SUSHY_EMULATOR_AUTH_FILE": config.get("users"),
    }
    main.app.configure(config_file=None, extra_config=extra)
    host, port = config["listen"]
    main.app.run(host=host, port=port)


if __name__ == "__main__":
    serve(json.loads(sys.argv[1]))
