"""One connection of Hypercorn's trio worker, whose answers leave whole or with the connection.

Hypercorn takes what HTTP/2 wants to send from its encoder first and waits for its turn then; a
request that is cancelled while it waits (its reader went to another page) would take the bytes
along, and every later answer's head would be read against an HPACK table (RFC 7541 section 2.2)
that the browser never got. And the whole connection fails when a WebSocket over HTTP/2
(RFC 8441) has ended and the browser's answer comes in, so none is offered: browsers then open a
connection of HTTP/1.1 for each. It knows no requests. Rule: what was encoded is sent, in order.
"""

from typing import Final

import trio
from h2.settings import SettingCodes, Settings
from hypercorn.events import Closed, Event, RawData
from hypercorn.protocol import ProtocolWrapper
from hypercorn.protocol.h2 import H2Protocol
from hypercorn.trio.tcp_server import TCPServer

SEND_S_MAX: Final = 60.0
"""A peer that takes nothing of a piece (some 16 KiB) for so long is gone."""


class WebConnection(TCPServer):
    """Serves one connection to its end."""

    _protocol: ProtocolWrapper

    @property  # the base assigns it between making it and using it: the one place to reach in
    def protocol(self) -> ProtocolWrapper:
        """The protocol that is spoken."""
        return self._protocol

    @protocol.setter
    def protocol(  # pyright: ignore[reportIncompatibleVariableOverride]
        self, wrapper: ProtocolWrapper
    ) -> None:
        inner = wrapper.protocol
        if isinstance(inner, H2Protocol):  # before its settings are sent
            inner.connection.local_settings = Settings(
                client=False,
                initial_values={
                    SettingCodes.MAX_CONCURRENT_STREAMS: inner.config.h2_max_concurrent_streams,
                    SettingCodes.MAX_HEADER_LIST_SIZE: inner.config.h2_max_header_list_size,
                },
            )
        self._protocol = wrapper

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
