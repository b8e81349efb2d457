"""The simulated rack beside a node, as a process of its own.

It knows a command line, nothing of racks. Rule: a rack that ends by itself is started again.
"""

import subprocess
import sys
from pathlib import Path
from typing import Final, NoReturn

import trio

from mesh.host.log import get_log

AGAIN_S: Final = 10.0
log = get_log("node")


async def keep_rack(servers: int, data: Path) -> NoReturn:
    """Run a rack of so many servers for the node with this data folder, until cancelled."""
    words = ["rack", "simulate", str(servers), "--node-data", str(data)]
    argv = [sys.executable, "-m", "rackmesh", *words]
    while True:
        done = await trio.run_process(argv, check=False, stdin=subprocess.DEVNULL)
        log.warning("simulated rack ended", status=done.returncode)
        await trio.sleep(AGAIN_S)
