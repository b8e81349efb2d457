"""What other rooms may use: one small interface per device capability, and how to open one.

Knows no protocol. The rule: every verb is a *set* (absolute target, safe to repeat), never a
cycle or a toggle, so that a job which died in the middle just says the same thing again.
Providers are imported when a device is opened, so that an idle node never loads them.
"""

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol, Self
from urllib.parse import urlsplit

from drivers.capabilities import Attempt, Capability, Health
from drivers.errors import DeviceRefused
from drivers.proto.health import (
    Account,
    Attribute,
    Bios,
    Certificate,
    Component,
    Events,
    LogEntry,
    Reading,
    Thresholds,
)

__all__ = [
    "Account",
    "Attempt",
    "Attribute",
    "Bios",
    "Bmc",
    "BmcCredentials",
    "BmcLimits",
    "BootDevice",
    "BootTarget",
    "Capability",
    "Certificate",
    "Component",
    "Console",
    "Dialler",
    "Events",
    "LogEntry",
    "PowerState",
    "Reading",
    "Thresholds",
    "open_bmc",
    "open_console",
    "shown_certificate",
]  # fmt: skip

PowerState = Literal["on", "off", "unknown"]
BootTarget = Literal["network", "disk", "cd"]
BootDevice = Literal["network", "disk", "cd", "other"]


class PowerControl(Protocol):
    """Power of one server."""

    async def power_state(self) -> PowerState:
        """Return what the device says now; ``unknown`` while it cannot tell."""
        ...

    async def set_power(self, on: bool) -> None:
        """Bring the power to on, or to off at once, and return when the device reports it."""
        ...


class BootOverride(Protocol):
    """What one server boots from next."""

    async def set_boot(self, device: BootTarget, *, uefi: bool | None = None) -> None:
        """Boot from the network, the first disk or the (virtual) CD, from the next start on.

        ``uefi`` says how the firmware starts machines, None when nobody has seen it: some
        BMCs must be told.
        """
        ...

    async def boot_device(self) -> BootDevice:
        """Return what is set now; ``other`` for none or anything else."""
        ...


class VirtualMedia(Protocol):
    """The virtual CD drive of one server: its BMC reads a disc image by HTTP."""

    async def insert_medium(self, url: str) -> None:
        """Put the image at this URL into the drive, in place of any other; wait until it is
        reported.

        ``url`` may hold a capability: no error of a driver repeats its last part.
        """
        ...

    async def eject_medium(self) -> None:
        """Empty the drive, and wait until the device reports it."""
        ...

    async def inserted_medium(self) -> str | None:
        """Return the URL that the device shows for what is in the drive ("" when it shows
        none); None: the drive is empty."""
        ...


class Inventory(Protocol):
    """What one server is made of, without a boot."""

    async def inventory(self) -> dict[str, Any]:
        """Return it in the shape of ``node/ramdisk/inventory.py``, with ``source``; what the
        device does not say is missing or empty."""
        ...


class Fence(Protocol):
    """Shutting out whoever used our account on one device before."""

    @property
    def fences(self) -> bool:
        """Whether the device was seen to have sessions that ``fence`` can end."""
        ...

    async def fence(self) -> bool:
        """End all other sessions of our account; what they send from now on is refused.

        False when the device has no sessions: what is under way to it cannot be stopped.
        """
        ...


class OwnPassword(Protocol):
    """The account that we speak to one device with."""

    async def set_password(self, password: str) -> None:
        """Give our own account another password; what is open may end with the old one.

        It is done when the device has accepted it: open the device anew to see that it counts.
        """
        ...


class Bmc(
    PowerControl, BootOverride, VirtualMedia, Inventory, Fence, OwnPassword, Health, Protocol
):
    """A server's management controller."""

    @property
    def url(self) -> str:
        """Where it is; without any secret."""
        ...


class Console(Protocol):
    """A server's serial console, open: what it writes, and what is typed; bytes as they are.

    One reader at a time. A DriverError ends it for good: open it anew.
    """

    @property
    def url(self) -> str:
        """The address of its BMC; without any secret."""
        ...

    async def receive(self) -> bytes:
        """Return what the server wrote since, at least one byte."""
        ...

    async def send(self, data: bytes) -> None:
        """Type characters; returns when they are queued, not when the server has them."""
        ...

    async def send_break(self) -> None:
        """Send a break; DeviceRefused where that cannot be."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class BmcCredentials:
    """Who we are to a BMC, and how we know that it is the right one."""

    username: str
    password: str = field(repr=False)
    tls_sha256: str | None = None
    """SHA-256 of the BMC's certificate (64 hex digits); None trusts the host's authorities."""

    @classmethod
    def parse(cls, value: Mapping[str, object]) -> Self:
        """Return credentials from a decoded secret; raise DeviceRefused when it is unusable."""
        username, password = value.get("username"), value.get("password")
        if not isinstance(username, str) or not isinstance(password, str):
            raise DeviceRefused("a BMC secret must have a 'username' and a 'password', as text")
        pin = value.get("tls_sha256")
        if pin is None or pin == "":
            return cls(username=username, password=password)
        digits = pin.replace(":", "").lower() if isinstance(pin, str) else ""
        if len(digits) != 64 or set(digits) - set("0123456789abcdef"):
            raise DeviceRefused("tls_sha256 of a BMC secret must be 64 hexadecimal digits")
        return cls(username=username, password=password, tls_sha256=digits)


def always() -> bool:
    """Let everything be sent."""
    return True


@dataclass(frozen=True, kw_only=True, slots=True)
class BmcLimits:
    """How long a BMC may take. Every verb ends within the sum of what it does."""

    request_s: float = 15.0
    """One request with its whole answer; for IPMI also a login, or a command with its
    repetitions."""
    power_wait_s: float = 90.0
    """From a power order until the BMC reports it; longer than any was seen to take."""
    boot_wait_s: float = 15.0
    """From a boot order until the BMC reports it."""
    media_wait_s: float = 120.0
    """From an order to insert or eject until the BMC reports it: some read the whole image
    first."""
    report_s: float = 60.0
    """All sensors, an event log or another list; begun requests are let end."""
    poll_s: float = 1.0
    """Between two looks at a state that we wait for; the first looks come sooner."""
    may_send: Callable[[], bool] = always
    """Asked right before each message, also from other threads; False ends the verb with
    DeviceRefused, since somebody else may drive the device by now."""


@asynccontextmanager
async def open_bmc(
    url: str,
    credentials: BmcCredentials | Mapping[str, object],
    *,
    local_address: str | None = None,
    limits: BmcLimits | None = None,
) -> AsyncGenerator[Bmc]:
    """Give the driver that fits the URL; nothing is sent before the first verb.

    ``url`` is the root of a Redfish service (``https://10.0.0.9``, when it has one system),
    one system (``https://10.0.0.9/redfish/v1/Systems/1``), or ``ipmi://10.0.0.9``: the scheme
    alone decides. Several with blanks between them are ways to the same BMC, tried in order
    (``https://10.0.0.9 ipmi://10.0.0.9``). ``local_address`` is the address of the out-of-band
    interface to dial from.
    """
    from drivers.providers import PROVIDERS_MAX, Providers

    if not isinstance(credentials, BmcCredentials):
        credentials = BmcCredentials.parse(credentials)
    urls = url.split(" ")
    if len(urls) > PROVIDERS_MAX:
        raise DeviceRefused(f"a BMC has at most {PROVIDERS_MAX} addresses, not {len(urls)}")
    async with AsyncExitStack() as opened:
        found: list[Bmc] = []
        unfit: list[Attempt] = []
        for one in urls:
            who = credentials
            if len(urls) > 1 and one.startswith("ipmi:"):  # the pin is for the others
                who = replace(credentials, tls_sha256=None)
            try:
                way = _open_one(one, who, local_address, limits or BmcLimits())
                found.append(await opened.enter_async_context(way))
            except DeviceRefused as exc:  # nothing was sent: this secret is not for it
                if len(urls) == 1:
                    raise
                unfit.append(Attempt(provider=one, verb="open", seconds=0, outcome=str(exc)))
        if not found:
            raise DeviceRefused(unfit[0].outcome)
        yield Providers(found, unfit)


def _open_one(
    url: str, credentials: BmcCredentials, local_address: str | None, limits: BmcLimits
) -> AbstractAsyncContextManager[Bmc]:
    scheme = urlsplit(url).scheme
    if scheme == "ipmi":
        from drivers.ipmi import open_ipmi

        return open_ipmi(url, credentials, local_address=local_address, limits=limits)
    if scheme not in ("http", "https"):
        raise DeviceRefused(
            f"no driver for BMC address {url[:200]!r}: it must begin with https://, http://"
            " or ipmi://"
        )
    from drivers.redfish import open_redfish

    return open_redfish(url, credentials, local_address=local_address, limits=limits)


@asynccontextmanager
async def open_console(
    url: str,
    credentials: BmcCredentials | Mapping[str, object],
    *,
    steal: bool = False,
    say: Callable[[str], None] = lambda text: None,
    local_address: str | None = None,
    limits: BmcLimits | None = None,
) -> AsyncGenerator[Console]:
    """Open the serial console of the server at a BMC's address, and close it at the end.

    ``ipmi://`` is Serial over LAN, ``https://`` and ``http://`` the WebSocket that a Redfish
    service offers. A console that another client has is refused, unless ``steal`` closes it
    there first. ``say`` hears what a person should know (lost characters, a break). Of several
    addresses the ``ipmi://`` one is taken, because every BMC with one has Serial over LAN.
    """
    if not isinstance(credentials, BmcCredentials):
        credentials = BmcCredentials.parse(credentials)
    urls = url.split(" ")
    url = next((one for one in urls if one.startswith("ipmi:")), urls[0])
    if len(urls) > 1 and url.startswith("ipmi:"):
        credentials = replace(credentials, tls_sha256=None)
    limits = limits or BmcLimits()
    scheme = urlsplit(url).scheme
    if scheme == "ipmi":
        from drivers.ipmi_console import open_sol

        async with open_sol(
            url, credentials, steal=steal, local_address=local_address, limits=limits, say=say
        ) as sol:
            yield sol
        return
    if scheme not in ("http", "https"):
        raise DeviceRefused(
            f"no console for BMC address {url[:200]!r}: it must begin with https://, http://"
            " or ipmi://"
        )
    from drivers.redfish_console import open_web_console

    async with open_web_console(
        url, credentials, local_address=local_address, limits=limits
    ) as web:
        yield web


async def shown_certificate(url: str, *, local_address: str | None = None) -> Certificate:
    """Return the certificate at an ``https://`` address, whoever has signed it; no login is
    sent."""
    from drivers.certificate import look

    return await look(url, local_address)


class Dialler:
    """Opens BMCs from one address of this host, that of the out-of-band network."""

    def __init__(self, local_address: str | None) -> None:
        self._local_address = local_address

    def open(
        self, url: str, login: Mapping[str, object], may_send: Callable[[], bool]
    ) -> AbstractAsyncContextManager[Bmc]:
        """See `open_bmc`, and `BmcLimits` for ``may_send``."""
        limits = BmcLimits(may_send=may_send)
        return open_bmc(url, login, local_address=self._local_address, limits=limits)

    async def certificate(self, url: str) -> Certificate:
        """See `shown_certificate`."""
        return await shown_certificate(url, local_address=self._local_address)
