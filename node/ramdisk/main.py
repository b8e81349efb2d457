"""Entry of the ramdisk agent: on a real machine from the kernel command line, else by call.

The kernel command line carries ``rackmesh.url=http://A:P[,http://B:P] rackmesh.mac=<boot mac>
[rackmesh.cap=<capability>]``; the environment (``RACKMESH_URL``, ...) and arguments of the same
names win over it. Rule: the capability is never printed.
"""

from collections.abc import Callable, Sequence

from node.ramdisk.client import AgentClient
from node.ramdisk.errors import Stopped
from node.ramdisk.hardware import Hardware
from node.ramdisk.work import Agent


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
