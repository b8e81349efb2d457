"""One connection of Hypercorn's trio worker, whose answers leave whole or with the connection.

Hypercorn takes what HTTP/2 wants to send from its encoder first and waits for its turn then; a
request that is cancelled while it waits (its reader went to another page) would take the bytes
along, and every later answer's head would be read against an HPACK table (RFC 7541 section 2.2)
that the browser never got. It knows no requests. Rule: what was encoded is sent, in its order.
"""

from typing import Final

import trio
from hypercorn.events import Closed, Event, RawData
from hypercorn.trio.tcp_server import TCPServer

SEND_S_MAX: Final = 60.0
"""A peer that takes nothing of a piece (some 16 KiB) for so long is gone."""


class WebConnection(TCPServer):
    """Serves one connection to its end."""

    async def protocol_send(self, event: Event) -> None:
        """Send bytes in the order of the calls, also when the caller has been cancelled."""
        if not isinstance(event, RawData):
            await super().protocol_send(event)
            return
        with trio.CancelScope(shield=True, deadline=trio.current_time() + SEND_S_MAX):
            async with self.send_lock:
                try:
                    await self.stream.send_all(event.data)
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    await self.protocol.handle(Closed())
            return
        await trio.aclose_forcefully(self.stream)
        await self.protocol.handle(Closed())
