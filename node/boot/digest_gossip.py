"""Tells the other nodes of the site digests of our DHCP replies, and takes theirs.

It compares nothing (node/proto/reply_digests.py does). Rule: what cannot be told now is told
never; a peer that is away only compares less.
"""

from collections.abc import Awaitable, Callable, Collection
from functools import partial
from typing import Any, Final

import trio

from mesh.errors import MeshError, Refused
from node.boot.dhcp_alarms import DhcpAlarms

METHOD: Final = "dhcp.digests"
TELL_S: Final = 2.0
CALL_S: Final = 5.0

Rpc = Callable[[str, str, Any, float], Awaitable[Any]]
"""``await rpc(node, method, body, timeout_s)``."""


class DigestGossip:
    """The talk of one node; ``near()`` names the other nodes of its site with a link now."""

    def __init__(self, alarms: DhcpAlarms, near: Callable[[], Collection[str]]) -> None:
        self._alarms = alarms
        self._near = near

    def rpc_handlers(self) -> dict[str, Callable[[str, Any], Awaitable[Any]]]:
        """Return the call that members may make on us."""
        return {METHOD: self._take}

    async def _take(self, peer: str, body: Any) -> Any:
        if peer not in self._near():
            raise Refused("only nodes of this site compare DHCP replies")
        self._alarms.compare(peer, body)
        return {}

    async def run(self, rpc: Rpc) -> None:
        """Tell what is new every two seconds; returns only when it is cancelled."""
        while True:
            await trio.sleep(TELL_S)
            while (message := self._alarms.digests.message()) is not None:
                async with trio.open_nursery() as nursery:
                    for node in self._near():
                        nursery.start_soon(self._tell, partial(rpc, node, METHOD, message))

    async def _tell(self, call: Callable[[float], Awaitable[Any]]) -> None:
        try:
            await call(CALL_S)
        except MeshError:  # it is away, or of a version that does not compare
            pass
