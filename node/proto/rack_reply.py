"""What a virtual BMC shows of a server, and the form of its answers (DMTF DSP0266).

Data alone; `node.proto.rack_bmc` and `node.proto.rack_health` fill it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Power = Literal["On", "Off", "PoweringOff"]
Event = tuple[int, int, str, str]
"""Number, Unix ms, Redfish severity, text."""


@dataclass(frozen=True, slots=True)
class Shown:
    """What the BMC shows of one server; ``revision`` changes whenever anything else does."""

    name: str
    uuid: str
    serial: str
    mac: str
    power: Power
    target: str
    enabled: str
    memory_bytes: int
    revision: int
    disk_bytes: int = 0
    image: str = ""
    """URL of the disc in the virtual CD drive; empty: none."""
    events: tuple[Event, ...] = ()
    bios: Mapping[str, str] = field(default_factory=dict)
    """Firmware settings that hold, by name; those never set are missing."""
    bios_pending: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Reply:
    """What to answer, after ``order`` (one of the dataclasses ``...Order``) was carried out."""

    status: int
    body: dict[str, Any] | None = None
    etag: str | None = None
    order: object = None
    console: str | None = None
    """The server whose console a WebSocket is opened to, instead of an answer."""


def not_allowed(method: str) -> Reply:
    """Return the answer to a method that a resource does not take."""
    return refuse(405, "OperationNotAllowed", f"{method[:20]} is not possible here.")


def refuse(status: int, message: str, text: str) -> Reply:
    """Return an error (DSP0266 section 8.6)."""
    info: Mapping[str, Any] = {"MessageId": f"Base.1.8.{message}", "Message": text}
    error = {"code": f"Base.1.8.{message}", "message": text, "@Message.ExtendedInfo": [info]}
    return Reply(status, {"error": error})
