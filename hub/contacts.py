"""Which nodes the other hubs reach: a node keeps a link to one hub, and people ask any of them.

Live data, asked by rpc and never stored as rows. It knows no pages. Rules: what a hub said
counts while the link to it lives and for STALE_S after it said so; a hub may name members only,
and not more than MEMBERS_MAX.
"""

from dataclasses import dataclass, field
from typing import Any, Final

import trio

from mesh.errors import Refused, RemoteError, Unreachable
from mesh.link.level import Level
from mesh.link.peers import Peers
from mesh.proto.register import MEMBERS_MAX, Register

METHOD: Final = "hub.contacts"
ASK_S: Final = 5.0
"""How often another hub is asked, besides when links come or go here."""
ANSWER_S: Final = 5.0
STALE_S: Final = 20.0


@dataclass(slots=True)
class Contacts:
    """What other hubs said of their links."""

    register: Register
    peers: Peers
    _said: dict[str, tuple[float, frozenset[str]]] = field(default_factory=dict)
    level: Level = field(default_factory=Level)

    def handlers(self) -> dict[str, Any]:
        """Return the call that other hubs make."""
        return {METHOD: self._answer}

    def elsewhere(self) -> set[str]:
        """Return the members that another hub reaches now."""
        least = trio.current_time() - STALE_S
        return {node for at, nodes in self._said.values() if at >= least for node in nodes}

    async def run(self) -> None:
        """Ask the hubs that we are linked to, until cancelled."""
        while True:
            version = self.peers.version
            hubs = {hub.node_id for hub in self.register.hubs()} & self.peers.connected().keys()
            before = self.elsewhere()
            for gone in self._said.keys() - hubs:
                del self._said[gone]
            async with trio.open_nursery() as nursery:
                for hub in sorted(hubs):
                    nursery.start_soon(self._ask, hub)
            if self.elsewhere() != before:
                self.level.bump()
            with trio.move_on_after(ASK_S):
                await self.peers.wait_past(version)

    async def _ask(self, hub: str) -> None:
        try:
            answer = await self.peers.rpc(hub, METHOD, {}, ANSWER_S)
        except (RemoteError, Unreachable):
            return  # an older hub, or it is going
        nodes = answer.get("nodes") if isinstance(answer, dict) else None
        listed = nodes[:MEMBERS_MAX] if isinstance(nodes, list) else []
        known = self.register.active
        named = frozenset(node for node in listed if isinstance(node, str) and known(node))
        self._said[hub] = (trio.current_time(), named)

    async def _answer(self, peer: str, _body: Any) -> dict[str, Any]:
        await trio.lowlevel.checkpoint()
        if all(hub.node_id != peer for hub in self.register.hubs()):
            raise Refused("only hubs ask whom a hub reaches")
        return {"nodes": sorted(self.peers.connected())}
