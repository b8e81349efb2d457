"""OpenIPMI's ipmi_sim: an IPMI 2.0 BMC that nobody here wrote, over a program for the chassis.

``sim_files`` writes what it needs and says how to start it; ``ipmi_sim`` runs one whose chassis
is two small files. Rule: it cannot bind port 0, so a free port is looked for and, if somebody
was quicker, another one.
"""

import shutil
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

USERNAME = "ADMIN"
PASSWORD = "lab-password"
START_S = 10.0
TRIES = 5
PING = bytes.fromhex("0600ff06000011be80000000")
"""RMCP presence ping (IPMI 2.0, 13.2.3)."""

CHASSIS = """#!/bin/sh
# ipmi_sim calls: chassis.sh MC get ITEM... | set ITEM VALUE...
cd "$(dirname "$0")" || exit 1
shift; verb=$1; shift
case $verb in
get) for item; do read -r value 2>/dev/null <"$item" || value=0
     [ "$item:$value" = boot:0 ] && value=none
     echo "$item:$value"; done;;
set) while [ $# -gt 1 ]; do echo "$2" >"$1"; shift 2; done;;
esac
exit 0
"""

LAN = """name "{name}"
set_working_mc 0x20
  chassis_control "{chassis} 0x20"
  startlan 1
    addr {address} {port}
    priv_limit admin
    allowed_auths_callback none md2 md5 straight
    allowed_auths_user none md2 md5 straight
    allowed_auths_operator none md2 md5 straight
    allowed_auths_admin none md2 md5 straight
    guid a123456789abcdefa123456789abcdef
  endlan
  user 1 true "" "" user 10 none md2 md5 straight
  user 2 true "{username}" "{password}" admin 10 none md2 md5 straight
"""

EMULATION = """mc_setbmc 0x20
mc_add 0x20 0 no-device-sdrs 0x23 9 8 0x9f 0x1291 0xf02 persist_sdr
sel_enable 0x20 1000 0x0a
mc_enable 0x20
"""


def need_ipmi_sim() -> None:
    """Skip the test where it is not installed."""
    if not shutil.which("ipmi_sim"):
        pytest.skip("ipmi_sim is missing: apt-get install openipmi")


def sim_files(folder: Path, address: str, port: int, chassis: str = CHASSIS) -> list[str]:
    """Write configuration and chassis program; return the command that serves them."""
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / "chassis.sh"
    program.write_text(chassis)
    program.chmod(0o755)
    lan = folder / "lan.conf"
    lan.write_text(
        LAN.format(name=folder.name, chassis=program, address=address, port=port,
                   username=USERNAME, password=PASSWORD)
    )  # fmt: skip
    emulation = folder / "bmc.emu"
    emulation.write_text(EMULATION)
    return ["ipmi_sim", "-n", "-c", str(lan), "-f", str(emulation), "-s", str(folder)]


def free_port() -> int:
    """Return a UDP port of loopback that was free a moment ago."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@asynccontextmanager
async def ipmi_sim(folder: Path, chassis: str = CHASSIS) -> AsyncGenerator[int]:
    """Run one on loopback; give its UDP port."""
    async with trio.open_nursery() as nursery:
        for _ in range(TRIES):
            port = free_port()
            argv = sim_files(folder, "127.0.0.1", port, chassis)
            with (folder / "ipmi_sim.log").open("wb") as log:
                process = await nursery.start(
                    lambda task_status, argv=argv, log=log: trio.run_process(
                        argv, stdout=log, stderr=log, check=False, task_status=task_status
                    )
                )
            if await _answers(port, process):
                break
        else:
            raise AssertionError((folder / "ipmi_sim.log").read_text())
        yield port
        nursery.cancel_scope.cancel()


async def _answers(port: int, process: trio.Process) -> bool:
    """Ping until it answers; False when the process has ended."""
    with trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM) as sock:
        await sock.connect(("127.0.0.1", port))
        with trio.fail_after(START_S):
            while process.poll() is None:
                with trio.move_on_after(0.1):
                    try:
                        await sock.send(PING)
                        await sock.recv(100)
                    except ConnectionRefusedError:
                        await trio.sleep(0.02)
                        continue
                    return True
    return False
