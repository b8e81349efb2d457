"""What any BMC says about its server's health, whatever the protocol: plain values.

Knows no protocol. The rule: units are SI (`Cel`, `RPM`, `V`, `A`, `W`, `%`), a value that the
device did not give is None, and a state that it does not tell is ``unknown``, never ``ok``.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

Kind = Literal["temperature", "fan", "voltage", "current", "power", "other"]
State = Literal["ok", "warning", "critical", "unknown"]
Severity = Literal["ok", "warning", "critical"]

READINGS_MAX: Final = 512
EVENTS_MAX: Final = 200
"""Entries of an event log that are given out, the newest."""
COMPONENTS_MAX: Final = 128
ACCOUNTS_MAX: Final = 64
ATTRIBUTES_MAX: Final = 2000
TEXT_CHARS_MAX: Final = 300
NAME_CHARS_MAX: Final = 80


@dataclass(frozen=True, kw_only=True, slots=True)
class Thresholds:
    """Where a reading becomes bad, in the reading's unit; None where there is none."""

    lower_critical: float | None = None
    lower_warning: float | None = None
    upper_warning: float | None = None
    upper_critical: float | None = None


NO_THRESHOLDS: Final = Thresholds()


@dataclass(frozen=True, kw_only=True, slots=True)
class Reading:
    """One sensor, now. ``text`` is what a sensor without a number says."""

    name: str
    kind: Kind
    unit: str
    value: float | None
    state: State
    thresholds: Thresholds = NO_THRESHOLDS
    text: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class LogEntry:
    """One entry of an event log; ``at_ms`` is Unix ms by the BMC's own clock, None: not set."""

    id: str
    at_ms: int | None
    severity: Severity
    message: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Events:
    """The newest entries, newest first; ``more``: the log has older ones that were left out."""

    entries: tuple[LogEntry, ...]
    more: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Component:
    """One piece of firmware; ``version`` is the maker's own text."""

    name: str
    version: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Account:
    """One account of the BMC."""

    id: str
    username: str
    role: str
    enabled: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Certificate:
    """What a BMC shows before any login; ``until_ms``: Unix ms, None when it is unreadable."""

    sha256: str
    subject: str
    until_ms: int | None


Attribute = str | int | float | bool | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Bios:
    """Firmware settings: what holds now, and what will after the next start."""

    current: Mapping[str, Attribute] = field(default_factory=dict)
    pending: Mapping[str, Attribute] = field(default_factory=dict)


def words(value: object, limit: int = TEXT_CHARS_MAX) -> str:
    """Return a device's text as one printable line of at most ``limit`` characters."""
    if not isinstance(value, str):
        return ""
    line = " ".join(value[: 4 * limit].split())
    line = "".join(c if c.isprintable() else "?" for c in line)
    return line if len(line) <= limit else line[: limit - 1] + "…"


def number(value: object) -> float | None:
    """Return a device's number, None for anything that is none or not finite."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        found = float(value)
    except OverflowError:
        return None
    return found if math.isfinite(found) else None


def judge(value: float | None, limits: Thresholds) -> State:
    """Judge a value by its thresholds; ``unknown`` without a value or without any of them."""
    known = [limits.lower_critical, limits.lower_warning,
             limits.upper_warning, limits.upper_critical]  # fmt: skip
    if value is None or all(limit is None for limit in known):
        return "unknown"
    if _beyond(value, limits.lower_critical, limits.upper_critical):
        return "critical"
    if _beyond(value, limits.lower_warning, limits.upper_warning):
        return "warning"
    return "ok"


def _beyond(value: float, low: float | None, high: float | None) -> bool:
    return (low is not None and value <= low) or (high is not None and value >= high)
