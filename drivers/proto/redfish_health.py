"""Redfish sensors, logs, settings, versions and accounts without I/O: what bodies mean.

Sources: DSP2046 (Thermal, Power, Sensor, LogEntry, Bios, SoftwareInventory, ManagerAccount).
The rule is that of `drivers.proto.redfish`: a value of a wrong type counts as absent, links are
paths on the same host, and every list has a limit.
"""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final, Literal

from drivers.proto.health import (
    ATTRIBUTES_MAX,
    NAME_CHARS_MAX,
    READINGS_MAX,
    Account,
    Attribute,
    Component,
    Kind,
    LogEntry,
    Reading,
    Severity,
    State,
    Thresholds,
    judge,
    number,
    words,
)
from drivers.proto.redfish import link

CHASSIS_MAX: Final = 8
LOGS_MAX: Final = 4
PAGES_MAX: Final = 16
PAGE_MEMBERS_MAX: Final = 1000
"""Members of one page that are looked at; a page has at most 1 MiB."""

_HEALTH: Final[Mapping[str, State]] = {"OK": "ok", "Warning": "warning", "Critical": "critical"}
_SEVERITY: Final[Mapping[str, Severity]] = {
    "OK": "ok", "Warning": "warning", "Critical": "critical",
}  # fmt: skip
_TYPES: Final[Mapping[str, Kind]] = {
    "Temperature": "temperature", "Rotational": "fan", "Voltage": "voltage",
    "Current": "current", "Power": "power",
}  # fmt: skip
_LOWER: Final = ("LowerThresholdNonCritical", "LowerThresholdCritical", "LowerThresholdFatal")
_UPPER: Final = ("UpperThresholdNonCritical", "UpperThresholdCritical", "UpperThresholdFatal")
_BADNESS: Final[tuple[State, ...]] = ("unknown", "ok", "warning", "critical")
_MS: Final = 1000

Object = Mapping[str, Any]


def links_of(body: Object, *names: str) -> list[str]:
    """Return the links in a list of links, by the way to it (``Links``, ``Chassis``)."""
    value: Any = body
    for name in names:
        value = value.get(name) if isinstance(value, dict) else None
    items = value[:CHASSIS_MAX] if isinstance(value, list) else []
    return [path for item in items if (path := link(item)) is not None]


def members(body: Object) -> tuple[list[Object], str | None]:
    """Return a page of a collection and the link to the next.

    A member may be a link alone or, where the service expands them, the resource itself.
    """
    items = body.get("Members")
    some = items[:PAGE_MEMBERS_MAX] if isinstance(items, list) else []
    found: list[Object] = [item for item in some if isinstance(item, dict)]
    return found, link(body.get("Members@odata.nextLink"))


def expands(root: Object) -> bool:
    """Tell whether the service puts members into collections when asked (DSP0266 7.3.1)."""
    query = _map(_map(root.get("ProtocolFeaturesSupported")).get("ExpandQuery"))
    return query.get("NoLinks") is True


def is_whole(member: Object) -> bool:
    """Tell whether a member is the resource itself, not only its link."""
    return any(not key.startswith("@") for key in member)


# -- sensors -------------------------------------------------------------------------------


def thermal(body: Object) -> Iterator[Reading]:
    """Read a Thermal resource."""
    for item in _items(body, "Temperatures"):
        yield _old(item, "temperature", "Cel", item.get("ReadingCelsius"))
    for item in _items(body, "Fans"):
        unit = "%" if item.get("ReadingUnits") == "Percent" else "RPM"
        value = item.get("Reading", item.get("ReadingRPM"))
        yield _old(item, "fan", unit, value, item.get("FanName"))


def power(body: Object) -> Iterator[Reading]:
    """Read a Power resource."""
    for item in _items(body, "Voltages"):
        yield _old(item, "voltage", "V", item.get("ReadingVolts"))
    for item in _items(body, "PowerSupplies"):
        watts = item.get("LastPowerOutputWatts", item.get("PowerOutputWatts"))
        yield _old(item, "power", "W", watts)
    for item in _items(body, "PowerControl"):
        yield _old(item, "power", "W", item.get("PowerConsumedWatts"))


def _items(body: Object, name: str) -> list[Object]:
    value = body.get(name)
    items = value[:READINGS_MAX] if isinstance(value, list) else []
    return [
        item for item in items
        if isinstance(item, dict) and _map(item.get("Status")).get("State") != "Absent"
    ]  # fmt: skip


def _old(item: Object, kind: Kind, unit: str, raw: object, name: object = None) -> Reading:
    value = number(raw)
    limits = Thresholds(
        lower_warning=number(item.get(_LOWER[0])), lower_critical=_first(item, _LOWER[1:]),
        upper_warning=number(item.get(_UPPER[0])), upper_critical=_first(item, _UPPER[1:]),
    )  # fmt: skip
    return Reading(
        name=_name(item, name), kind=kind, unit=unit, value=value,
        state=_state(item, value, limits), thresholds=limits, text=_text_state(item, value),
    )  # fmt: skip


def sensor(body: Object) -> Reading | None:
    """Read a Sensor resource; None when it is none or absent."""
    if "Reading" not in body and "ReadingType" not in body and "ReadingUnits" not in body:
        return None
    if _map(body.get("Status")).get("State") == "Absent":
        return None
    limits_of = _map(body.get("Thresholds"))

    def limit(*names: str) -> float | None:
        found = (number(_map(limits_of.get(name)).get("Reading")) for name in names)
        return next((one for one in found if one is not None), None)

    limits = Thresholds(
        lower_critical=limit("LowerCritical", "LowerFatal"),
        lower_warning=limit("LowerCaution"), upper_warning=limit("UpperCaution"),
        upper_critical=limit("UpperCritical", "UpperFatal"),
    )  # fmt: skip
    value = number(body.get("Reading"))
    unit = words(body.get("ReadingUnits"), 16)
    kind: Kind = _TYPES.get(str(body.get("ReadingType")), "other")
    return Reading(
        name=_name(body, None), kind=kind, unit="RPM" if unit == "{rev}/min" else unit,
        value=value, state=_state(body, value, limits), thresholds=limits,
        text=_text_state(body, value),
    )  # fmt: skip


def _name(item: Object, other: object) -> str:
    for value in (item.get("Name"), other, item.get("Id"), item.get("MemberId")):
        if text := words(value, NAME_CHARS_MAX):
            return text
    return "sensor"


def _state(item: Object, value: float | None, limits: Thresholds) -> State:
    """Return what the service says, or worse when its own thresholds say so."""
    said: State = _HEALTH.get(str(_map(item.get("Status")).get("Health")), "unknown")
    seen = judge(value, limits)
    return said if _BADNESS.index(said) >= _BADNESS.index(seen) else seen


def _text_state(item: Object, value: float | None) -> str:
    return "" if value is not None else words(_map(item.get("Status")).get("State"), 40)


def _first(item: Object, names: tuple[str, ...]) -> float | None:
    found = (number(item.get(name)) for name in names)
    return next((one for one in found if one is not None), None)


# -- event log -----------------------------------------------------------------------------


def log_entry(body: Object) -> LogEntry | None:
    """Read a LogEntry; None when it is none."""
    message = words(body.get("Message")) or words(body.get("Name"))
    if not message or not isinstance(body.get("Id", ""), str):
        return None
    return LogEntry(
        id=words(body.get("Id"), NAME_CHARS_MAX),
        at_ms=_time(body.get("Created") or body.get("EventTimestamp")),
        severity=_SEVERITY.get(str(body.get("Severity")), "ok"),
        message=message,
    )


def _time(value: object) -> int | None:
    """Return Unix ms of a date-time of DSP0266 9.5; one without a zone counts as UTC."""
    if not isinstance(value, str) or len(value) > 40:
        return None
    try:
        when = datetime.fromisoformat(value)
        when = when if when.tzinfo is not None else when.replace(tzinfo=UTC)
        seconds = when.timestamp()
    except (ValueError, OverflowError):
        return None
    return round(seconds * _MS) if seconds > 0 else None


def newest_first(entries: list[LogEntry]) -> list[LogEntry]:
    """Sort by time, those without one last; services list them in either order."""
    return sorted(
        entries, key=lambda one: (one.at_ms is not None, one.at_ms or 0), reverse=True
    )


# -- settings, versions, accounts ----------------------------------------------------------


def attributes(body: Object) -> dict[str, Attribute]:
    """Return the attributes of a Bios resource; names and texts bounded, others left out."""
    found: dict[str, Attribute] = {}
    for name, value in _map(body.get("Attributes")).items():
        if len(found) == ATTRIBUTES_MAX:
            break
        if len(name) > NAME_CHARS_MAX or not name.isprintable():
            continue
        if isinstance(value, str):
            found[name] = words(value)
        elif value is None or isinstance(value, bool):
            found[name] = value
        elif (amount := number(value)) is not None:
            found[name] = int(amount) if isinstance(value, int) else amount
    return found


def settings_path(body: Object) -> str | None:
    """Return where pending settings are written (DSP0266 9.10)."""
    return link(_map(body.get("@Redfish.Settings")).get("SettingsObject"))


def component(body: Object) -> Component | None:
    """Read a SoftwareInventory; None without a version."""
    version = words(body.get("Version"), NAME_CHARS_MAX)
    name = words(body.get("Name"), NAME_CHARS_MAX) or words(body.get("Id"), NAME_CHARS_MAX)
    return Component(name=name or "component", version=version) if version else None


def named_version(body: Object, key: str, name: str) -> Component | None:
    """Return a version that another resource tells, as ``BiosVersion`` of a system."""
    version = words(body.get(key), NAME_CHARS_MAX)
    return Component(name=name, version=version) if version else None


def account(body: Object) -> Account | None:
    """Read a ManagerAccount; an empty slot is None."""
    username = words(body.get("UserName"), NAME_CHARS_MAX)
    if not username:
        return None
    return Account(
        id=words(body.get("Id"), NAME_CHARS_MAX), username=username,
        role=words(body.get("RoleId"), NAME_CHARS_MAX), enabled=body.get("Enabled") is True,
    )  # fmt: skip


What = Literal["media", "sensors", "events", "bios", "firmware", "accounts"]


def offered(system: Object, root: Object) -> Iterator[What]:
    """Say what a system and its service seem to have, by their links."""
    if link(system.get("VirtualMedia")) or links_of(system, "Links", "ManagedBy"):
        yield "media"
    if links_of(system, "Links", "Chassis") or link(root.get("Chassis")):
        yield "sensors"
    if link(system.get("LogServices")) or links_of(system, "Links", "ManagedBy"):
        yield "events"
    if link(system.get("Bios")):
        yield "bios"
    if link(root.get("UpdateService")) or words(system.get("BiosVersion")):
        yield "firmware"
    if link(root.get("AccountService")):
        yield "accounts"


def _map(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
