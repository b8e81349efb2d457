"""Several ways to one BMC, tried in order, with a record of each attempt.

Knows no protocol. The rule: another way is tried only when one does not offer what is asked
for or cannot be reached; a refusal stands, because the same login refused twice locks accounts.
Orders are absolute, so one whose outcome is unknown may be given again by another way.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar

import trio

from drivers.capabilities import Attempt, Capability
from drivers.errors import DeviceUnreachable, DriverError, NotOffered
from drivers.proto.health import Account, Attribute, Bios, Component, Events, Reading

if TYPE_CHECKING:
    from drivers.api import Bmc, BootDevice, BootTarget, PowerState

T = TypeVar("T")
PROVIDERS_MAX: Final = 4
ATTEMPTS_MAX: Final = 64
"""Newest attempts that are remembered."""


class Providers:
    """One server through whichever provider can; one caller at a time."""

    def __init__(self, providers: "Sequence[Bmc]", unfit: Sequence[Attempt] = ()) -> None:
        """``unfit`` are those that could not be opened."""
        assert 0 < len(providers) <= PROVIDERS_MAX
        self._providers = providers
        self._attempts = list(unfit)

    @property
    def url(self) -> str:
        """Where the first one is; without any secret."""
        return self._providers[0].url

    @property
    def attempts(self) -> Sequence[Attempt]:
        """What was tried so far, in order."""
        return tuple(self._attempts)

    async def capabilities(self) -> frozenset[Capability]:
        """Return what any of them offers; those out of reach offer nothing now."""
        found: frozenset[Capability] = frozenset()
        failed: DriverError | None = None
        for provider in self._providers:
            try:
                found |= await self._try(provider, "capabilities", lambda p: p.capabilities())
            except DeviceUnreachable as exc:
                failed = exc
        if not found and failed is not None:
            raise failed
        return found

    async def power_state(self) -> "PowerState":
        """Return what the device says now."""
        return await self._first("power_state", lambda p: p.power_state())

    async def set_power(self, on: bool) -> None:
        """Bring the power to on, or to off at once."""
        await self._first("set_power", lambda p: p.set_power(on))

    async def set_boot(self, device: "BootTarget", *, uefi: bool | None = None) -> None:
        """Boot from the network or from the first disk, from the next start on."""
        await self._first("set_boot", lambda p: p.set_boot(device, uefi=uefi))

    async def boot_device(self) -> "BootDevice":
        """Return what is set now."""
        return await self._first("boot_device", lambda p: p.boot_device())

    async def insert_medium(self, url: str) -> None:
        """Put the image at this URL into the virtual drive."""
        await self._first("insert_medium", lambda p: p.insert_medium(url))

    async def eject_medium(self) -> None:
        """Empty the virtual drive."""
        await self._first("eject_medium", lambda p: p.eject_medium())

    async def inserted_medium(self) -> str | None:
        """Return what is in the virtual drive."""
        return await self._first("inserted_medium", lambda p: p.inserted_medium())

    async def inventory(self) -> dict[str, Any]:
        """Return what the server is made of."""
        return await self._first("inventory", lambda p: p.inventory())

    @property
    def fences(self) -> bool:
        """Whether each way is one that ``fence`` can shut."""
        return all(provider.fences for provider in self._providers)

    async def fence(self) -> bool:
        """Shut every way that can be shut; False when one stays open."""
        failed: DriverError | None = None
        shut: list[bool] = []
        for provider in self._providers:
            try:
                shut.append(await self._try(provider, "fence", lambda p: p.fence()))
            except DeviceUnreachable as exc:
                failed = exc
        if not shut and failed is not None:
            raise failed
        return len(shut) == len(self._providers) and all(shut)

    async def set_password(self, password: str) -> None:
        """Give our own account another password."""
        await self._first("set_password", lambda p: p.set_password(password))

    async def sensors(self) -> list[Reading]:
        """Return all readings, now."""
        return await self._first("sensors", lambda p: p.sensors())

    async def events(self) -> Events:
        """Return the newest entries of the event log."""
        return await self._first("events", lambda p: p.events())

    async def bios(self) -> Bios:
        """Return the firmware's settings."""
        return await self._first("bios", lambda p: p.bios())

    async def set_bios(self, attributes: Mapping[str, Attribute]) -> Bios:
        """Have these settings hold from the next start on."""
        return await self._first("set_bios", lambda p: p.set_bios(attributes))

    async def firmware(self) -> list[Component]:
        """Return the versions of the firmware."""
        return await self._first("firmware", lambda p: p.firmware())

    async def accounts(self) -> list[Account]:
        """Return the BMC's accounts."""
        return await self._first("accounts", lambda p: p.accounts())

    async def _first(self, verb: str, act: "Callable[[Bmc], Awaitable[T]]") -> T:
        failed: DriverError | None = None
        for provider in self._providers:
            try:
                return await self._try(provider, verb, act)
            except (NotOffered, DeviceUnreachable) as exc:
                # out of reach says more than "has none": the one that has it may be it
                if failed is None or isinstance(exc, DeviceUnreachable):
                    failed = exc
        assert failed is not None
        raise failed

    async def _try(self, provider: "Bmc", verb: str, act: "Callable[[Bmc], Awaitable[T]]") -> T:
        began, outcome = trio.current_time(), "cancelled"
        try:
            found = await act(provider)
            outcome = "done"
        except DriverError as exc:
            outcome = str(exc)
            raise
        finally:
            seconds = round(trio.current_time() - began, 3)
            self._attempts.append(
                Attempt(provider=provider.url, verb=verb, seconds=seconds, outcome=outcome)
            )
            del self._attempts[:-ATTEMPTS_MAX]
        return found
