"""Power and boot of one server through its IPMI BMC: pyghmi in threads, under a watchdog.

Decides nothing: what answers mean and what to send stands in `drivers.proto.ipmi`, the session
in `drivers.ipmi_session`. The rules: a verb is done when the BMC reports it; a thread is held
for one exchange, never while waiting for a server; a thread that does not come back in time is
given up, said so, and counts against the limiter until it ends.
"""

import socket
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final, Protocol, TypeVar

import trio

from drivers.api import BmcCredentials, BmcLimits, BootDevice, BootTarget, PowerState
from drivers.capabilities import Attempt, Capability
from drivers.errors import DeviceLied, DeviceRefused, DeviceUnreachable, NotOffered
from drivers.ipmi_health import IpmiHealth, offered
from drivers.ipmi_session import CLOSE_S, LanSession
from drivers.patience import Patience
from drivers.proto import ipmi as core
from drivers.proto.health import (
    Account,
    Attribute,
    Bios,
    Component,
    Events,
    Reading,
    words,
)
from drivers.proto.quirks import IPMI_PLAIN, IPMI_TABLE, IpmiQuirks

THREADS_MAX: Final = 32
IPMI_THREADS: Final = trio.CapacityLimiter(THREADS_MAX)
"""All threads that speak IPMI."""
WATCHDOG_S: Final = 5.0
"""What a thread may take beyond its own deadline, and a caller may wait for a thread."""
USERS_LOOKED_MAX: Final = 16
"""User ids that are looked through for ours; BMCs have 10 to 16."""
BUSY_TRIES: Final = 4
BUSY_WAIT_S: Final = 0.5

T = TypeVar("T")


class Session(Protocol):
    """What a session does; each method but the last blocks and is called in a thread."""

    def log_in(self, username: str, password: str, for_s: float) -> None:
        """Log in."""
        ...

    def ask(self, command: core.Command, for_s: float) -> tuple[int, bytes]:
        """Return completion code and data."""
        ...

    def close(self) -> None:
        """Log out and close the socket."""
        ...

    def abandon(self) -> None:
        """Leave the session to the thread that is in it."""
        ...


SessionFactory = Callable[[socket.socket, str], Session]
"""Makes a session from a connected UDP socket and the URL that its sentences name."""


class IpmiBmc:
    """One server behind one IPMI BMC; one caller at a time."""

    def __init__(
        self,
        address: core.Address,
        credentials: BmcCredentials,
        limits: BmcLimits,
        local_address: str | None,
        session_factory: SessionFactory,
    ) -> None:
        self._address = address
        self._credentials = credentials
        self._limits = limits
        self._local_address = local_address
        self._make_session = session_factory
        self._session: Session | None = None
        self._quirks: IpmiQuirks = IPMI_PLAIN
        self._health = IpmiHealth(address.url, self._ask, limits.report_s)

    @property
    def url(self) -> str:
        """Where it is; without any secret."""
        return self._address.url

    async def power_state(self) -> PowerState:
        """Return what the BMC reports now."""
        return self._read(core.parse_power, await self._order(core.CHASSIS_STATUS))

    async def set_power(self, on: bool) -> None:
        """Bring the power to on, or off at once, and wait until it is reported."""
        wanted = "on" if on else "off"
        if await self.power_state() == wanted:
            return
        code, _ = await self._ask(core.POWER_UP if on else core.POWER_DOWN)
        patience = Patience(self._limits.power_wait_s, self._limits.poll_s)
        while (seen := await self.power_state()) != wanted:
            if code != 0:  # some refuse what they have already done
                raise self._refused(core.POWER_UP if on else core.POWER_DOWN, code)
            if not await patience.again():
                raise DeviceLied(
                    f"{self.url}: accepted power {wanted}, but its power is still '{seen}'"
                    f" after {self._limits.power_wait_s:g} s"
                )

    async def boot_device(self) -> BootDevice:
        """Return what the BMC says it boots from next."""
        return (await self._boot()).device

    async def set_boot(self, device: BootTarget, *, uefi: bool | None = None) -> None:
        """Set the boot flags, and wait until the BMC reports the device."""
        now = await self._boot()
        if core.stands(now, device, uefi):
            return
        code, _ = await self._ask(core.KEEP_BOOT)  # not all have it, and they need it not
        if code != 0 and code not in core.NOT_SUPPORTED:
            raise self._refused(core.KEEP_BOOT, code)
        lasting, once = core.boot_commands(device, uefi, now)
        code, _ = await self._ask(lasting)
        if code in core.NOT_SUPPORTED:
            code, _ = await self._ask(once)
        if code != 0:
            raise self._refused(once, code)
        patience = Patience(self._limits.boot_wait_s, self._limits.poll_s)
        while (seen := (await self._boot()).device) != device:
            if not await patience.again():
                raise DeviceLied(
                    f"{self.url}: accepted boot from {device}, but still says '{seen}'"
                    f" after {self._limits.boot_wait_s:g} s"
                )

    async def inventory(self) -> dict[str, Any]:
        """IPMI tells no MACs and no disks."""
        raise NotOffered(
            f"{self.url}: IPMI does not tell what a server is made of; boot it from the network"
        )

    async def insert_medium(self, url: str) -> None:
        """IPMI has no virtual media."""
        raise self._no_media()

    async def eject_medium(self) -> None:
        """IPMI has no virtual media."""
        raise self._no_media()

    async def inserted_medium(self) -> str | None:
        """IPMI has no virtual media."""
        raise self._no_media()

    def _no_media(self) -> NotOffered:
        return NotOffered(
            f"{self.url}: IPMI has no virtual media; use the BMC's Redfish address, or boot by"
            " network"
        )

    @property
    def fences(self) -> bool:
        """False: see ``fence``."""
        return False

    async def fence(self) -> bool:
        """Return False: IPMI has no way to end what another session has sent."""
        return False

    async def set_password(self, password: str) -> None:
        """Change the password of the user that we log in as."""
        wrong = core.why_no_login(self._credentials.username, password)
        if wrong is not None:
            raise DeviceRefused(f"{self.url}: {wrong}")
        await self._order(core.password_command(await self._own_user(), password))
        await self.close()  # the next verb must log in with what holds now

    # -- health: see drivers.ipmi_health ---------------------------------------------------

    @property
    def attempts(self) -> Sequence[Attempt]:
        """Nothing: this is one provider."""
        return ()

    async def capabilities(self) -> frozenset[Capability]:
        """Return what Get Device ID promises."""
        found = offered(await self._order(core.DEVICE_ID))
        return frozenset({"power", "boot", "password", "accounts", *found})

    async def sensors(self) -> list[Reading]:
        """Return all readings, now."""
        return await self._health.readings()

    async def events(self) -> Events:
        """Return the newest entries of the system event log."""
        return await self._health.events()

    async def bios(self) -> Bios:
        """Refuse: IPMI knows no firmware settings."""
        raise NotOffered(f"{self.url}: IPMI shows no BIOS settings")

    async def set_bios(self, attributes: Mapping[str, Attribute]) -> Bios:
        """Refuse: IPMI knows no firmware settings."""
        return await self.bios()

    async def firmware(self) -> list[Component]:
        """Return the versions that the BMC tells."""
        return await self._health.firmware()

    async def accounts(self) -> list[Account]:
        """Return the users that have a name."""
        found: list[Account] = []
        for user in range(1, USERS_LOOKED_MAX + 1):
            code, data = await self._ask(core.user_name_command(user))
            name = self._read(core.parse_user_name, data) if code == 0 else ""
            if not name:
                continue
            code, data = await self._ask(core.user_access_command(user))
            role, enabled = ("", False)
            if code == 0:
                role, enabled = self._read(core.parse_user_access, data)
            found.append(
                Account(id=str(user), username=words(name), role=role, enabled=enabled)
            )
        return found

    async def _own_user(self) -> int:
        """Return the id of the user with our name."""
        for user in range(1, USERS_LOOKED_MAX + 1):
            code, data = await self._ask(core.user_name_command(user))
            if code != 0:
                continue  # unused ids are refused by some, in the middle, too
            if self._read(core.parse_user_name, data) == self._credentials.username:
                return user
        raise DeviceRefused(f"{self.url}: none of its users has the name that we log in with")

    async def close(self) -> None:
        """Give the session back, if there is one."""
        session, self._session = self._session, None
        if session is not None:
            try:
                await self._in_thread(session, session.close, CLOSE_S)
            except DeviceUnreachable:
                pass  # what was asked for is done

    async def _boot(self) -> core.Boot:
        data = await self._order(core.GET_BOOT)
        return self._read(lambda raw: core.parse_boot(raw, self._quirks), data)

    def _read(self, parse: Callable[[bytes], T], data: bytes) -> T:
        try:
            return parse(data)
        except core.NotIpmi as exc:
            raise DeviceLied(f"{self.url}: {exc}") from exc

    def _refused(self, command: core.Command, code: int) -> DeviceRefused:
        return DeviceRefused(f"{self.url}: {command.name}: {core.refusal(code)}")

    async def _order(self, command: core.Command) -> bytes:
        code, data = await self._ask(command)
        if code != 0:
            raise self._refused(command, code)
        return data

    async def _ask(self, command: core.Command) -> tuple[int, bytes]:
        """Return completion code and data; a busy BMC is asked again after a while."""
        tries = 0
        while True:
            session = self._session or await self._log_in()
            code, data = await self._once(session, command)
            tries += 1
            if code not in core.BUSY or tries == BUSY_TRIES:
                return code, data
            await trio.sleep(BUSY_WAIT_S * tries)

    async def _once(self, session: Session, command: core.Command) -> tuple[int, bytes]:
        for_s = self._limits.request_s
        try:
            return await self._in_thread(session, lambda: session.ask(command, for_s), for_s)
        except (DeviceUnreachable, DeviceLied):
            session.abandon()  # the next verb logs in anew
            self._session = None
            raise

    async def _log_in(self) -> Session:
        who, for_s = self._credentials, self._limits.request_s
        session = self._make_session(await self._connect(), self.url)
        try:
            await self._in_thread(
                session, lambda: session.log_in(who.username, who.password, for_s), for_s
            )
        except BaseException:
            session.abandon()
            raise
        self._session = session
        code, data = await self._once(session, core.DEVICE_ID)
        make = self._read(core.parse_device_id, data) if code == 0 else (0, 0)
        self._quirks = IPMI_TABLE.get(make, IPMI_PLAIN)
        return session

    async def _connect(self) -> socket.socket:
        """Return a UDP socket from our out-of-band address, which hears this BMC alone."""
        host, port, local = self._address.host, self._address.port, self._local_address
        family = socket.AF_UNSPEC
        if local is not None:
            family = socket.AF_INET6 if ":" in local else socket.AF_INET
        try:
            with trio.fail_after(self._limits.request_s):
                found = await trio.socket.getaddrinfo(host, port, family, socket.SOCK_DGRAM)
        except (OSError, UnicodeError, trio.TooSlowError) as exc:
            why = getattr(exc, "strerror", None) or "no answer"
            raise DeviceUnreachable(f"{self.url}: its name cannot be resolved ({why})") from exc
        kind, _, _, _, peer = found[0]
        sock = socket.socket(kind, socket.SOCK_DGRAM)
        try:
            if local is not None:
                sock.bind((local, 0))
            sock.connect(peer)
        except OSError as exc:
            sock.close()
            raise DeviceUnreachable(
                f"{self.url}: cannot be reached from {local or 'here'} ({exc.strerror})"
            ) from exc
        return sock

    async def _in_thread(self, session: Session, act: Callable[[], T], for_s: float) -> T:
        """Run one exchange in a thread that has ``for_s`` seconds, or give it up."""
        started = False

        def run() -> T:
            nonlocal started
            started = True
            return act()

        try:
            with trio.fail_after(for_s + WATCHDOG_S):
                return await trio.to_thread.run_sync(
                    run, limiter=IPMI_THREADS, abandon_on_cancel=True
                )
        except trio.TooSlowError as exc:
            session.abandon()
            what = (
                f"gave up a call that did not come back in {for_s + WATCHDOG_S:g} s"
                if started
                else f"all {IPMI_THREADS.total_tokens:g} threads for IPMI are taken"
            )
            raise DeviceUnreachable(f"{self.url}: {what}") from exc
        except trio.Cancelled:
            session.abandon()
            raise


def checked_address(url: str, credentials: BmcCredentials) -> core.Address:
    """Return the address of a BMC, or raise DeviceRefused when it cannot be spoken to so."""
    try:
        address = core.parse_address(url)
    except ValueError as exc:
        raise DeviceRefused(str(exc)) from exc
    if credentials.tls_sha256 is not None:
        raise DeviceRefused(f"{url}: tls_sha256 was given, but IPMI has no certificate")
    wrong = core.why_no_login(credentials.username, credentials.password)
    if wrong is not None:
        raise DeviceRefused(f"{url}: {wrong}")
    return address


@asynccontextmanager
async def open_ipmi(
    url: str,
    credentials: BmcCredentials,
    *,
    local_address: str | None = None,
    limits: BmcLimits,
    session_factory: SessionFactory | None = None,
) -> AsyncGenerator[IpmiBmc]:
    """Give the driver for one address; nothing is sent before the first verb."""
    address = checked_address(url, credentials)
    factory = session_factory or partial(LanSession, may_send=limits.may_send)
    bmc = IpmiBmc(address, credentials, limits, local_address, factory)
    try:
        yield bmc
    finally:
        with trio.move_on_after(CLOSE_S, shield=True):
            await bmc.close()
