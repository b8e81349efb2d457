"""Many IPMI BMCs at once, by our driver and by ipmitool in the same run (see scripts/bench).

Both do the same with each BMC: log in, ask for the power, log out. ipmitool is C, one process
for each BMC, all at once; ours is one process. While BMCs hang, the others must not notice.
"""

import argparse
import json
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import trio
from demo_processes import say
from ipmi_simulator import PASSWORD, PING, USERNAME, free_port, sim_files

from drivers.api import BmcCredentials, BmcLimits, open_bmc

ROUNDS = 5
START_S = 20.0
TICK_S = 0.01
WHO = BmcCredentials(username=USERNAME, password=PASSWORD)


def start(folder: Path, count: int) -> dict[int, "subprocess.Popen[bytes]"]:
    """Start simulators and wait until each answers; return them by port."""
    running = {}
    for number in range(count):
        port = free_port()
        argv = sim_files(folder / f"bmc{number}", "127.0.0.1", port)
        running[port] = subprocess.Popen(
            argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
    until = time.monotonic() + START_S
    for port, process in running.items():
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.connect(("127.0.0.1", port))
            sock.settimeout(0.1)
            while True:
                if process.poll() is not None or time.monotonic() > until:
                    raise SystemExit(f"rackmesh: ipmi_sim at port {port} does not answer")
                try:
                    sock.send(PING)
                    sock.recv(100)
                    break
                except OSError:
                    time.sleep(0.02)
    return running


def by_ipmitool(ports: list[int]) -> float:
    """Return the seconds that ipmitool takes for all, one process each, all at once."""
    began = time.monotonic()
    running = [
        subprocess.Popen(
            ["ipmitool", "-I", "lanplus", "-C", "3", "-H", "127.0.0.1", "-p", str(port),
             "-U", USERNAME, "-E", "power", "status"],
            env={"IPMI_PASSWORD": PASSWORD, "PATH": "/usr/bin:/bin"}, stdout=subprocess.PIPE,
        )
        for port in ports
    ]  # fmt: skip
    for process in running:
        said, _ = process.communicate()
        if b"Power is" not in said:
            raise SystemExit("rackmesh: ipmitool failed")
    return time.monotonic() - began


async def by_us(ports: list[int], hung: list[int]) -> tuple[float, list[float], float]:
    """Return seconds for all of ``ports``, for each, and the worst lateness of the loop."""
    each: list[float] = []
    late_s = 0.0

    async def tick() -> None:
        nonlocal late_s
        while True:
            due = trio.current_time() + TICK_S
            await trio.sleep_until(due)
            late_s = max(late_s, trio.current_time() - due)

    async def ask(port: int) -> None:
        began = time.monotonic()
        async with open_bmc(f"ipmi://127.0.0.1:{port}", WHO, limits=BmcLimits()) as bmc:
            await bmc.power_state()
        each.append(time.monotonic() - began)

    async with trio.open_nursery() as nursery:
        for port in hung:
            nursery.start_soon(ask, port)
        nursery.start_soon(tick)
        await trio.sleep(TICK_S * 5)
        late_s = 0.0
        began = time.monotonic()
        async with trio.open_nursery() as all_of_them:
            for port in ports:
                all_of_them.start_soon(ask, port)
        took_s = time.monotonic() - began
        nursery.cancel_scope.cancel()
    return took_s, each, late_s


def measure(count: int, hung_count: int) -> dict[str, Any]:
    """Run everything; return the figures, medians of the rounds."""
    with tempfile.TemporaryDirectory(prefix="rackmesh-bmc-") as name:
        running = start(Path(name), count)
        mute = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(hung_count)]
        try:
            for sock in mute:
                sock.bind(("127.0.0.1", 0))
            hung = [sock.getsockname()[1] for sock in mute]
            ports = list(running)
            trio.run(by_us, ports[:1], [])  # the first time pays for the import
            ours, theirs, beside_hung, each, late = [], [], [], [], []
            for _ in range(ROUNDS):
                theirs.append(by_ipmitool(ports))
                took_s, single, late_s = trio.run(by_us, ports, [])
                ours.append(took_s)
                each += single
                late.append(late_s)
                beside_hung.append(trio.run(by_us, ports, hung)[0])
        finally:
            for process in running.values():
                process.kill()
                process.wait()
            for sock in mute:
                sock.close()
    middle = ROUNDS // 2
    ours_s, theirs_s = sorted(ours)[middle], sorted(theirs)[middle]
    return {
        "bmcs": count,
        "hung": hung_count,
        "all_s": round(ours_s, 3),
        "all_beside_hung_s": round(sorted(beside_hung)[middle], 3),
        "ipmitool_all_s": round(theirs_s, 3),
        "ratio": round(ours_s / theirs_s, 2),
        "one_p95_ms": round(1000 * sorted(each)[int(len(each) * 0.95)], 1),
        "loop_late_ms_max": round(1000 * max(late), 1),
    }


def main() -> int:
    """Print a table and the JSON object."""
    parser = argparse.ArgumentParser(prog="scripts/bench/bmc", description=__doc__)
    parser.add_argument("--bmcs", type=int, default=20, help="BMCs that answer")
    parser.add_argument("--hung", type=int, default=5, help="BMCs that do not")
    options = parser.parse_args()
    for tool, package in (("ipmi_sim", "openipmi"), ("ipmitool", "ipmitool")):
        if not shutil.which(tool):
            say(f"rackmesh: {tool} is missing: apt-get install {package}")
            return 1
    figures = measure(options.bmcs, options.hung)
    for key, value in figures.items():
        say(f"{key:<18} {value}")
    print(json.dumps(figures, sort_keys=True))
    return 0


if __name__ == "__main__":
    sys.exit(main())
