"""The IPMI system event log (IPMI 2.0, chapters 31, 32 and 42) without I/O.

Knows no session and no clock. The rule: a record is hostile until parsed here; what a record
means is said in words, and in its bytes where no table has words for it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from drivers.proto import sensor_words
from drivers.proto.health import TEXT_CHARS_MAX, LogEntry, Severity
from drivers.proto.ipmi import Command, NotIpmi

FIRST, LAST = 0x0000, 0xFFFF
RECORD_BYTES: Final = 16
NOT_PRESENT: Final = 0xCB
_SYSTEM, _OEM_TIMED, _OEM = 0x02, 0xC0, 0xE0
_UNSET_BELOW_S: Final = 0x2000_0000
"""Times below count from the BMC's start, whose hour nobody knows (37.1)."""
_NEVER: Final = 0xFFFF_FFFF

INFO: Final = Command("Get SEL Info", 0x0A, 0x40)


@dataclass(frozen=True, slots=True)
class Info:
    """How much stands in the log."""

    entries: int


@dataclass(frozen=True, slots=True)
class Entry:
    """One record and the id of the one after it."""

    next_id: int
    record: bytes

    @property
    def id(self) -> int:
        """The record's own id."""
        return int.from_bytes(self.record[:2], "little")


def get_entry(record: int) -> Command:
    """Ask for one whole record; FIRST and LAST name the oldest and the newest (31.5)."""
    assert 0 <= record <= LAST
    return Command(
        "Get SEL Entry", 0x0A, 0x43, b"\0\0" + record.to_bytes(2, "little") + b"\0\xff"
    )


def parse_info(data: bytes) -> Info:
    """Read Get SEL Info (31.2)."""
    if len(data) < 3:
        raise NotIpmi(f"an answer of {len(data)} bytes, where 3 are due")
    return Info(int.from_bytes(data[1:3], "little"))


def parse_entry(data: bytes) -> Entry:
    """Read Get SEL Entry (31.5)."""
    if len(data) < 2 + RECORD_BYTES:
        raise NotIpmi(f"an answer of {len(data)} bytes, where {2 + RECORD_BYTES} are due")
    return Entry(int.from_bytes(data[:2], "little"), data[2 : 2 + RECORD_BYTES])


def meaning(record: bytes, names: Mapping[int, str]) -> LogEntry:
    """Say a record in words (32.1); ``names`` are the BMC's sensors by number."""
    assert len(record) == RECORD_BYTES
    kind = record[2]
    id_ = str(int.from_bytes(record[:2], "little"))
    if kind >= _OEM:
        return LogEntry(id=id_, at_ms=None, severity="ok", message=_raw("OEM", record[3:]))
    at_ms = _time(int.from_bytes(record[3:7], "little"))
    if kind >= _OEM_TIMED or kind != _SYSTEM:
        what = "OEM" if kind >= _OEM_TIMED else f"record type 0x{kind:02x}"
        return LogEntry(id=id_, at_ms=at_ms, severity="ok", message=_raw(what, record[7:]))
    severity, message = _event(record, names)
    return LogEntry(id=id_, at_ms=at_ms, severity=severity, message=message[:TEXT_CHARS_MAX])


def _event(record: bytes, names: Mapping[int, str]) -> tuple[Severity, str]:
    sensor_type, number = record[10], record[11]
    gone, event_type = bool(record[12] & 0x80), record[12] & 0x7F
    offset = record[13] & 0x0F
    own = record[7] == 0x20 and record[8] & 0x03 == 0
    name = names.get(number) if own else None
    subject = sensor_words.type_name(sensor_type)
    subject += f" {name}" if name else f" sensor {number}"
    row = sensor_words.look_up(sensor_type, event_type, offset)
    said, bad = row if row is not None else (f"event {event_type:#04x}/{offset}", "ok")
    detail = "" if row is not None else f" ({record[13:16].hex(' ')})"
    tail = ", no longer" if gone else ""
    return "ok" if gone else bad, f"{subject}: {said}{tail}{detail}"


def _raw(what: str, data: bytes) -> str:
    return f"{what}: {data.hex(' ')}"


def _time(seconds: int) -> int | None:
    """Return Unix ms; BMCs keep no zone (37.1), so their clock is taken for UTC."""
    if seconds < _UNSET_BELOW_S or seconds == _NEVER:
        return None
    return seconds * 1000
