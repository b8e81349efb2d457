"""Sensors, log, firmware settings and versions of a virtual BMC, without sockets.

It knows no power supply and no clock: it shows the servers' state. Rule: as in
`node.proto.rack_bmc`, which asks here for what it does not answer itself.
Source: DSP2046 (Chassis, Sensor, LogService, LogEntry, Bios, SoftwareInventory).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from node.proto.rack_reply import Reply, Shown, not_allowed, refuse

ROOT: Final = "/redfish/v1"
CHASSIS: Final = f"{ROOT}/Chassis"
UPDATES: Final = f"{ROOT}/UpdateService"
INVENTORY: Final = f"{UPDATES}/FirmwareInventory"
EVENTS_MAX: Final = 50
"""Entries of a server's log that are kept, the newest."""
BIOS: Final[Mapping[str, tuple[str, ...]]] = {
    "BootMode": ("Bios", "Uefi"),
    "HyperThreading": ("Enabled", "Disabled"),
    "PowerProfile": ("Balanced", "Performance", "Efficient"),
}
"""Settings of the firmware and their values, the one from the factory first."""
VERSIONS: Final = {"BIOS": "2.4.1", "BMC": "1.10.0"}


@dataclass(frozen=True, slots=True)
class BiosOrder:
    """Have these settings hold from a server's next start on."""

    name: str
    attributes: Mapping[str, str]


def respond(
    method: str, path: str, query: str, body: bytes, if_match: str | None,
    servers: Sequence[Shown],
) -> Reply | None:  # fmt: skip
    """Answer one request of somebody who is authorised; None when nothing here is meant."""
    if path == CHASSIS:
        return _only_get(method, _collection(path, [f"{path}/{s.name}" for s in servers]))
    if path == UPDATES or path.startswith(f"{UPDATES}/"):
        return _updates(method, path)
    for server in servers:
        if path == f"{CHASSIS}/{server.name}" or path.startswith(f"{CHASSIS}/{server.name}/"):
            return _chassis(method, path, query, server)
        own = f"{ROOT}/Systems/{server.name}"
        if path.startswith(f"{own}/LogServices"):
            return _log(method, path, own, server)
        if path in (f"{own}/Bios", f"{own}/Bios/Settings"):
            return _bios(method, path, own, body, if_match, server)
    return None


def links(server: Shown) -> dict[str, Any]:
    """Return what a ComputerSystem says of what is here."""
    own = f"{ROOT}/Systems/{server.name}"
    return {
        "BiosVersion": VERSIONS["BIOS"],
        "Bios": {"@odata.id": f"{own}/Bios"},
        "LogServices": {"@odata.id": f"{own}/LogServices"},
        "Links": {"Chassis": [{"@odata.id": f"{CHASSIS}/{server.name}"}]},
    }


def bios_of(kept: Mapping[str, str]) -> dict[str, str]:
    """Return all settings, those that were never set as from the factory."""
    return {name: kept.get(name, values[0]) for name, values in BIOS.items()}


# -- chassis -------------------------------------------------------------------------------


def _chassis(method: str, path: str, query: str, server: Shown) -> Reply:
    own = f"{CHASSIS}/{server.name}"
    sensors = {f"{own}/Sensors/{item['Id']}": item for item in _sensors(server)}
    if path == own:
        shown = {"Id": server.name, "Name": server.name, "ChassisType": "RackMount"}
        where = {"@odata.id": f"{own}/Sensors"}
        return _only_get(method, {"@odata.id": own, **shown, "Sensors": where})
    if path == f"{own}/Sensors":
        found = _collection(path, list(sensors))
        if "$expand=" in query:
            found["Members"] = [{"@odata.id": at, **item} for at, item in sensors.items()]
        return _only_get(method, found)
    if path in sensors:
        return _only_get(method, {"@odata.id": path, **sensors[path]})
    return _missing(path)


def _sensors(server: Shown) -> list[dict[str, Any]]:
    """Return plausible readings: a server that is off is cold, still and takes little."""
    on = server.power != "Off"
    warm = sum(server.serial.encode()) % 7
    limits = {"UpperCaution": 80, "UpperCritical": 95}
    return [
        _sensor("CPU1_Temp", "Temperature", "Cel", 38 + warm if on else 22, limits),
        _sensor("Inlet_Temp", "Temperature", "Cel", 21,
                {"UpperCaution": 35, "UpperCritical": 42}),
        _sensor("Fan1", "Rotational", "RPM", 4200 + 10 * warm if on else 0,
                {"LowerCritical": 500} if on else {}),
        _sensor("P12V", "Voltage", "V", 12.06 if on else 0.0,
                {"LowerCritical": 10.8, "UpperCritical": 13.2} if on else {}),
        _sensor("Power", "Power", "W", 120.0 + warm if on else 4.0, {}),
    ]  # fmt: skip


def _sensor(
    name: str, kind: str, unit: str, value: float, limits: Mapping[str, float]
) -> dict[str, Any]:
    return {
        "@odata.type": "#Sensor.v1_2_0.Sensor", "Id": name, "Name": name.replace("_", " "),
        "ReadingType": kind, "ReadingUnits": unit, "Reading": value,
        "Status": {"State": "Enabled", "Health": "OK"},
        "Thresholds": {where: {"Reading": limit} for where, limit in limits.items()},
    }  # fmt: skip


# -- log -----------------------------------------------------------------------------------


def _log(method: str, path: str, own: str, server: Shown) -> Reply:
    services = f"{own}/LogServices"
    if path == services:
        return _only_get(method, _collection(path, [f"{services}/SEL"]))
    if path == f"{services}/SEL":
        where = {"@odata.id": f"{path}/Entries"}
        shown = {"Id": "SEL", "Name": "Event log", "MaxNumberOfRecords": EVENTS_MAX}
        return _only_get(method, {"@odata.id": path, **shown, "Entries": where})
    if path == f"{services}/SEL/Entries":
        entries = [_entry(path, *event) for event in server.events]
        found = {**_collection(path, []), "Members@odata.count": len(entries)}
        return _only_get(method, {**found, "Members": entries})
    return _missing(path)


def _entry(where: str, number: int, at_ms: int, severity: str, text: str) -> dict[str, Any]:
    created = datetime.fromtimestamp(at_ms // 1000, UTC).isoformat()
    return {
        "@odata.id": f"{where}/{number}", "@odata.type": "#LogEntry.v1_9_0.LogEntry",
        "Id": str(number), "Name": f"Entry {number}", "EntryType": "SEL", "Created": created,
        "Severity": severity, "Message": text,
    }  # fmt: skip


# -- settings and versions -----------------------------------------------------------------


def _bios(
    method: str, path: str, own: str, body: bytes, if_match: str | None, server: Shown
) -> Reply:
    settings = f"{own}/Bios/Settings"
    if path != settings:
        attributes = bios_of(server.bios)
        return _only_get(method, {
            "@odata.id": path, "Id": "Bios", "Name": "BIOS", "Attributes": attributes,
            "@Redfish.Settings": {"SettingsObject": {"@odata.id": settings}},
        })  # fmt: skip
    etag = f'"{server.revision}"'
    if method == "GET":
        shown = {"@odata.id": path, "Id": "Settings", "Attributes": dict(server.bios_pending)}
        return Reply(200, shown, etag)
    if method != "PATCH":
        return not_allowed(method)
    if if_match not in (None, "*", etag):
        return refuse(412, "PreconditionFailed", "The settings have changed since.")
    return _set_bios(body, server)


def _set_bios(body: bytes, server: Shown) -> Reply:
    try:
        asked = json.loads(body)
    except (ValueError, RecursionError):
        asked = None
    asked = asked if isinstance(asked, dict) else {}
    wanted = asked.get("Attributes")
    if not isinstance(wanted, dict) or set(asked) != {"Attributes"}:
        return refuse(400, "PropertyUnknown", "Only the property Attributes can be changed.")
    for name, value in wanted.items():
        if name not in BIOS:
            return refuse(400, "PropertyUnknown", f"There is no setting {str(name)[:80]}.")
        if value not in BIOS[name]:
            text = f"{name} must be one of {', '.join(BIOS[name])}."
            return refuse(400, "PropertyValueNotInList", text)
    return Reply(204, order=BiosOrder(server.name, wanted))


def _updates(method: str, path: str) -> Reply:
    if path == UPDATES:
        where = {"@odata.id": INVENTORY}
        return _only_get(method, {"@odata.id": path, "FirmwareInventory": where})
    if path == INVENTORY:
        return _only_get(
            method, _collection(path, [f"{INVENTORY}/{name}" for name in VERSIONS])
        )
    name = path.removeprefix(f"{INVENTORY}/")
    if name in VERSIONS:
        shown = {"@odata.id": path, "Id": name, "Name": name, "Version": VERSIONS[name]}
        return _only_get(method, shown)
    return _missing(path)


def _collection(path: str, members: Sequence[str]) -> dict[str, Any]:
    return {
        "@odata.id": path, "Name": path.rpartition("/")[2], "Members@odata.count": len(members),
        "Members": [{"@odata.id": member} for member in members],
    }  # fmt: skip


def _only_get(method: str, body: dict[str, Any]) -> Reply:
    return Reply(200, body) if method == "GET" else not_allowed(method)


def _missing(path: str) -> Reply:
    return refuse(404, "ResourceMissingAtURI", f"There is no resource at {path[:200]}.")
