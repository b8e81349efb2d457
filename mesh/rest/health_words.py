"""Readings of sensors in words, for the command line and the pages; imports nothing."""

from collections.abc import Mapping
from typing import Any


def reading(one: Mapping[str, Any]) -> str:
    """Return a reading with its unit, or the words of a sensor without a number."""
    if one["value"] is None:
        return one["text"] or "–"
    unit = {"Cel": "°C"}.get(one["unit"], one["unit"])
    return f"{one['value']:g} {unit}".rstrip()


def limits(one: Mapping[str, Any]) -> str:
    """Return a sensor's limits: critical and warning below, warning and critical above."""
    low = [one[f"lower_{word}"] for word in ("critical", "warning")]
    high = [one[f"upper_{word}"] for word in ("warning", "critical")]
    parts: list[str] = []
    for sign, values in (("<", low), (">", high)):
        known = [f"{value:g}" for value in values if value is not None]
        if known:
            parts.append(f"{sign} {'/'.join(known)}")
    return ", ".join(parts)
