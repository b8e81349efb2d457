"""Many IPMI BMCs at once, by our driver, by pyghmi and by ipmitool (see scripts/bench).

All do the same with each BMC: log in, ask for the power, log out. ipmitool is C, one process
for each BMC, all at once and one after the other; pyghmi is its own `Command` in as many
threads as it works best with, in a process of its own; ours is one process. While BMCs hang,
the others must not notice.
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
ONE_BY_ONE = 20
"""BMCs that ipmitool asks one after the other."""
BARE = Path(__file__).with_name("bench_bare_pyghmi.py")
GOALS = {"to_pyghmi": 0.9, "to_ipmitool": 5.0}
"""Least ratios of our sessions a second to theirs, ipmitool's one after the other."""
START_S = 60.0
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


def one_by_one(ports: list[int]) -> float:
    """Return the sessions a second of ipmitool, one after the other."""
    some = ports[:ONE_BY_ONE]
    return len(some) / sum(by_ipmitool([port]) for port in some)


def by_bare_pyghmi(ports: list[int]) -> dict[str, Any]:
    """Return {"took_s", "failed"} of pyghmi alone; a process of its own, for its tables."""
    done = subprocess.run(
        [sys.executable, str(BARE), *map(str, ports)], capture_output=True, text=True,
        check=True, timeout=300,
    )  # fmt: skip
    found: dict[str, Any] = json.loads(done.stdout)
    return found


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
            ours, theirs, beside_hung, each, late, bare = [], [], [], [], [], []
            single_per_s = one_by_one(ports)
            for _ in range(ROUNDS):
                bare.append(by_bare_pyghmi(ports))
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
    bare_s = sorted(one["took_s"] for one in bare)[middle]
    per_s, bare_per_s = count / ours_s, count / bare_s
    return {
        "sessions_per_s": round(per_s, 1),
        "bare_pyghmi_per_s": round(bare_per_s, 1),
        "bare_pyghmi_failed": sum(one["failed"] for one in bare),
        "ipmitool_per_s": round(single_per_s, 1),
        "to_pyghmi": round(per_s / bare_per_s, 2),
        "to_ipmitool": round(per_s / single_per_s, 2),
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
    parser.add_argument("--bmcs", type=int, default=100, help="BMCs that answer")
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
    missed = [goal for goal, least in GOALS.items() if figures[goal] < least]
    if missed:
        say(f"rackmesh: missed {', '.join(f'{goal} >= {GOALS[goal]}' for goal in missed)}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
