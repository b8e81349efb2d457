"""Consoles as the hub passes them on: from a WebSocket to a node of the server's site.

It knows links and who may, no BMC. Rules: the node is told who watches and whether that person
may write, and holds them to it; who may not ask any more is put out within seconds; what a
person sees or types is never kept here.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, Final, Protocol

import trio

from hub.errors import TooMany
from mesh.console_wire import STREAM, StreamWire, Wire, ended, splice
from mesh.errors import RemoteError, Unreachable
from mesh.host.log import get_log
from mesh.proto.rendezvous import ranked

WATCHERS_MAX: Final = 256
"""Consoles that pages and clients watch by this hub."""
PER_PERSON_MAX: Final = 32
CHECK_S: Final = 5.0
"""How often it is looked whether somebody may still ask."""
OPEN_S: Final = 10.0
log = get_log("console")


class Links(Protocol):
    """Who is connected, and streams to them."""

    def connected(self) -> Mapping[str, Any]: ...  # noqa: D102

    def stream(  # noqa: D102
        self, node_id: str, name: str, body: Any, timeout_s: float = 15.0
    ) -> AbstractAsyncContextManager[Any]: ...


class ConsoleDesk:
    """Passes consoles on."""

    def __init__(self, links: Links, site_nodes: Callable[[str], list[str]]) -> None:
        """``site_nodes(site)``: the active nodes of a site."""
        self._links = links
        self._site_nodes = site_nodes
        self._watching: Counter[str] = Counter()

    def check_room(self, who: str) -> None:
        """Raise TooMany when one more console is too much."""
        if self._watching[who] >= PER_PERSON_MAX or self._watching.total() >= WATCHERS_MAX:
            raise TooMany("too many consoles are open by this hub: close some", CHECK_S)

    async def watch(
        self, wire: Wire, server: Mapping[str, Any], who: str, asked: Mapping[str, bool],
        admitted: Callable[[], bool],
    ) -> None:  # fmt: skip
        """Serve one watcher to the end; ``admitted`` tells whether he may still."""
        site = str(server["site"])
        linked = self._links.connected()
        nodes = [node for node in self._site_nodes(site) if node in linked]
        if not nodes:
            text = f"no node of site {site} is in contact with this hub"
            await wire.send(ended(text, "unreachable"))
            return
        node = ranked(nodes, f"console/{server['id']}")[0]
        body = {"server": server["id"], "who": who, **asked}
        self._watching[who] += 1
        log.info("console watched", server=server["name"], user=who, node=node)
        try:
            async with self._links.stream(node, STREAM, body, OPEN_S) as stream:
                await self._carry(wire, StreamWire(stream), admitted)
        except Unreachable as exc:
            await wire.send(ended(f"node {node} is out of reach: {exc}", "unreachable"))
        except RemoteError as exc:
            await wire.send(ended(str(exc)))
        finally:
            self._watching[who] -= 1
            if not self._watching[who]:
                del self._watching[who]
            log.info("console left", server=server["name"], user=who)

    async def _carry(self, wire: Wire, stream: Wire, admitted: Callable[[], bool]) -> None:
        async with trio.open_nursery() as nursery:

            async def guard() -> None:
                while True:
                    if not admitted():
                        break
                    await trio.sleep(CHECK_S)
                nursery.cancel_scope.cancel()

            nursery.start_soon(guard)
            await splice(wire, stream)
            nursery.cancel_scope.cancel()
