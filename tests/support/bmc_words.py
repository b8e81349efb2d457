"""What a BMC says, as drivers give it and as nodes pass it on."""

from typing import Any

from drivers.api import Bios, Component, Events, LogEntry, Reading, Thresholds
from mesh.proto import tables

READINGS = [
    Reading(name="CPU Temp", kind="temperature", unit="Cel", value=91.5, state="warning",
            thresholds=Thresholds(upper_warning=90, upper_critical=100)),
    Reading(name="Fan 1", kind="fan", unit="RPM", value=4200, state="ok",
            thresholds=Thresholds(lower_critical=600)),
    Reading(name="PSU 1", kind="other", unit="", value=None, state="ok", text="present"),
]  # fmt: skip
EVENTS = Events(
    entries=(
        LogEntry(id="2", at_ms=1_764_291_600_000, severity="critical", message="PSU: failed"),
        LogEntry(id="1", at_ms=None, severity="ok", message="log cleared"),
    ),
    more=True,
)
COMPONENTS = [Component(name="BIOS", version="2.4.1")]
BIOS = Bios(current={"BootMode": "Uefi", "Cores": 8}, pending={"BootMode": "Bios"})

_SAID: dict[str, dict[str, Any]] = {
    "sensors": {"readings": [
        {"name": "CPU Temp", "kind": "temperature", "unit": "Cel", "value": 91.5,
         "state": "warning", "text": "", "lower_critical": None, "lower_warning": None,
         "upper_warning": 90, "upper_critical": 100},
        {"name": "PSU 1", "kind": "other", "unit": "", "value": None, "state": "ok",
         "text": "present", "lower_critical": None, "lower_warning": None,
         "upper_warning": None, "upper_critical": None},
    ]},
    "events": {"more": True, "entries": [
        {"id": "2", "at_ms": 1_764_291_600_000, "severity": "critical",
         "message": "PSU 1: <failure>"},
        {"id": "1", "at_ms": None, "severity": "ok", "message": "log cleared"},
    ]},
    "firmware": {"components": [{"name": "BIOS", "version": "2.4.1"}]},
    "bios": {"current": {"BootMode": "Uefi"}, "pending": {"BootMode": "Bios"}},
}  # fmt: skip


def said(body: dict[str, Any], read_ms: int = 1_764_291_700_000) -> dict[str, Any]:
    """Answer a hub's call as a node does."""
    done = {"provider": "https://bmc", "verb": body["what"], "seconds": 0.1, "outcome": "done"}
    return {**_SAID[body["what"]], "read_ms": read_ms, "attempts": [done]}


def give_bmc(bench: Any) -> None:
    """Give web-1 of `fill` a BMC that its site's node speaks for."""
    scope = tables.site_scope("fra1")
    body = next(row.body for row in bench.rows.rows(scope, tables.SERVER) if row.key == "s1")
    bmc = {"url": "https://bmc-1.invalid", "secret": "bmc-1"}
    bench.rows.put(scope, tables.SERVER, "s1", **{**body, "bmc": bmc})
    bench.peers.answers["server.bmc"] = said
    bench.peers.answers["bmc.certificate"] = {
        "sha256": "ab" * 32, "subject": "CN=bmc-1", "until_ms": 1_900_000_000_000,
    }  # fmt: skip
