"""The virtual BMC's Redfish service without sockets: request in, answer and order out.

It knows no power supply: it shows the servers' state and says what was ordered. Rule: nothing
but an order that parses and fits changes anything; an unknown property is refused, not ignored.
Source: DMTF DSP0266 1.15, DSP2046 (ComputerSystem 1.22).
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from node.proto import rack_health
from node.proto.rack_inventory import links, part
from node.proto.rack_reply import Reply, Shown, not_allowed, refuse
from node.proto.rack_sessions import SERVICE, SESSIONS

BODY_BYTES_MAX: Final = 16 << 10
ROOT: Final = "/redfish/v1"
SYSTEMS: Final = f"{ROOT}/Systems"
ACCOUNT_SERVICE: Final = f"{ROOT}/AccountService"
ACCOUNTS: Final = f"{ACCOUNT_SERVICE}/Accounts"
ACCOUNT: Final = f"{ACCOUNTS}/1"
IMAGE: Final = re.compile(r"http://[!-~]{1,900}\Z")
PASSWORD: Final = re.compile(r"[ -~]{8,64}\Z")
RESET_TYPES: Final = ("On", "ForceOff", "GracefulShutdown")
TARGETS: Final = ("None", "Pxe", "Hdd", "Cd")
CONSOLES_MAX: Final = 8
"""Consoles of a server that are open at once."""
ENABLED: Final = ("Disabled", "Once", "Continuous")


@dataclass(frozen=True, slots=True)
class PowerOrder:
    """Bring a server's power to on or off."""

    name: str
    on: bool


@dataclass(frozen=True, slots=True)
class BootOrder:
    """Set a server's boot override."""

    name: str
    target: str
    enabled: str


@dataclass(frozen=True, slots=True)
class PasswordOrder:
    """Give the service's one account another password."""

    password: str


@dataclass(frozen=True, slots=True)
class MediaOrder:
    """Put the disc at a URL into a server's virtual CD drive; "" empties it."""

    name: str
    image: str


def respond(
    method: str,
    path: str,
    body: bytes,
    if_match: str | None,
    authorised: bool,
    servers: Sequence[Shown],
    username: str = "admin",
    upgrade: bool = False,
) -> Reply:
    """Answer one request; only the two root documents are open to strangers.

    ``upgrade``: it asks for a WebSocket.
    """
    path, _, query = path.partition("?")
    path = path.rstrip("/") or "/"
    if path == "/redfish":
        return Reply(200, {"v1": f"{ROOT}/"}) if method == "GET" else not_allowed(method)
    if path == ROOT:
        return Reply(200, _root()) if method == "GET" else not_allowed(method)
    if not authorised:
        return refuse(401, "NoValidSession", "There is no valid user name and password.")
    if path == SYSTEMS:
        return Reply(200, _systems(servers)) if method == "GET" else not_allowed(method)
    if path in (ACCOUNT_SERVICE, ACCOUNTS, ACCOUNT):
        return _account(method, path, body, username)
    for server in servers:
        own = f"{SYSTEMS}/{server.name}"
        if path == own:
            return _system(method, server, body, if_match)
        if path == f"{own}/Actions/ComputerSystem.Reset":
            return _reset(server, body) if method == "POST" else not_allowed(method)
        shown = part(own, path.removeprefix(own), server) if path.startswith(own) else None
        if shown is not None:
            return Reply(200, shown) if method == "GET" else not_allowed(method)
        if path.startswith(f"{own}/VirtualMedia"):
            return _media(method, path.removeprefix(f"{own}/VirtualMedia"), server, body)
        if path == f"{own}/SerialConsole":
            if method == "GET" and upgrade:
                return Reply(101, console=server.name)
            return refuse(426, "OperationNotAllowed", "This is a WebSocket.")
    health = rack_health.respond(method, path, query, body, if_match, servers)
    return health or refuse(
        404, "ResourceMissingAtURI", f"There is no resource at {path[:200]}."
    )


def _account(method: str, path: str, body: bytes, username: str) -> Reply:
    """Answer about the service's one account (DSP2046 AccountService, ManagerAccount)."""
    if method == "PATCH" and path == ACCOUNT:
        asked = _object(body)
        password = asked.get("Password") if asked is not None else None
        if asked is None or set(asked) != {"Password"}:
            return refuse(400, "PropertyUnknown", "Only the property Password can be changed.")
        if not isinstance(password, str) or not PASSWORD.match(password):
            text = "Password must have 8 to 64 printable ASCII characters."
            return refuse(400, "PropertyValueFormatError", text)
        return Reply(204, order=PasswordOrder(password))
    if method != "GET":
        return not_allowed(method)
    if path == ACCOUNT:
        shown = {"UserName": username, "Password": None, "RoleId": "Administrator"}
        return Reply(200, {"@odata.id": ACCOUNT, "Id": "1", "Enabled": True, **shown})
    if path == ACCOUNTS:
        return Reply(200, {"@odata.id": ACCOUNTS, "Members@odata.count": 1,
                           "Members": [{"@odata.id": ACCOUNT}]})  # fmt: skip
    return Reply(200, {"@odata.id": ACCOUNT_SERVICE, "Accounts": {"@odata.id": ACCOUNTS}})


def etag_of(server: Shown) -> str:
    """Return the entity tag of a system."""
    return f'W/"{server.revision}"'


def _system(method: str, server: Shown, body: bytes, if_match: str | None) -> Reply:
    if method == "GET":
        return Reply(200, _system_body(server), etag_of(server))
    if method != "PATCH":
        return not_allowed(method)
    if if_match is not None and if_match not in ("*", etag_of(server)):
        return refuse(412, "PreconditionFailed", "The system has changed since it was read.")
    asked = _object(body)
    boot = asked.get("Boot") if asked is not None else None
    if asked is None or not isinstance(boot, dict) or set(asked) != {"Boot"}:
        return refuse(400, "PropertyUnknown", "Only the property Boot can be changed.")
    allowed = {"BootSourceOverrideTarget": TARGETS, "BootSourceOverrideEnabled": ENABLED}
    for name, value in boot.items():
        if name not in allowed:
            text = f"The property {str(name)[:80]} cannot be changed."
            return refuse(400, "PropertyUnknown", text)
        if value not in allowed[name]:
            text = f"{name} must be one of {', '.join(allowed[name])}."
            return refuse(400, "PropertyValueNotInList", text)
    target = str(boot.get("BootSourceOverrideTarget", server.target))
    enabled = str(boot.get("BootSourceOverrideEnabled", server.enabled))
    if "BootSourceOverrideEnabled" not in boot and enabled == "Disabled":
        enabled = "Once"
    return Reply(204, order=BootOrder(server.name, target, enabled))


def _reset(server: Shown, body: bytes) -> Reply:
    asked = _object(body)
    kind = asked.get("ResetType") if asked is not None else None
    if kind not in RESET_TYPES:
        text = f"ResetType must be one of {', '.join(RESET_TYPES)}."
        return refuse(400, "ActionParameterValueNotInList", text)
    return Reply(204, order=PowerOrder(server.name, kind == "On"))


def _media(method: str, path: str, server: Shown, body: bytes) -> Reply:
    """Answer about a server's one virtual drive (DSP2046 VirtualMedia 1.3)."""
    own = f"{SYSTEMS}/{server.name}/VirtualMedia"
    insert, eject = (f"/Cd/Actions/VirtualMedia.{name}Media" for name in ("Insert", "Eject"))
    if path in ("", "/Cd") and method == "GET":
        return Reply(200, _drive_body(own, server) if path else _drives(own))
    if path not in (insert, eject):
        return refuse(404, "ResourceMissingAtURI", "There is no such virtual medium.")
    if method != "POST":
        return not_allowed(method)
    if path == eject:
        return Reply(204, order=MediaOrder(server.name, ""))
    image = (_object(body) or {}).get("Image")
    if not isinstance(image, str) or not IMAGE.match(image):
        return refuse(400, "ActionParameterValueError", "Image must be an http:// URL.")
    if server.image:
        return refuse(409, "ResourceInUse", "There is a disc in the drive: eject it first.")
    return Reply(204, order=MediaOrder(server.name, image))


def no_medium(why: str) -> Reply:
    """Return the answer to an order to insert what cannot be read."""
    return refuse(500, "InternalError", f"The image cannot be read: {why[:200]}.")


def _drives(own: str) -> dict[str, Any]:
    return {
        "@odata.id": own,
        "@odata.type": "#VirtualMediaCollection.VirtualMediaCollection",
        "Name": "Virtual media",
        "Members@odata.count": 1,
        "Members": [{"@odata.id": f"{own}/Cd"}],
    }


def _drive_body(own: str, server: Shown) -> dict[str, Any]:
    actions = f"{own}/Cd/Actions/VirtualMedia."
    return {
        "@odata.id": f"{own}/Cd",
        "@odata.type": "#VirtualMedia.v1_3_0.VirtualMedia",
        "Id": "Cd",
        "Name": "Virtual CD drive",
        "MediaTypes": ["CD", "DVD"],
        "Image": server.image or None,
        "ImageName": server.image.rpartition("/")[2] or None,
        "Inserted": bool(server.image),
        "WriteProtected": True,
        "ConnectedVia": "URI" if server.image else "NotConnected",
        "Actions": {
            "#VirtualMedia.InsertMedia": {"target": f"{actions}InsertMedia"},
            "#VirtualMedia.EjectMedia": {"target": f"{actions}EjectMedia"},
        },
    }


def _object(body: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _root() -> dict[str, Any]:
    return {
        "@odata.id": f"{ROOT}/",
        "@odata.type": "#ServiceRoot.v1_5_0.ServiceRoot",
        "Id": "RootService",
        "Name": "Rackmesh simulated rack",
        "RedfishVersion": "1.15.0",
        "Vendor": "Rackmesh",
        "Systems": {"@odata.id": SYSTEMS},
        "AccountService": {"@odata.id": ACCOUNT_SERVICE},
        "SessionService": {"@odata.id": SERVICE},
        "Links": {"Sessions": {"@odata.id": SESSIONS}},
        "Chassis": {"@odata.id": rack_health.CHASSIS},
        "UpdateService": {"@odata.id": rack_health.UPDATES},
        "ProtocolFeaturesSupported": {"ExpandQuery": {"NoLinks": True}},
    }


def _systems(servers: Sequence[Shown]) -> dict[str, Any]:
    return {
        "@odata.id": SYSTEMS,
        "@odata.type": "#ComputerSystemCollection.ComputerSystemCollection",
        "Name": "Simulated servers",
        "Members@odata.count": len(servers),
        "Members": [{"@odata.id": f"{SYSTEMS}/{server.name}"} for server in servers],
    }


def _system_body(server: Shown) -> dict[str, Any]:
    own = f"{SYSTEMS}/{server.name}"
    return {
        "@odata.id": own,
        "@odata.type": "#ComputerSystem.v1_22_0.ComputerSystem",
        "@odata.etag": etag_of(server),
        "Id": server.name,
        "Name": server.name,
        "SystemType": "Virtual",
        "Manufacturer": "Rackmesh",
        "Model": "Simulated server",
        "SerialNumber": server.serial,
        "UUID": server.uuid,
        "PowerState": server.power,
        "Status": {"State": "Enabled", "Health": "OK"},
        "MemorySummary": {"TotalSystemMemoryGiB": server.memory_bytes / (1 << 30)},
        "Boot": {
            "BootSourceOverrideTarget": server.target,
            "BootSourceOverrideTarget@Redfish.AllowableValues": list(TARGETS),
            "BootSourceOverrideEnabled": server.enabled,
        },
        "VirtualMedia": {"@odata.id": f"{own}/VirtualMedia"},
        "SerialConsole": {
            "MaxConcurrentSessions": CONSOLES_MAX,
            "WebSocket": {
                "ServiceEnabled": True,
                "ConsoleURI": f"{own}/SerialConsole",
                "Interactive": True,
            },
        },
        **links(own),
        **rack_health.links(server),
        "Actions": {
            "#ComputerSystem.Reset": {
                "target": f"{own}/Actions/ComputerSystem.Reset",
                "ResetType@Redfish.AllowableValues": list(RESET_TYPES),
            }
        },
    }
