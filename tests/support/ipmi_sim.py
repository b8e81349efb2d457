"""OpenIPMI's ipmi_sim in a test: an IPMI 2.0 BMC that nobody here wrote.

Rule: it cannot bind port 0, so a free port is looked for and, if somebody was quicker, another.
"""

import shutil
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from ipmi_simulator import CHASSIS, PASSWORD, PING, USERNAME, free_port, sim_files

__all__ = ["CHASSIS", "PASSWORD", "USERNAME", "free_port", "ipmi_sim", "need_ipmi_sim"]

START_S = 10.0
TRIES = 5


def need_ipmi_sim() -> None:
    """Skip the test where it is not installed."""
    if not shutil.which("ipmi_sim"):
        pytest.skip("ipmi_sim is missing: apt-get install openipmi")


@asynccontextmanager
async def ipmi_sim(
    folder: Path, chassis: str = CHASSIS, serial: str | None = None
) -> AsyncGenerator[int]:
    """Run one on loopback; give its UDP port. ``serial``: see ``sim_files``."""
    async with trio.open_nursery() as nursery:
        for _ in range(TRIES):
            port = free_port()
            argv = sim_files(folder, "127.0.0.1", port, chassis, serial=serial)
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
