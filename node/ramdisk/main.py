"""Entry of the ramdisk agent: on a real machine from the kernel command line, else by call.

The kernel command line carries ``rackmesh.url=http://A:P[,http://B:P] rackmesh.mac=<boot mac>
[rackmesh.cap=<capability>]``; the environment (``RACKMESH_URL``, ...) and arguments of the same
names win over it. Rule: the capability is never printed.
"""

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from node.ramdisk.client import AgentClient
from node.ramdisk.errors import Stopped
from node.ramdisk.hardware import Hardware
from node.ramdisk.inventory import parse_command_line, read_nics
from node.ramdisk.real import RealHardware
from node.ramdisk.work import Agent

URLS_MAX: Final = 16
SETTLE_S: Final = 10.0
"""How long the first inventory waits for a disk; a machine may have none."""


def run_agent(
    hardware: Hardware,
    urls: Sequence[str],
    mac: str,
    capability: str | None,
    bind_address: str | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> str:
    """Run the agent; return how it ended: ``reboot``, ``poweroff`` or ``stopped``.

    Blocks, and makes no threads. ``urls`` are base URLs of nodes, best first; ``bind_address``
    is the source address of the agent's TCP connections. For ``reboot`` and ``poweroff`` the
    hardware's method was called before this returns. ``stop`` is asked at least once a second
    while the agent waits for anything; after a True the agent leaves without a word.
    """

    def check() -> None:
        if stop():
            raise Stopped("stopped")

    client = AgentClient(hardware, urls, mac.lower(), capability, bind_address, check)
    end = Agent(hardware, client, stop, bind_address).run()
    if end == "reboot":
        hardware.reboot()
    elif end == "poweroff":
        hardware.poweroff()
    return end


def settings(
    command_line: str, environ: Mapping[str, str], argv: Sequence[str]
) -> tuple[list[str], str, str | None]:
    """Return (urls, mac or "", capability) from the three places, the later ones winning."""
    found = dict(parse_command_line(command_line))
    for key in ("url", "mac", "cap"):
        if value := environ.get(f"RACKMESH_{key.upper()}"):
            found[key] = value
    found.update(parse_command_line(" ".join(argv)))
    urls = [url for url in found.get("url", "").split(",") if url][:URLS_MAX]
    return urls, found.get("mac", "").lower(), found.get("cap") or None


def main() -> int:
    """Run on the machine that booted this ramdisk."""
    command_line = Path("/proc/cmdline").read_text("ascii", "replace")
    urls, mac, capability = settings(command_line, os.environ, sys.argv[1:])
    if not urls:
        print("RACKMESH no rackmesh.url= on the kernel command line", flush=True)
        return 2
    if not mac:
        nics = read_nics("")
        mac = next((nic["mac"] for nic in nics if nic["link"]), "")
    hardware = RealHardware(mac)
    settled = hardware.now() + SETTLE_S
    while not hardware.disks() and hardware.now() < settled:
        hardware.sleep(0.5)
    hardware.say(f"agent up, {mac}, nodes {' '.join(urls)}")
    try:
        run_agent(hardware, urls, mac, capability)
    except ValueError as exc:
        hardware.say(f"rackmesh.url= cannot be used: {exc}")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
