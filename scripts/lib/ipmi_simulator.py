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
sensor_add 0x20 0 1 0x01 0x01 poll 500 file "{folder}/cpu_temp"
sensor_set_threshold 0x20 0 1 settable 111000 110 100 90 00 00 00
{events} 0x20 0 1 enable scanning per-state {upper} {upper} {upper} {upper}
main_sdr_add 0x20 {cpu_temp}
sensor_add 0x20 0 2 0x04 0x01
sensor_set_threshold 0x20 0 2 settable 000011 00 00 00 00 10 15
{events} 0x20 0 2 enable scanning per-state {lower} {lower} {lower} {lower}
sensor_set_value 0x20 0 2 70 0
main_sdr_add 0x20 {fan}
sensor_add 0x20 0 3 0x08 0x6f
{events} 0x20 0 3 enable scanning per-state {two} {two} {two} {two}
sensor_set_bit 0x20 0 3 0 1 0
main_sdr_add 0x20 {supply}
sel_add 0x20 0x02 0x00 0x30 0x29 0x69 0x20 0x00 0x04 0x08 0x03 0x6f 0x01 0xff 0xff
mc_enable 0x20
"""
"""Sensors 1 to 3: a temperature read from a file (limits 90, 100, 110), a fan of 4,200 RPM
(limits 900, 600), a power supply that is present; and one entry in the event log."""
CPU_TEMP = 42
UPPER, LOWER, TWO = "000111111000000", "000000000111111", "000000000000011"


def _full(number: int, kind: int, unit: int, name: str, factor: int, mask: int) -> bytes:
    """Return a full sensor record (IPMI 2.0, table 43-1) of the form y = factor x."""
    key = bytes((0x20, 0, number))
    body = key + bytes((7, 1, 0x7F, 0x68, kind, 1, 0x80, 0x0A, 0x80, 0x7A, mask, mask))
    body += bytes((0, unit, 0, 0, factor, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 0)) + bytes(11)
    return _record(0x01, body, name)


def _compact(number: int, kind: int, name: str) -> bytes:
    """Return a compact sensor record (table 43-2) with states of its own."""
    body = bytes((0x20, 0, number, 10, 1, 0x63, 0x40, kind, 0x6F, 3, 0, 3, 0, 3, 0, 0xC0))
    return _record(0x02, body + bytes(10), name)


def _record(kind: int, body: bytes, name: str) -> bytes:
    text = name.encode()
    body += bytes((0xC0 | len(text),)) + text
    return bytes((0, 0, 0x51, kind, len(body))) + body


def _words(record: bytes) -> str:
    return " ".join(f"0x{byte:02x}" for byte in record)


def emulation(folder: Path) -> str:
    """Return the file that says what the BMC has."""
    return EMULATION.format(
        folder=folder, events="sensor_set_event_support", upper=UPPER, lower=LOWER, two=TWO,
        cpu_temp=_words(_full(1, 0x01, 1, "CPU Temp", 1, 0x38)),
        fan=_words(_full(2, 0x04, 18, "Fan 1", 60, 0x03)),
        supply=_words(_compact(3, 0x08, "PSU 1")),
    )  # fmt: skip


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
    (folder / "cpu_temp").write_text(f"{CPU_TEMP}\n")
    what = folder / "bmc.emu"
    what.write_text(emulation(folder))
    return ["ipmi_sim", "-n", "-c", str(lan), "-f", str(what), "-s", str(folder)]


def free_port() -> int:
    """Return a UDP port of loopback that was free a moment ago: ipmi_sim cannot bind port 0."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])
