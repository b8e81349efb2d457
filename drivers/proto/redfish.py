"""Redfish (DMTF DSP0266, DSP2046) without I/O: what bodies mean and what to send next.

Knows no transport, no time and no password. The rule: a body is hostile until parsed here; a
value of a wrong type counts as absent, and a link is followed only as a path on the same host.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal
from urllib.parse import unquote, urlsplit

from drivers.proto.quirks import Quirks

MAX_BODY_BYTES: Final = 1 << 20
MAX_DEPTH: Final = 32
MAX_MEMBERS: Final = 64
MAX_LINK_CHARS: Final = 512
MAX_SENTENCE_CHARS: Final = 300
ROOT_PATH: Final = "/redfish/v1/"

Power = Literal["on", "off", "unknown"]

_LINK = re.compile(r"/(?!/)[!-~]*\Z")
_BOOT_TARGET: Final[Mapping[str, str]] = {
    "network": "Pxe",
    "disk": "Hdd",
    "cd": "Cd",
}
_BOOT_DEVICE: Final[Mapping[str, Literal["network", "disk", "cd"]]] = {
    "Pxe": "network",
    "UefiHttp": "network",
    "Hdd": "disk",
    "Cd": "cd",
}
_RESET_ON: Final = ("On", "ForceOn")
_RESET_OFF: Final = ("ForceOff",)
_MOVING: Final = frozenset({"PoweringOn", "PoweringOff"})


class NotRedfish(ValueError):
    """A body that is no Redfish resource; ``str(error)`` says why in a few words."""


@dataclass(frozen=True, slots=True)
class Address:
    """A BMC address taken apart: ``origin`` is scheme://host[:port], ``system`` a path."""

    origin: str
    host: str
    port: int
    tls: bool
    system: str | None


@dataclass(frozen=True, slots=True)
class ServiceRoot:
    """What of the service root matters here."""

    systems: str | None
    sessions: str | None
    accounts: str | None
    vendor: str


@dataclass(frozen=True, slots=True)
class System:
    """What of a ComputerSystem matters here; absent values are empty."""

    path: str
    manufacturer: str
    power: Power
    moving: bool
    boot_target: str
    boot_enabled: str
    boot_mode: str
    reset_path: str
    reset_types: tuple[str, ...]
    etag: str


def parse_address(url: str) -> Address:
    """Take apart a BMC address; ValueError carries one sentence for people."""
    if len(url) > MAX_LINK_CHARS or not url.isprintable():
        raise ValueError("a BMC address must be printable and at most 512 characters long")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as exc:
        raise ValueError(f"BMC address {url!r} is not a URL: {exc}") from exc
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(
            f"BMC address {url!r} must look like https://HOST/redfish/v1/Systems/ID"
        )
    if parts.username is not None or parts.password is not None:
        raise ValueError(
            "a BMC address must not hold a user or password: they belong in a secret"
        )
    tls = parts.scheme == "https"
    path = parts.path.rstrip("/")
    if path and link(path) is None:
        raise ValueError(f"BMC address {url!r} has a path that is not plain ASCII")
    at_root = path in ("", "/redfish", "/redfish/v1")
    return Address(
        origin=f"{parts.scheme}://{parts.netloc}",
        host=parts.hostname,
        port=port or (443 if tls else 80),
        tls=tls,
        system=None if at_root else path,
    )


def decode(body: bytes) -> dict[str, Any]:
    """Return a JSON object that is neither too large nor too deep, or raise NotRedfish."""
    if len(body) > MAX_BODY_BYTES:
        raise NotRedfish(f"an answer of more than {MAX_BODY_BYTES} bytes")
    try:
        value = json.loads(body)
    except RecursionError:
        raise NotRedfish("JSON that is nested too deep") from None
    except ValueError:  # bad JSON, bad UTF-8, numbers of absurd length
        raise NotRedfish("something that is not JSON") from None
    if not isinstance(value, dict):
        raise NotRedfish("JSON that is not an object")
    if _deeper_than(value, MAX_DEPTH):
        raise NotRedfish("JSON that is nested too deep")
    return value


def _deeper_than(value: Any, limit: int) -> bool:
    level: list[Any] = [value]
    for _ in range(limit):
        below: list[Any] = []
        for item in level:
            inside = item.values() if isinstance(item, dict) else item
            below.extend(x for x in inside if isinstance(x, dict | list))
        if not below:
            return False
        level = below
    return True


def link(value: object) -> str | None:
    """Return a link as a path on the same host, or None when it is anything else."""
    if isinstance(value, dict):
        value = value.get("@odata.id")
    if not isinstance(value, str) or len(value) > MAX_LINK_CHARS or not _LINK.match(value):
        return None
    if ".." in unquote(value).split("/"):
        return None
    return value


def parse_root(body: Mapping[str, Any]) -> ServiceRoot:
    """Read the service root (DSP2046 ServiceRoot)."""
    links = _mapping(body.get("Links"))
    vendor = _text(body.get("Vendor"))
    if not vendor:
        vendor = next((k for k in _mapping(body.get("Oem")) if not k.startswith("@")), "")
    return ServiceRoot(
        systems=link(body.get("Systems")),
        sessions=link(links.get("Sessions")),
        accounts=link(body.get("AccountService")),
        vendor=vendor,
    )


def parse_accounts(body: Mapping[str, Any]) -> str | None:
    """Return the path of the collection of accounts (DSP2046 AccountService)."""
    return link(body.get("Accounts"))


def is_account(body: Mapping[str, Any], username: str) -> bool:
    """Tell whether a ManagerAccount is the one with this user name."""
    return body.get("UserName") == username


def parse_members(body: Mapping[str, Any]) -> list[str]:
    """Return the paths in a collection, at most MAX_MEMBERS of them."""
    members = body.get("Members")
    if not isinstance(members, list):
        raise NotRedfish("a collection without a list of members")
    found = [path for item in members[:MAX_MEMBERS] if (path := link(item)) is not None]
    return sorted(set(found))


def parse_system(body: Mapping[str, Any], path: str, etag_header: str | None) -> System:
    """Read a ComputerSystem; wrong types count as absent, a stranger is NotRedfish."""
    if "PowerState" not in body and "Boot" not in body and "Actions" not in body:
        raise NotRedfish("JSON that is no computer system")
    power = _text(body.get("PowerState"))
    boot = _mapping(body.get("Boot"))
    reset = _mapping(_mapping(body.get("Actions")).get("#ComputerSystem.Reset"))
    types = reset.get("ResetType@Redfish.AllowableValues")
    return System(
        path=path,
        manufacturer=_text(body.get("Manufacturer")),
        power="on" if power == "On" else "off" if power == "Off" else "unknown",
        moving=power in _MOVING,
        boot_target=_text(boot.get("BootSourceOverrideTarget")),
        boot_enabled=_text(boot.get("BootSourceOverrideEnabled")),
        boot_mode=_text(boot.get("BootSourceOverrideMode")),
        reset_path=link(reset.get("target")) or f"{path}/Actions/ComputerSystem.Reset",
        reset_types=tuple(t for t in types if isinstance(t, str))
        if isinstance(types, list)
        else (),
        etag=entity_tag(etag_header, body),
    )


def parse_console(body: Mapping[str, Any]) -> str | None:
    """Return the path of a system's console as WebSocket (ComputerSystem 1.22), None for none.

    ConsoleURI is a URI; one on another host, and one that is switched off, are as if absent.
    """
    web = _mapping(_mapping(body.get("SerialConsole")).get("WebSocket"))
    if web.get("ServiceEnabled") is False:
        return None
    return link(web.get("ConsoleURI"))


@dataclass(frozen=True, slots=True)
class Reached:
    """The power is what was asked for."""


@dataclass(frozen=True, slots=True)
class Ask:
    """Send this reset type now."""

    reset_type: str


@dataclass(frozen=True, slots=True)
class Wait:
    """Look again later."""


@dataclass(frozen=True, slots=True)
class CannotAsk:
    """The system offers no reset type that does it."""

    sentence: str


def power_step(system: System, on: bool, asked: bool) -> Reached | Ask | Wait | CannotAsk:
    """Decide what to do next on the way to a power state; a moving system is left alone."""
    if system.power == ("on" if on else "off"):
        return Reached()
    if asked or system.moving:
        return Wait()
    wanted = _RESET_ON if on else _RESET_OFF
    if not system.reset_types:
        return Ask(wanted[0])
    for reset_type in wanted:
        if reset_type in system.reset_types:
            return Ask(reset_type)
    offered = ", ".join(system.reset_types[:12])
    return CannotAsk(f"offers no reset type {' or '.join(wanted)}, only {clip(offered)}")


def boot_bodies(
    system: System, device: Literal["network", "disk", "cd"], quirks: Quirks
) -> list[dict[str, Any]]:
    """Return the PATCH bodies to try in order, each when the one before was answered 400."""
    tries = {
        "network": quirks.enabled_network,
        "disk": quirks.enabled_disk,
        "cd": quirks.enabled_cd,
    }[device]
    bodies: list[dict[str, Any]] = []
    for enabled in tries:
        boot: dict[str, Any] = {
            "BootSourceOverrideEnabled": enabled,
            "BootSourceOverrideTarget": _BOOT_TARGET[device],
        }
        if quirks.send_mode and system.boot_mode:
            boot["BootSourceOverrideMode"] = system.boot_mode
        bodies.append({"Boot": boot})
    return bodies


def boot_device(system: System) -> Literal["network", "disk", "cd", "other"]:
    """Return what the system says it boots from next; Once and Continuous count the same."""
    if system.boot_enabled == "Disabled":
        return "other"
    return _BOOT_DEVICE.get(system.boot_target, "other")


def entity_tag(header: str | None, body: Mapping[str, Any]) -> str:
    """Return the entity tag of an answer, by its header or its body; empty for none."""
    return _header_safe(header) or _header_safe(body.get("@odata.etag"))


def if_match_values(etag: str) -> list[str | None]:
    """Return If-Match values to try in order, each when the one before was answered 412 or 428.

    Services differ in quoting (gofish#275, community.general#3268) and in weak tags.
    """
    if not etag:
        return [None, "*"]
    bare = etag.removeprefix("W/").strip('"')
    values: list[str | None] = [etag]
    for other in (f'"{bare}"', bare, "*"):
        if other not in values:
            values.append(other)
    return values


def session_path(location: str | None, body: bytes) -> str | None:
    """Return the path of a new session (DSP0266 section 13.3.4.2), to end it by."""
    if location is not None and (path := link(urlsplit(location).path)) is not None:
        return path
    try:
        return link(decode(body))
    except NotRedfish:
        return None


def refusal(body: bytes) -> str:
    """Return what an error body says to people (DSP0266 section 8.6), or nothing."""
    try:
        error = _mapping(decode(body).get("error"))
    except NotRedfish:
        return ""
    infos = error.get("@Message.ExtendedInfo")
    for info in infos[:4] if isinstance(infos, list) else []:
        text = _text(_mapping(info).get("Message"))
        if text:
            return clip(text)
    return clip(_text(error.get("message")))


def clip(text: str) -> str:
    """Return a device's own words as one short printable line."""
    line = " ".join(text.split())
    line = "".join(c if c.isprintable() else "?" for c in line)
    return line if len(line) <= MAX_SENTENCE_CHARS else line[:MAX_SENTENCE_CHARS] + "…"


def _mapping(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: object) -> str:
    return value[:MAX_LINK_CHARS] if isinstance(value, str) else ""


def _header_safe(value: object) -> str:
    text = _text(value)
    return text if text.isascii() and text.isprintable() else ""
