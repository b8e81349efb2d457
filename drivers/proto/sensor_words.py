"""What the states of IPMI sensors are called and how bad they are (IPMI 2.0, chapter 42).

Data and look-ups alone. The rule: a state that this table does not judge is ``unknown`` as a
sensor and ``ok`` as an event, because most discrete states report that something happened.
"""

from typing import Final, Literal

State = Literal["ok", "warning", "critical", "unknown"]
Bad = Literal["ok", "warning", "critical"]
Row = tuple[str, Bad]

TYPES: Final[dict[int, str]] = {
    0x01: "Temperature", 0x02: "Voltage", 0x03: "Current", 0x04: "Fan",
    0x05: "Physical security", 0x06: "Platform security", 0x07: "Processor",
    0x08: "Power supply", 0x09: "Power unit", 0x0A: "Cooling device", 0x0B: "Other units",
    0x0C: "Memory", 0x0D: "Drive slot", 0x0E: "Memory resize", 0x0F: "System firmware",
    0x10: "Event log", 0x11: "Watchdog 1", 0x12: "System event", 0x13: "Critical interrupt",
    0x14: "Button", 0x15: "Module", 0x16: "Microcontroller", 0x17: "Add-in card",
    0x18: "Chassis", 0x19: "Chip set", 0x1A: "Other FRU", 0x1B: "Cable", 0x1C: "Terminator",
    0x1D: "System boot", 0x1E: "Boot error", 0x1F: "OS boot", 0x20: "OS stop",
    0x21: "Slot", 0x22: "ACPI power state", 0x23: "Watchdog 2", 0x24: "Platform alert",
    0x25: "Entity presence", 0x26: "Monitor ASIC", 0x27: "LAN", 0x28: "Management health",
    0x29: "Battery", 0x2A: "Session audit", 0x2B: "Version change", 0x2C: "FRU state",
}  # fmt: skip
"""Sensor types (table 42-3)."""

THRESHOLD: Final[dict[int, Row]] = {
    0: ("lower non-critical, going low", "warning"),
    1: ("lower non-critical, going high", "warning"),
    2: ("lower critical, going low", "critical"),
    3: ("lower critical, going high", "critical"),
    4: ("lower non-recoverable, going low", "critical"),
    5: ("lower non-recoverable, going high", "critical"),
    6: ("upper non-critical, going low", "warning"),
    7: ("upper non-critical, going high", "warning"),
    8: ("upper critical, going low", "critical"),
    9: ("upper critical, going high", "critical"),
    10: ("upper non-recoverable, going low", "critical"),
    11: ("upper non-recoverable, going high", "critical"),
}
"""Generic event type 0x01 (table 42-2)."""

GENERIC: Final[dict[int, dict[int, Row]]] = {
    0x02: {0: ("idle", "ok"), 1: ("active", "ok"), 2: ("busy", "ok")},
    0x03: {0: ("deasserted", "ok"), 1: ("asserted", "ok")},
    0x04: {0: ("no failure predicted", "ok"), 1: ("failure predicted", "warning")},
    0x05: {0: ("limit not exceeded", "ok"), 1: ("limit exceeded", "warning")},
    0x06: {0: ("performance met", "ok"), 1: ("performance lags", "warning")},
    0x07: {
        0: ("ok", "ok"), 1: ("non-critical", "warning"), 2: ("critical", "critical"),
        3: ("non-recoverable", "critical"), 4: ("non-critical", "warning"),
        5: ("critical", "critical"), 6: ("non-recoverable", "critical"),
        7: ("monitor", "ok"), 8: ("informational", "ok"),
    },
    0x08: {0: ("removed", "ok"), 1: ("present", "ok")},
    0x09: {0: ("disabled", "ok"), 1: ("enabled", "ok")},
    0x0B: {
        0: ("fully redundant", "ok"), 1: ("redundancy lost", "critical"),
        2: ("redundancy degraded", "warning"), 3: ("not redundant", "warning"),
        4: ("not redundant, regained minimum", "warning"),
        5: ("not redundant: insufficient resources", "critical"),
        6: ("redundancy degraded from full", "warning"),
        7: ("redundancy degraded from none", "warning"),
    },
    0x0C: {0: ("D0", "ok"), 1: ("D1", "ok"), 2: ("D2", "ok"), 3: ("D3", "ok")},
}  # fmt: skip
"""Generic event types 0x02 to 0x0C (table 42-2)."""

SPECIFIC: Final[dict[int, dict[int, Row]]] = {
    0x05: {0: ("chassis intrusion", "warning"), 4: ("LAN leash lost", "warning")},
    0x07: {
        0: ("internal error", "critical"), 1: ("thermal trip", "critical"),
        2: ("self test failed", "critical"), 5: ("configuration error", "critical"),
        7: ("present", "ok"), 8: ("disabled", "warning"), 10: ("throttled", "warning"),
        11: ("uncorrectable machine check", "critical"),
    },
    0x08: {
        0: ("present", "ok"), 1: ("failure", "critical"), 2: ("failure predicted", "warning"),
        3: ("input lost", "critical"), 4: ("input lost or out of range", "critical"),
        5: ("input out of range", "warning"), 6: ("configuration error", "warning"),
    },
    0x09: {
        0: ("power off", "ok"), 1: ("power cycle", "ok"), 4: ("AC lost", "critical"),
        5: ("soft power failure", "critical"), 6: ("power unit failure", "critical"),
        7: ("failure predicted", "warning"),
    },
    0x0C: {
        0: ("correctable error", "warning"), 1: ("uncorrectable error", "critical"),
        2: ("parity error", "critical"), 3: ("scrub failed", "warning"),
        4: ("device disabled", "warning"), 5: ("too many correctable errors", "warning"),
        6: ("present", "ok"), 7: ("configuration error", "critical"), 8: ("spare", "ok"),
        9: ("throttled", "warning"), 10: ("critical overtemperature", "critical"),
    },
    0x0D: {
        0: ("drive present", "ok"), 1: ("drive fault", "critical"),
        2: ("failure predicted", "warning"), 3: ("hot spare", "ok"),
        5: ("in critical array", "critical"), 6: ("in failed array", "critical"),
        7: ("rebuild in progress", "warning"),
    },
    0x0F: {0: ("firmware error", "critical"), 1: ("firmware hang", "critical"),
           2: ("firmware progress", "ok")},
    0x10: {
        0: ("correctable errors not logged any more", "warning"), 2: ("log cleared", "ok"),
        4: ("log full", "warning"), 5: ("log almost full", "warning"),
    },
    0x12: {0: ("reconfigured", "ok"), 1: ("OEM system boot", "ok"), 5: ("clock changed", "ok")},
    0x13: {
        0: ("front panel interrupt", "warning"), 1: ("bus timeout", "critical"),
        4: ("PCI parity error", "critical"), 5: ("PCI system error", "critical"),
        7: ("bus correctable error", "warning"), 8: ("bus uncorrectable error", "critical"),
        9: ("fatal NMI", "critical"), 10: ("bus fatal error", "critical"),
    },
    0x14: {0: ("power button pressed", "ok"), 2: ("reset button pressed", "ok")},
    0x1D: {0: ("started by power up", "ok"), 1: ("started by hard reset", "ok"),
           2: ("started by warm reset", "ok"), 7: ("system restart", "ok")},
    0x1E: {0: ("no bootable medium", "critical"), 2: ("no PXE server", "critical"),
           3: ("invalid boot sector", "critical")},
    0x20: {0: ("stop during load", "critical"), 1: ("run-time stop", "critical"),
           2: ("graceful stop", "ok"), 3: ("graceful shutdown", "ok")},
    0x22: {0: ("S0/G0: working", "ok"), 5: ("S4/S5: soft off", "ok"), 6: ("off", "ok")},
    0x23: {0: ("timer expired", "warning"), 1: ("hard reset", "critical"),
           2: ("power down", "critical"), 3: ("power cycle", "critical")},
    0x25: {0: ("present", "ok"), 1: ("absent", "ok"), 2: ("disabled", "ok")},
    0x28: {0: ("sensor access degraded", "warning"), 1: ("controller degraded", "warning"),
           2: ("controller off line", "critical"), 4: ("sensor failure", "warning")},
    0x29: {0: ("low", "warning"), 1: ("failed", "critical"), 2: ("present", "ok")},
    0x2B: {0: ("hardware change", "ok"), 1: ("firmware change", "ok"),
           7: ("firmware changed", "ok")},
}  # fmt: skip
"""Event type 0x6F by sensor type (table 42-3): those that operators ask about."""

_ORDER: Final = ("ok", "warning", "critical")


def look_up(sensor_type: int, event_type: int, offset: int) -> Row | None:
    """Return words and badness of a state, None where the table has none."""
    if event_type == 0x01:
        return THRESHOLD.get(offset)
    if event_type == 0x6F:
        return SPECIFIC.get(sensor_type, {}).get(offset)
    return GENERIC.get(event_type, {}).get(offset)


def states(sensor_type: int, event_type: int, bits: int) -> tuple[State, str]:
    """Return the worst state and the words of a discrete sensor's bits (35.14)."""
    worst: State = "unknown"
    said: list[str] = []
    for offset in range(15):
        if not bits >> offset & 1:
            continue
        row = look_up(sensor_type, event_type, offset)
        said.append(row[0] if row is not None else f"state {offset}")
        if row is not None and (
            worst == "unknown" or _ORDER.index(row[1]) > _ORDER.index(worst)
        ):
            worst = row[1]
    return worst, ", ".join(said)


def type_name(sensor_type: int) -> str:
    """Return what a sensor type is called."""
    return TYPES.get(sensor_type, f"type 0x{sensor_type:02x}")
