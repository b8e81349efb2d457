"""An answer waits until its request has arrived whole, so that the connection lives on.

An answer that leaves before the request's body is there (a refusal, mostly) makes Hypercorn
close an HTTP/1.1 connection, and the client, which still sends, may lose the sentence or wait
on a dead connection. It knows no routes. Rule: only so much is waited for as the application
takes anyway; who sends more or slower is cut off as before.
"""

from typing import Any, Final

import trio

WAIT_S: Final = 10.0
BODY_BYTES_MAX: Final = 4 << 20
"""A body that is refused as too large is still read up to here."""


class WholeRequest:
    """The two channels of one ASGI call; give them to the application instead."""

    def __init__(self, receive: Any, send: Any) -> None:
        self.ended = False
        """Whether the whole request has arrived, or its client is gone."""
        self._receive = receive
        self._send = send
        self._enough = trio.Event()
        self._bytes = 0

    async def receive(self) -> Any:
        """Return the next event of the request, and note its end."""
        event = await self._receive()
        self._bytes += len(event.get("body", b""))
        self.ended = event["type"] != "http.request" or not event.get("more_body")
        if self.ended or self._bytes > BODY_BYTES_MAX:
            self._enough.set()
        return event

    async def send(self, event: Any) -> None:
        """Send an event of the answer, the first one once the request has arrived."""
        if event["type"] == "http.response.start":
            with trio.move_on_after(WAIT_S):
                await self._enough.wait()
        await self._send(event)
