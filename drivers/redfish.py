"""Power and boot of one server through its Redfish BMC (DMTF DSP0266).

Decides nothing: what bodies mean and what to send stands in `drivers.proto.redfish`. The rule:
a verb is done when the BMC reports it, not when it has accepted it.
"""

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import trio

from drivers.api import BmcCredentials, BmcLimits, BootDevice, BootTarget, PowerState
from drivers.capabilities import Attempt, Capability
from drivers.errors import DeviceLied, DeviceRefused, DriverError, LoginRefused
from drivers.patience import Patience
from drivers.proto import redfish as core
from drivers.proto.health import Account, Attribute, Bios, Component, Events, Reading
from drivers.proto.quirks import quirks_for
from drivers.redfish_health import RedfishHealth
from drivers.redfish_http import (
    Answer,
    BmcHttp,
    ClientFactory,
    complain,
    make_client,
    open_http,
)
from drivers.redfish_inventory import read_inventory
from drivers.redfish_media import RedfishDrive

SESSION_END_S: Final = 2.0

_WRONG_TAG: Final = frozenset({412, 428})
_WRONG_VALUE: Final = 400
_GONE: Final = 404


class RedfishBmc:
    """One computer system behind one Redfish service; one caller at a time."""

    def __init__(
        self,
        address: core.Address,
        http: BmcHttp,
        credentials: BmcCredentials,
        limits: BmcLimits,
    ) -> None:
        self._address = address
        self._http = http
        self._credentials = credentials
        self._limits = limits
        self._vendor = ""
        self._cd: RedfishDrive | None = None
        self._path: str | None = None
        self._sessions: str | None = None
        self._token: str | None = None
        self._session: str | None = None
        self._health = RedfishHealth(self, limits.report_s, limits.boot_wait_s, limits.poll_s)

    @property
    def url(self) -> str:
        """Where it is; without any secret."""
        return self._address.origin + (self._path or self._address.system or core.ROOT_PATH)

    async def power_state(self) -> PowerState:
        """Return what the BMC reports now."""
        return (await self._system()).power

    async def set_power(self, on: bool) -> None:
        """Bring the power to on, or off at once (ForceOff), and wait until it is reported."""
        asked = ""
        patience = Patience(self._limits.power_wait_s, self._limits.poll_s)
        while True:
            system = await self._system()
            match core.power_step(system, on, asked=bool(asked)):
                case core.Reached():
                    return
                case core.CannotAsk(sentence):
                    raise DeviceRefused(f"{self.url}: {sentence}")
                case core.Ask(reset_type):
                    asked = reset_type
                    await self._reset(system, reset_type, on)
                case core.Wait():
                    pass
            if not await patience.again():
                break
        raise DeviceLied(
            f"{self.url}: accepted {asked or 'no order'}, but its power is still"
            f" '{system.power}' after {self._limits.power_wait_s:g} s"
        )

    async def _reset(self, system: core.System, reset_type: str, on: bool) -> None:
        answer = await self.call("POST", system.reset_path, {"ResetType": reset_type})
        if answer.ok:
            return
        now = await self._system()  # some refuse what they have already done
        if not isinstance(core.power_step(now, on, asked=True), core.Reached):
            raise complain(answer)

    async def boot_device(self) -> BootDevice:
        """Return what the BMC says it boots from next."""
        return core.boot_device(await self._system())

    async def set_boot(self, device: BootTarget, *, uefi: bool | None = None) -> None:
        """Set the boot override, and wait until the BMC reports it; its mode stays."""
        system = await self._system()
        if core.boot_device(system) == device and system.boot_enabled == "Continuous":
            return
        answer = await self._patch_boot(system, device)
        if not answer.ok:
            raise complain(answer)
        patience = Patience(self._limits.boot_wait_s, self._limits.poll_s)
        while core.boot_device(system := await self._system()) != device:
            if not await patience.again():
                raise DeviceLied(
                    f"{self.url}: accepted boot from {device}, but still says"
                    f" '{core.clip(system.boot_target)}'"
                    f" ({core.clip(system.boot_enabled) or 'no state'})"
                    f" after {self._limits.boot_wait_s:g} s"
                )

    async def _patch_boot(self, system: core.System, device: BootTarget) -> Answer:
        """Try the spellings that services want, until one is not refused for its spelling."""
        quirks = quirks_for(self._vendor, system.manufacturer)
        answer: Answer | None = None
        for body in core.boot_bodies(system, device, quirks):
            for tag in core.if_match_values(system.etag):
                headers = {} if tag is None else {"if-match": tag}
                answer = await self.call("PATCH", system.path, body, headers)
                if answer.status not in _WRONG_TAG:
                    break
            if answer is not None and answer.status != _WRONG_VALUE:
                break
        assert answer is not None
        return answer

    async def insert_medium(self, url: str) -> None:
        """Put an image into the virtual CD drive."""
        await (await self._cd_drive()).insert(url)

    async def eject_medium(self) -> None:
        """Empty the virtual CD drive."""
        await (await self._cd_drive()).eject()

    async def inserted_medium(self) -> str | None:
        """Return what the BMC shows for the disc in its drive; None: it is empty."""
        return await (await self._cd_drive()).inserted()

    async def _cd_drive(self) -> RedfishDrive:
        if self._cd is None:
            system = await self._system()
            quirks = quirks_for(self._vendor, system.manufacturer)
            self._cd = RedfishDrive(
                self.url, system.path, self.call, read_object, quirks, self._limits
            )
        return self._cd

    async def inventory(self) -> dict[str, Any]:
        """Read what the server is made of."""
        path = self._path or await self._discover()
        return await read_inventory(self.url, path, self.call, read_object)

    @property
    def fences(self) -> bool:
        """Whether we speak in a session of which the service told us the place."""
        return None not in (self._token, self._session, self._sessions)

    async def fence(self) -> bool:
        """End the other sessions of our account (DSP0266 section 13.3.4)."""
        if self._path is None:
            await self._discover()
        if self._sessions is None or not self.fences:
            return False
        listed = read_object(await self.call("GET", self._sessions))
        for path in core.parse_members(listed):
            if path == self._session:
                continue
            answer = await self.call("GET", path)
            if not answer.ok or not core.is_account(
                read_object(answer), self._credentials.username
            ):
                continue
            ended = await self.call("DELETE", path)
            if not ended.ok and ended.status != _GONE:
                raise complain(ended)
        return True

    async def set_password(self, password: str) -> None:
        """Change the password of the account that we log in with (DSP2046 ManagerAccount)."""
        account, etag = await self._own_account()
        answer: Answer | None = None
        for tag in core.if_match_values(etag):
            headers = {} if tag is None else {"if-match": tag}
            answer = await self.call("PATCH", account, {"Password": password}, headers)
            if answer.status not in _WRONG_TAG:
                break
        assert answer is not None
        if not answer.ok:
            raise complain(answer)
        self._token = self._session = None  # services may end it; the old password is no more

    async def _own_account(self) -> tuple[str, str]:
        """Return path and entity tag of the account with our user name."""
        if self._path is None:
            await self._discover()
        root = core.parse_root(read_object(await self.call("GET", core.ROOT_PATH)))
        accounts = None
        if root.accounts is not None:
            accounts = core.parse_accounts(read_object(await self.call("GET", root.accounts)))
        if accounts is None:
            raise DeviceRefused(f"{self.url}: its service has no accounts that can be changed")
        for path in core.parse_members(read_object(await self.call("GET", accounts))):
            answer = await self.call("GET", path)
            if answer.ok and core.is_account(read_object(answer), self._credentials.username):
                return path, answer.headers.get("etag", "")
        raise DeviceRefused(
            f"{self.url}: does not show the account {core.clip(self._credentials.username)!r},"
            " so its password cannot be changed"
        )

    # -- health: see drivers.redfish_health ------------------------------------------------

    @property
    def attempts(self) -> Sequence[Attempt]:
        """Nothing: this is one provider."""
        return ()

    async def capabilities(self) -> frozenset[Capability]:
        """Return what the system and its service seem to have, by their links."""
        return frozenset({"power", "boot", "password", *await self._health.offered()})

    async def sensors(self) -> list[Reading]:
        """Return all readings, now."""
        return await self._health.sensors()

    async def events(self) -> Events:
        """Return the newest entries of the event log."""
        return await self._health.events()

    async def bios(self) -> Bios:
        """Return the firmware's settings."""
        return await self._health.bios()

    async def set_bios(self, attributes: Mapping[str, Attribute]) -> Bios:
        """Have these settings hold from the next start on."""
        return await self._health.set_bios(attributes)

    async def firmware(self) -> list[Component]:
        """Return the versions of the firmware."""
        return await self._health.firmware()

    async def accounts(self) -> list[Account]:
        """Return the BMC's accounts."""
        return await self._health.accounts()

    async def system_path(self) -> str:
        """Return the system's path, logged in."""
        return self._path or await self._discover()

    async def _system(self) -> core.System:
        path = await self.system_path()
        answer = await self.call("GET", path)
        body = read_object(answer)
        try:
            return core.parse_system(body, path, answer.headers.get("etag"))
        except core.NotRedfish as exc:
            raise _not_redfish(answer, exc) from exc

    async def _discover(self) -> str:
        """Read the service root, log in where sessions are offered, and find the system."""
        answer = await self._http.request("GET", core.ROOT_PATH)
        if answer.status in (401, 403):  # the root should need no user, but some want one
            answer = await self.call("GET", core.ROOT_PATH)
        if self._address.system is None or answer.ok:
            root = core.parse_root(read_object(answer))
            self._vendor = root.vendor
            self._sessions = root.sessions
            systems = root.systems
        else:
            systems = None
        if self._token is None:
            await self._log_in()
        self._path = self._address.system or await self._only_system(systems)
        return self._path

    async def _only_system(self, systems: str | None) -> str:
        if systems is None:
            raise DeviceLied(f"{self.url}: a service root without systems")
        answer = await self.call("GET", systems)
        body = read_object(answer)
        try:
            found = core.parse_members(body)
        except core.NotRedfish as exc:
            raise _not_redfish(answer, exc) from exc
        if len(found) != 1:
            names = core.clip(", ".join(self._address.origin + path for path in found[:8]))
            raise DeviceRefused(
                f"{answer.url}: has {len(found)} systems, so the BMC address must name one"
                + (f" of {names}" if found else "")
            )
        return found[0]

    async def _log_in(self) -> None:
        """Open a session if the service offers one; else every request brings the password."""
        if self._sessions is None:
            return
        who = {"UserName": self._credentials.username, "Password": self._credentials.password}
        answer = await self._http.request("POST", self._sessions, body=who)
        if answer.status in (401, 403):
            raise LoginRefused(str(complain(answer)))
        token = answer.headers.get("x-auth-token", "")
        if answer.ok and token:
            self._token = token
            self._session = core.session_path(answer.headers.get("location"), answer.body)

    async def call(
        self,
        method: str,
        path: str,
        body: dict[str, Any] | None = None,
        headers: dict[str, str] | None = None,
    ) -> Answer:
        """Send one request; log in again once when the session has ended."""
        answer = await self._authorised(method, path, body, headers)
        if answer.status == 401 and self._token is not None:  # the session has ended
            self._token = self._session = None
            await self._log_in()
            answer = await self._authorised(method, path, body, headers)
        return answer

    async def _authorised(
        self,
        method: str,
        path: str,
        body: dict[str, Any] | None,
        headers: dict[str, str] | None,
    ) -> Answer:
        extra = dict(headers or {})
        auth = None
        if self._token is not None:
            extra["x-auth-token"] = self._token
        else:
            auth = (self._credentials.username, self._credentials.password)
        return await self._http.request(method, path, body=body, headers=extra, auth=auth)

    async def close(self) -> None:
        """Give the session back: BMCs have few, and forget none of them by themselves."""
        if self._token is None or self._session is None:
            return
        try:
            await self._authorised("DELETE", self._session, None, None)
        except DriverError:
            pass  # what was asked for is done; the service ends the session when idle
        self._token = self._session = None


def read_object(answer: Answer) -> dict[str, Any]:
    """Return the JSON object in a good answer, or raise the error that it means."""
    if not answer.ok:
        raise complain(answer)
    try:
        return core.decode(answer.body)
    except core.NotRedfish as exc:
        raise _not_redfish(answer, exc) from exc


def _not_redfish(answer: Answer, exc: core.NotRedfish) -> DeviceLied:
    return DeviceLied(
        f"{answer.method} {answer.url}: status {answer.status}, but the body is {exc}"
    )


@asynccontextmanager
async def open_redfish(
    url: str,
    credentials: BmcCredentials,
    *,
    local_address: str | None = None,
    limits: BmcLimits,
    client_factory: ClientFactory | None = None,
) -> AsyncGenerator[RedfishBmc]:
    """Give the driver for one address; nothing is sent before the first verb."""
    try:
        address = core.parse_address(url)
    except ValueError as exc:
        raise DeviceRefused(str(exc)) from exc
    pin = credentials.tls_sha256
    if pin is not None and not address.tls:
        raise DeviceRefused(f"{url}: tls_sha256 was given, but the address is not https://")
    factory = client_factory or (lambda: make_client(pin, local_address))
    async with open_http(address, factory, pin, limits) as http:
        bmc = RedfishBmc(address, http, credentials, limits)
        try:
            yield bmc
        finally:
            with trio.move_on_after(SESSION_END_S, shield=True):
                await bmc.close()
