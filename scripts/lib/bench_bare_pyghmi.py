"""pyghmi as it comes: log in to each BMC, ask for the power, log out; for `scripts/bench/bmc`.

A process of its own, because pyghmi keeps tables for the life of one. Arguments: the UDP ports
of loopback. Prints {"took_s", "failed"} as JSON; a session that raised counts as failed.
"""

import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor

from ipmi_simulator import PASSWORD, USERNAME
from pyghmi.ipmi.command import Command

THREADS = 32
"""With which it was fastest (1, 32 and 64 were tried)."""


def one(port: int) -> bool:
    """Do one session; tell whether it went well."""
    try:
        command = Command(
            bmc="127.0.0.1", userid=USERNAME, password=PASSWORD, port=port, keepalive=False
        )
        well = command.get_power()["powerstate"] == "off"
        command.ipmi_session.logout()
    except Exception:  # whatever it raises, the session did not do its work
        return False
    return well


def main() -> int:
    """Print the figures."""
    ports = [int(word) for word in sys.argv[1:]]
    began = time.monotonic()
    with ThreadPoolExecutor(THREADS) as pool:
        done = list(pool.map(one, ports))
    took_s = time.monotonic() - began
    print(json.dumps({"took_s": took_s, "failed": done.count(False)}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
