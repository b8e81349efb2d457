"""What carries records between two machines: TCP or a WebSocket, as the shells above see it."""

from collections.abc import Iterable
from typing import Protocol

from mesh.errors import RemoteError


class CarrierLost(RemoteError):
    """The connection ended or broke; whether the last bytes arrived is unknown."""


class Carrier(Protocol):
    """One connection. One task sends, one receives."""

    @property
    def name(self) -> str:
        """``tcp``, ``websocket``, ``udp`` or ``relay NODE``."""
        ...

    @property
    def address(self) -> str:
        """The other end, for people."""
        ...

    def datagram_address(self, port: int, /) -> tuple[str, int] | None:
        """Return where the other end takes datagrams if its port is this, or None."""
        ...

    async def send(self, records: Iterable[bytes | memoryview]) -> None:
        """Send whole records in order; each is asked for when it is its turn.

        Raises CarrierLost.
        """
        ...

    async def receive(self) -> tuple[int, memoryview]:
        """Return kind and body of the next record; the body holds until the next call.

        Raises CarrierLost, and RecordError for bytes that are no record.
        """
        ...

    async def aclose(self) -> None:
        """Close at once, without waiting for the peer."""
        ...
