"""What a node says of a BMC, checked before anybody sees it.

Knows no peer and no clock. Rule: the answer of another member is input from outside: it has its
type and its limits, or it is nothing.
"""

import math
from collections.abc import Mapping
from typing import Any, Final, Literal, cast, get_args

import msgspec

from mesh.rest.health_types import (
    BmcCertificate,
    ServerBios,
    ServerEvents,
    ServerFirmware,
    ServerSensors,
)

Asked = Literal["sensors", "events", "firmware", "bios"]
ASKED: Final[tuple[Asked, ...]] = get_args(Asked)
OPERATION_OF: Final[Mapping[str, Asked]] = {
    "getServerSensors": "sensors", "getServerEvents": "events",
    "getServerFirmware": "firmware", "getServerBios": "bios",
}  # fmt: skip
"""What each operation of the API asks for."""
METHOD: Final = "server.bmc"
"""The call from a hub or node to a node of the server's site: {"server": id, "what": Asked}."""
LOOK: Final = "bmc.certificate"
"""The call for what a BMC's address shows: {"url": text}."""
NODE_S: Final = 24.0
"""What a node takes at most for one answer, the wait for its turn included."""
CALL_S: Final = 27.0
"""What a hub waits for a node; less than clients wait for the hub."""
ENTRIES_MAX: Final = 2000
TEXT_CHARS_MAX: Final = 600

Answer = ServerSensors | ServerEvents | ServerFirmware | ServerBios
_TYPES: Final[Mapping[Asked, Any]] = {
    "sensors": ServerSensors, "events": ServerEvents, "firmware": ServerFirmware,
    "bios": ServerBios,
}  # fmt: skip


def checked(what: Asked, server: str, node: str, answer: Any) -> Answer | None:
    """Return a node's answer about a server as the API shows it, None when it is none."""
    if not isinstance(answer, Mapping):
        return None
    told = {**answer, "server": server, "node": node}
    if not _bounded(told, 4):
        return None
    try:
        return cast(Answer, msgspec.convert(told, _TYPES[what]))
    except (msgspec.ValidationError, RecursionError):
        return None


def checked_certificate(url: str, node: str, answer: Any) -> BmcCertificate | None:
    """Return a node's answer about an address, None when it is none."""
    told = {**answer, "url": url, "node": node} if isinstance(answer, Mapping) else None
    if told is None or not _bounded({**told, "url": ""}, 2):
        return None
    try:
        found = msgspec.convert(told, BmcCertificate)
    except msgspec.ValidationError:
        return None
    whole = len(found["sha256"]) == 64 and not set(found["sha256"]) - set("0123456789abcdef")
    return found if whole else None


def _bounded(value: Any, depth: int) -> bool:
    """Tell whether nothing in it is too long, too deep or not a number of JSON."""
    if isinstance(value, str):
        return len(value) <= TEXT_CHARS_MAX
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, int):
        return abs(value) < 1 << 53
    if value is None:
        return True
    if depth == 0 or not isinstance(value, Mapping | list) or len(value) > ENTRIES_MAX:
        return False
    if isinstance(value, list):
        return all(_bounded(item, depth - 1) for item in value)
    return all(isinstance(k, str) and len(k) <= TEXT_CHARS_MAX for k in value) and all(
        _bounded(item, depth - 1) for item in value.values()
    )
