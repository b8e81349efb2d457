"""One small interface per capability of a BMC; `drivers.api` gives them to other rooms.

Knows no protocol. The rules: a provider says what it offers (`capabilities`), and asking it for
anything else is `NotOffered` with one sentence; reading never changes anything at the device.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from drivers.proto.health import Account, Attribute, Bios, Component, Events, Reading

Capability = Literal[
    "power", "boot", "media", "password", "sensors", "events", "bios", "firmware", "accounts"
]  # fmt: skip


class Sensors(Protocol):
    """Sensors of one server."""

    async def sensors(self) -> list[Reading]:
        """Return all readings, now."""
        ...


class EventLog(Protocol):
    """The event log of one server; it is never cleared."""

    async def events(self) -> Events:
        """Return the newest entries, newest first."""
        ...


class BiosSettings(Protocol):
    """Settings of one server's firmware, by the vendor's own names."""

    async def bios(self) -> Bios:
        """Return what holds, and what will hold after the next start."""
        ...

    async def set_bios(self, attributes: Mapping[str, Attribute]) -> Bios:
        """Have these hold from the next start on; return when they are read back so."""
        ...


class FirmwareInventory(Protocol):
    """Versions of one server's firmware."""

    async def firmware(self) -> list[Component]:
        """Return all components that the device names."""
        ...


class Accounts(Protocol):
    """The accounts of one BMC."""

    async def accounts(self) -> list[Account]:
        """Return all accounts; never a password."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Attempt:
    """One provider that was asked, and what came of it."""

    provider: str
    """Its URL, without any secret."""
    verb: str
    seconds: float
    outcome: str
    """``done``, or the sentence of what went wrong."""


class Health(Sensors, EventLog, BiosSettings, FirmwareInventory, Accounts, Protocol):
    """All that is read of a server, and the settings of its firmware."""

    async def capabilities(self) -> frozenset[Capability]:
        """Return what it offers; asks the device."""
        ...

    @property
    def attempts(self) -> Sequence[Attempt]:
        """What was tried so far, in order; empty for a provider by itself."""
        ...
