"""How OpenIPMI's ipmi_sim is set up: an IPMI 2.0 BMC over a program for the chassis.

It writes files and names the command that serves them; who starts it ends it. Rule: the chassis
program answers at once and a repeated order changes nothing, because clients repeat them.
"""

import socket
from pathlib import Path

USERNAME = "ADMIN"
PASSWORD = "lab-password"
PING = bytes.fromhex("0600ff06000011be80000000")
"""RMCP presence ping (IPMI 2.0, 13.2.3); a simulator that serves answers it."""

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
"""A chassis of files: ``power`` is 0 or 1, ``boot`` is none, pxe, default (the disk), ..."""

LAN = """name "{name}"
set_working_mc 0x20
  chassis_control "{chassis} 0x20"
{sol}  startlan 1
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


def sim_files(
    folder: Path,
    address: str,
    port: int,
    chassis: str = CHASSIS,
    username: str = USERNAME,
    *,
    serial: str | None = None,
) -> list[str]:
    """Write configuration and chassis program; return the command that serves them.

    ``serial`` is the server's serial port, for the console over LAN: ``tcp:ADDRESS:PORT``,
    where something listens, or the path of a terminal.
    """
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / "chassis.sh"
    program.write_text(chassis)
    program.chmod(0o755)
    lan = folder / "lan.conf"
    lan.write_text(
        LAN.format(name=folder.name, chassis=program, address=address, port=port,
                   username=username, password=PASSWORD,
                   sol=f'  sol "{serial}" 115200\n' if serial else "")
    )  # fmt: skip
    emulation = folder / "bmc.emu"
    emulation.write_text(EMULATION)
    return ["ipmi_sim", "-n", "-c", str(lan), "-f", str(emulation), "-s", str(folder)]


def free_port() -> int:
    """Return a UDP port of loopback that was free a moment ago: ipmi_sim cannot bind port 0."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])
