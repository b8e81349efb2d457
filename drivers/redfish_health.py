"""Sensors, event log, settings, versions and accounts by Redfish, over somebody else's HTTP.

Decides nothing about bodies: `drivers.proto.redfish_health` does. The rules: a link that is
missing or answered 404 or 501 means that there is no such thing; any other failure is said; the
whole has a time, and every list of pages an end.
"""

from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from typing import Any, Final, Protocol

from drivers.errors import DeviceLied, DeviceRefused, NotOffered
from drivers.patience import Budget, Patience
from drivers.proto import redfish as core
from drivers.proto import redfish_health as health
from drivers.proto.health import (
    ACCOUNTS_MAX,
    COMPONENTS_MAX,
    EVENTS_MAX,
    READINGS_MAX,
    Account,
    Attribute,
    Bios,
    Component,
    Events,
    LogEntry,
    Reading,
)
from drivers.redfish_http import Answer, complain

_NONE: Final = frozenset({404, 405, 501})
_WRONG_TAG: Final = frozenset({412, 428})
_EXPAND: Final = "?$expand=."


class Service(Protocol):
    """What is needed of the driver for one system."""

    @property
    def url(self) -> str:
        """Where it is; without any secret."""
        ...

    async def system_path(self) -> str:
        """Return the system's path, logged in."""
        ...

    async def call(
        self,
        method: str,
        path: str,
        body: dict[str, Any] | None = None,
        headers: dict[str, str] | None = None,
    ) -> Answer:
        """Send one request."""
        ...


class RedfishHealth:
    """What one service says of one system's health; one caller at a time."""

    def __init__(
        self, service: Service, report_s: float, settle_s: float, poll_s: float
    ) -> None:
        self._service = service
        self._report_s, self._settle_s, self._poll_s = report_s, settle_s, poll_s
        self._budget = Budget(service.url, "it", report_s)

    async def offered(self) -> Iterable[health.What]:
        """Return what the service seems to have."""
        self._begin("what it offers")
        return list(health.offered(await self._system(), await self._root()))

    # -- sensors ---------------------------------------------------------------------------

    async def sensors(self) -> list[Reading]:
        """Return the readings of the system's chassis.

        Thermal and Power, where there are any: two requests. Else the Sensors collection.
        """
        self._begin("its sensors")
        found: list[Reading] = []
        for path in await self._chassis():
            body = await self._read(path)
            if body is None:
                continue
            before = len(found)
            found += await self._old(body, "Thermal", health.thermal)
            found += await self._old(body, "Power", health.power)
            if len(found) == before and (sensors := core.link(body.get("Sensors"))):
                async for item in self._members(sensors, READINGS_MAX - len(found)):
                    if (reading := health.sensor(item)) is not None:
                        found.append(reading)
        if not found:
            raise NotOffered(f"{self._service.url}: its service shows no sensors")
        return found[:READINGS_MAX]

    async def _chassis(self) -> list[str]:
        own = health.links_of(await self._system(), "Links", "Chassis")
        if own:
            return own
        collection = core.link((await self._root()).get("Chassis"))
        body = await self._read(collection) if collection is not None else None
        found = health.links_of(body, "Members") if body is not None else []
        return found if len(found) == 1 else []  # of several, none is known to be ours

    async def _old(
        self,
        chassis: dict[str, Any],
        name: str,
        parse: Callable[[health.Object], Iterator[Reading]],
    ) -> list[Reading]:
        path = core.link(chassis.get(name))
        body = await self._read(path) if path is not None else None
        return list(parse(body)) if body is not None else []

    # -- event log -------------------------------------------------------------------------

    async def events(self) -> Events:
        """Return the newest entries of the system's logs, or of its manager's."""
        self._begin("its event log")
        system = await self._system()
        services = await self._log_services(system)
        for manager in [] if services else health.links_of(system, "Links", "ManagedBy")[:1]:
            body = await self._read(manager)
            services = await self._log_services(body) if body is not None else []
        if not services:
            raise NotOffered(f"{self._service.url}: its service shows no event log")
        found: list[LogEntry] = []
        more = False
        for entries in services:
            page, cut = await self._entries(entries)
            found += page
            more |= cut
        found = health.newest_first(found)
        return Events(entries=tuple(found[:EVENTS_MAX]), more=more or len(found) > EVENTS_MAX)

    async def _log_services(self, owner: dict[str, Any]) -> list[str]:
        path = core.link(owner.get("LogServices"))
        if path is None or (body := await self._read(path)) is None:
            return []
        found: list[str] = []
        for member in health.members(body)[0][: health.LOGS_MAX]:
            item = await self._whole(member)
            if item is not None and (entries := core.link(item.get("Entries"))) is not None:
                found.append(entries)
        return found

    async def _entries(self, path: str) -> tuple[list[LogEntry], bool]:
        """Return entries of one log, and whether pages were left."""
        found: list[LogEntry] = []
        following: str | None = path
        for _ in range(health.PAGES_MAX):
            body = await self._read(following) if following is not None else None
            if body is None:
                return found, False
            items, following = health.members(body)
            links = 0
            for item in items:
                links += not health.is_whole(item)
                if links > EVENTS_MAX:  # each costs a request
                    return found, True
                whole = await self._whole(item)
                entry = health.log_entry(whole) if whole is not None else None
                if entry is not None:
                    found.append(entry)
        return found, following is not None

    # -- settings --------------------------------------------------------------------------

    async def bios(self) -> Bios:
        """Return the settings that hold and those that wait."""
        self._begin("its settings")
        current, settings = await self._bios()
        pending = {} if settings is None else await self._need(settings)
        return Bios(current=health.attributes(current), pending=health.attributes(pending))

    async def _bios(self) -> tuple[dict[str, Any], str | None]:
        path = core.link((await self._system()).get("Bios"))
        body = await self._read(path) if path is not None else None
        if body is None:
            raise NotOffered(f"{self._service.url}: its service shows no BIOS settings")
        return body, health.settings_path(body)

    async def set_bios(self, wanted: Mapping[str, Attribute]) -> Bios:
        """Write pending settings, and wait until they are read back."""
        self._begin("its settings")
        current, settings = await self._bios()
        if settings is None:
            raise NotOffered(f"{self._service.url}: its BIOS settings can only be read")
        known = health.attributes(current)
        unknown = sorted(set(wanted) - set(known))
        if unknown:
            raise DeviceRefused(
                f"{self._service.url}: it has no BIOS setting {core.clip(unknown[0])!r}"
            )
        answer = await self._service.call("GET", settings)
        if not answer.ok:
            raise complain(answer)
        if not _stands(wanted, health.attributes(_object(answer)), known):
            await self._patch(settings, {"Attributes": dict(wanted)}, answer)
        patience = Patience(self._settle_s, self._poll_s)
        while True:
            pending = health.attributes(await self._need(settings))
            if _stands(wanted, pending, known):
                return Bios(current=known, pending=pending)
            if not await patience.again():
                name = next(n for n in wanted if pending.get(n, known.get(n)) != wanted[n])
                raise DeviceLied(
                    f"{self._service.url}: accepted the BIOS setting {core.clip(name)!r}, but"
                    f" still says {core.clip(str(pending.get(name)))!r} after"
                    f" {self._settle_s:g} s"
                )

    async def _patch(self, path: str, body: dict[str, Any], read: Answer) -> None:
        answer: Answer | None = None
        etag = core.entity_tag(read.headers.get("etag"), _object(read))
        for tag in core.if_match_values(etag):
            headers = {} if tag is None else {"if-match": tag}
            answer = await self._service.call("PATCH", path, body, headers)
            if answer.status not in _WRONG_TAG:
                break
        assert answer is not None
        if not answer.ok:
            raise complain(answer)

    # -- versions and accounts -------------------------------------------------------------

    async def firmware(self) -> list[Component]:
        """Return what the update service lists; else BIOS and BMC by their own resources."""
        self._begin("its versions")
        found: list[Component] = []
        service = core.link((await self._root()).get("UpdateService"))
        body = await self._read(service) if service is not None else None
        if body is not None and (inventory := core.link(body.get("FirmwareInventory"))):
            async for item in self._members(inventory, COMPONENTS_MAX):
                if (component := health.component(item)) is not None:
                    found.append(component)
        if not found:
            found = await self._named_versions()
        if not found:
            raise NotOffered(f"{self._service.url}: its service shows no firmware versions")
        return found

    async def _named_versions(self) -> list[Component]:
        system = await self._system()
        found = [health.named_version(system, "BiosVersion", "BIOS")]
        for manager in health.links_of(system, "Links", "ManagedBy")[:1]:
            body = await self._read(manager)
            found.append(health.named_version(body or {}, "FirmwareVersion", "BMC"))
        return [one for one in found if one is not None]

    async def accounts(self) -> list[Account]:
        """Return the accounts of the service."""
        self._begin("its accounts")
        service = core.link((await self._root()).get("AccountService"))
        body = await self._read(service) if service is not None else None
        path = core.parse_accounts(body) if body is not None else None
        if path is None:
            raise NotOffered(f"{self._service.url}: its service shows no accounts")
        items = [health.account(item) async for item in self._members(path, ACCOUNTS_MAX)]
        return [one for one in items if one is not None]

    # -- reading ---------------------------------------------------------------------------

    def _begin(self, what: str) -> None:
        self._budget = Budget(self._service.url, what, self._report_s)

    async def _root(self) -> dict[str, Any]:
        return await self._need(core.ROOT_PATH)

    async def _system(self) -> dict[str, Any]:
        return await self._need(await self._service.system_path())

    async def _need(self, path: str) -> dict[str, Any]:
        self._budget.check()
        answer = await self._service.call("GET", path)
        if not answer.ok:
            raise complain(answer)
        return _object(answer)

    async def _read(self, path: str) -> dict[str, Any] | None:
        """Return a resource, None when there is none."""
        self._budget.check()
        answer = await self._service.call("GET", path)
        if answer.status in _NONE:
            return None
        if not answer.ok:
            raise complain(answer)
        return _object(answer)

    async def _whole(self, member: health.Object) -> health.Object | None:
        """Return a member itself, which may be a link alone."""
        if health.is_whole(member):
            return member
        path = core.link(member)
        return await self._read(path) if path is not None else None

    async def _members(self, path: str, limit: int) -> AsyncIterator[health.Object]:
        """Yield the members of a collection, page by page, expanded where that is offered."""
        following: str | None = path
        if health.expands(await self._root()) and "?" not in path:
            following = path + _EXPAND
        count = 0
        for _ in range(health.PAGES_MAX):
            body = await self._read(following) if following is not None else None
            if body is None:
                return
            items, following = health.members(body)
            for item in items:
                if count == limit:
                    return
                count += 1
                whole = await self._whole(item)
                if whole is not None:
                    yield whole


def _stands(
    wanted: Mapping[str, Attribute],
    pending: Mapping[str, Attribute],
    current: Mapping[str, Attribute],
) -> bool:
    """Tell whether all will hold: a setting that is not pending stays as it is."""
    return all(pending.get(name, current.get(name)) == value for name, value in wanted.items())


def _object(answer: Answer) -> dict[str, Any]:
    try:
        return core.decode(answer.body)
    except core.NotRedfish as exc:
        raise DeviceLied(
            f"{answer.method} {answer.url}: status {answer.status}, but the body is {exc}"
        ) from exc
