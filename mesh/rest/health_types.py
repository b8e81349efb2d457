"""What ``/api/v1`` shows of a server's BMC: read live, never kept, always with its age.

Shapes only; `mesh.rest.health_view` checks what a node sends. Rule: what the device does not
say is null, and a state that nobody judges is ``unknown``.
"""

from typing import Literal, TypedDict

State = Literal["ok", "warning", "critical", "unknown"]


class Reading(TypedDict):
    """One sensor."""

    name: str
    kind: Literal["temperature", "fan", "voltage", "current", "power", "other"]
    unit: str  # Cel, RPM, V, A, W, % or what the device calls it; empty without a number
    value: float | None
    state: State
    text: str  # what a sensor without a number says
    lower_critical: float | None
    lower_warning: float | None
    upper_warning: float | None
    upper_critical: float | None


class LogEntry(TypedDict):
    """One entry of an event log."""

    id: str
    at_ms: int | None  # Unix ms by the BMC's own clock; null: that was not set
    severity: Literal["ok", "warning", "critical"]
    message: str


class Component(TypedDict):
    """A piece of firmware."""

    name: str
    version: str


class Attempt(TypedDict):
    """One way to the BMC that was tried."""

    provider: str  # its URL
    verb: str
    seconds: float
    outcome: str  # "done", or the sentence of what went wrong


class BmcCertificate(TypedDict):
    """The certificate that a BMC shows to a node of a site; nobody has vouched for it."""

    url: str
    node: str  # id of the node that looked
    sha256: str
    subject: str
    until_ms: int | None


class _FromBmc(TypedDict):
    server: str  # id
    node: str  # id of the node that asked the BMC
    read_ms: int  # when, Unix ms
    attempts: list[Attempt]


class ServerSensors(_FromBmc):
    """The sensors of a server."""

    readings: list[Reading]


class ServerEvents(_FromBmc):
    """The newest entries of a server's event log, newest first."""

    entries: list[LogEntry]
    more: bool  # the log has older ones


class ServerFirmware(_FromBmc):
    """The versions of a server's firmware."""

    components: list[Component]


class ServerBios(_FromBmc):
    """The settings of a server's firmware, by the vendor's names."""

    current: dict[str, str | int | float | bool | None]
    pending: dict[str, str | int | float | bool | None]  # hold from the next start
