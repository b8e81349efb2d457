"""IPMI sensor data records (IPMI 2.0, chapters 33, 35, 36 and 43) without I/O.

Knows no session and no time. The rule: records and readings are hostile until parsed here; a
record that cannot be read counts as absent, a reading that makes no sense raises NotIpmi.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from drivers.proto import sensor_words
from drivers.proto.health import (
    NAME_CHARS_MAX,
    NO_THRESHOLDS,
    Kind,
    Reading,
    State,
    Thresholds,
    words,
)
from drivers.proto.ipmi import Command, NotIpmi

HEADER_BYTES: Final = 5
RECORD_BYTES_MAX: Final = HEADER_BYTES + 255
RECORDS_MAX: Final = 512
"""Records of a repository that are read; big machines have 250."""
LAST_RECORD: Final = 0xFFFF
FIRST_CHUNK_BYTES: Final = 24
"""What most BMCs give at a time; halved where that is refused."""
LEAST_CHUNK_BYTES: Final = 4
CHUNK_REFUSED: Final = frozenset({0xC7, 0xC8, 0xCA, 0xFF})
"""Codes for a piece that is too long (33.12 names 0xCA; ipmi_sim says 0xC8, others 0xFF)."""
RESERVATION_LOST: Final = 0xC5

FULL, COMPACT = 0x01, 0x02
_THRESHOLD: Final = 0x01
_BMC_OWNER: Final = 0x20
_UNITS: Final[dict[int, tuple[str, Kind]]] = {
    1: ("Cel", "temperature"), 2: ("degF", "temperature"), 3: ("K", "temperature"),
    4: ("V", "voltage"), 5: ("A", "current"), 6: ("W", "power"), 7: ("J", "other"),
    18: ("RPM", "fan"), 19: ("Hz", "other"),
}  # fmt: skip
_KINDS: Final[dict[int, Kind]] = {
    1: "temperature", 2: "voltage", 3: "current", 4: "fan", 0x0B: "other",
}  # fmt: skip
_LINEAR: Final[dict[int, Callable[[float], float]]] = {
    0: lambda x: x, 1: math.log, 2: math.log10, 3: math.log2, 4: math.exp,
    5: lambda x: math.pow(10, x), 6: lambda x: math.pow(2, x), 7: lambda x: 1 / x,
    8: lambda x: x * x, 9: lambda x: x**3, 10: math.sqrt, 11: math.cbrt,
}  # fmt: skip
"""Linearisation by its code (table 43-1, byte 24); 0x70 and above need factors a reading."""

REPOSITORY_INFO: Final = Command("Get SDR Repository Info", 0x0A, 0x20)
RESERVE: Final = Command("Reserve SDR Repository", 0x0A, 0x22)


@dataclass(frozen=True, slots=True)
class Sensor:
    """One sensor of a record: how to ask for it and what its numbers mean."""

    name: str
    number: int
    sensor_type: int
    event_type: int
    kind: Kind
    unit: str
    signed: int
    """0 unsigned, 1 one's complement, 2 two's complement, 3 no number at all."""
    linear: int
    m: int
    b: int
    b_exponent: int
    r_exponent: int
    readable: int
    """Mask of thresholds that can be asked for or stand below (bit 0 lower non-critical)."""
    ask_thresholds: bool
    raw_thresholds: bytes
    """LNC, LCR, LNR, UNC, UCR, UNR as in the record."""

    @property
    def by_threshold(self) -> bool:
        """Whether it gives a number with thresholds, not a set of states."""
        return self.event_type == _THRESHOLD


def get_record(reservation: int, record: int, offset: int, count: int) -> Command:
    """Ask for ``count`` bytes of a record (33.12)."""
    assert 0 <= record <= LAST_RECORD
    assert 0 <= offset <= RECORD_BYTES_MAX
    assert 0 < count <= 0xFF
    data = reservation.to_bytes(2, "little") + record.to_bytes(2, "little")
    return Command("Get SDR", 0x0A, 0x23, data + bytes((offset, count)))


def parse_repository_info(data: bytes) -> int:
    """Return the number of records (33.9)."""
    _need(data, 3)
    return int.from_bytes(data[1:3], "little")


def parse_reservation(data: bytes) -> int:
    """Return the reservation's number (33.11)."""
    _need(data, 2)
    return int.from_bytes(data[:2], "little")


def parse_piece(data: bytes, count: int) -> tuple[int, bytes]:
    """Return (id of the next record, bytes of this one); no more bytes than were asked for."""
    _need(data, 3)
    return int.from_bytes(data[:2], "little"), data[2 : 2 + count]


def record_bytes(header: bytes) -> int:
    """Return how long the whole record is, its header with it."""
    _need(header, HEADER_BYTES)
    return HEADER_BYTES + header[4]


def sensors_of(record: bytes) -> list[Sensor]:
    """Return the sensors of a full or compact record of the BMC itself; else none.

    A compact record may stand for several sensors of a kind (43.2, bytes 24 and 25). Sensors
    behind other controllers or at other LUNs need bridging and are left out.
    """
    if len(record) < HEADER_BYTES + 4 or record[5] != _BMC_OWNER or record[6] & 0x03:
        return []
    if record[3] == FULL and len(record) >= 48:
        return [_full(record)]
    if record[3] == COMPACT and len(record) >= 32:
        return _compact(record)
    return []


def _full(r: bytes) -> Sensor:
    unit, kind = _unit_of(r)
    access = r[11] >> 2 & 3
    low_first = bytes((r[41], r[40], r[39], r[38], r[37], r[36]))
    return Sensor(
        name=_name(r, 47) or f"sensor {r[7]}",
        number=r[7],
        sensor_type=r[12],
        event_type=r[13] & 0x7F,
        kind=kind,
        unit=unit,
        signed=r[20] >> 6,
        linear=r[23] & 0x7F,
        m=_signed(r[24] | (r[25] & 0xC0) << 2, 10),
        b=_signed(r[26] | (r[27] & 0xC0) << 2, 10),
        r_exponent=_signed(r[29] >> 4, 4),
        b_exponent=_signed(r[29] & 0x0F, 4),
        readable=0 if access == 0 else r[18] & 0x3F,
        ask_thresholds=access in (1, 2),
        raw_thresholds=low_first,
    )


def _compact(r: bytes) -> list[Sensor]:
    unit, kind = _unit_of(r)
    name = _name(r, 31) or f"sensor {r[7]}"
    count = max(1, r[23] & 0x0F)
    first, letters = r[24] & 0x7F, r[23] >> 4 & 3 == 1
    found: list[Sensor] = []
    for index in range(count):
        number = r[7] + index
        if number > 0xFF:
            break
        tail = ""
        if count > 1:
            at = first + index
            tail = " " + (chr(ord("A") + at % 26) if letters else str(at))
        found.append(
            Sensor(
                name=name + tail, number=number, sensor_type=r[12], event_type=r[13] & 0x7F,
                kind=kind, unit=unit, signed=3, linear=0, m=1, b=0, b_exponent=0,
                r_exponent=0, readable=0, ask_thresholds=False, raw_thresholds=bytes(6),
            )
        )  # fmt: skip
    return found


def _unit_of(r: bytes) -> tuple[str, Kind]:
    """Return unit and kind by units 1 and 2 and the sensor's type (tables 43-15, 42-3)."""
    kind = _KINDS.get(r[12], "other")
    if r[13] & 0x7F != _THRESHOLD:
        return "", kind
    if r[20] & 1:
        return "%", kind
    unit, of_unit = _UNITS.get(r[21], ("", kind))
    return unit, kind if kind != "other" else of_unit


def _name(r: bytes, at: int) -> str:
    """Return an ID string by its type and length byte (43.15); unknown codings are none."""
    coding, length = r[at] >> 6, r[at] & 0x1F
    raw = r[at + 1 : at + 1 + length]
    if coding == 3:
        text = raw.decode("latin-1")
    elif coding == 2:
        text = _six_bit(raw)
    elif coding == 1:
        digits = "0123456789 -.:,_"
        text = "".join(digits[byte >> 4] + digits[byte & 15] for byte in raw)
    else:
        text = raw.decode("utf-8", "replace")
    return words(text.replace("\0", ""), NAME_CHARS_MAX)


def _six_bit(raw: bytes) -> str:
    bits = int.from_bytes(raw, "little")
    return "".join(chr(32 + (bits >> 6 * i & 63)) for i in range(len(raw) * 8 // 6))


def reading_command(sensor: Sensor) -> Command:
    """Ask for a sensor's reading (35.14)."""
    return Command("Get Sensor Reading", 0x04, 0x2D, bytes((sensor.number,)))


def thresholds_command(sensor: Sensor) -> Command:
    """Ask for a sensor's thresholds as they are set now (35.9)."""
    return Command("Get Sensor Thresholds", 0x04, 0x27, bytes((sensor.number,)))


def parse_thresholds(sensor: Sensor, data: bytes | None) -> Thresholds:
    """Return thresholds from the answer, or from the record without one (35.9)."""
    if data is not None and len(data) >= 7:
        mask, raw = data[0] & 0x3F, data[1:7]
    else:
        mask, raw = sensor.readable, sensor.raw_thresholds
    if not mask:
        return NO_THRESHOLDS
    values = [convert(sensor, raw[i]) if mask >> i & 1 else None for i in range(6)]
    # a threshold that is only "non-recoverable" counts as critical
    lower = values[1] if values[1] is not None else values[2]
    upper = values[4] if values[4] is not None else values[5]
    return Thresholds(
        lower_warning=values[0], lower_critical=lower,
        upper_warning=values[3], upper_critical=upper,
    )  # fmt: skip


def convert(sensor: Sensor, raw: int) -> float | None:
    """Return y = L((M x + B 10^K1) 10^K2) (36.3), None where there is no such number."""
    if sensor.signed == 3 or sensor.linear not in _LINEAR:
        return None
    x = raw
    if raw & 0x80 and sensor.signed == 1:
        x = raw - 255
    elif raw & 0x80 and sensor.signed == 2:
        x = raw - 256
    line = sensor.m * x + sensor.b * math.pow(10, sensor.b_exponent)
    try:
        value = _LINEAR[sensor.linear](line * math.pow(10, sensor.r_exponent))
    except (ValueError, OverflowError, ZeroDivisionError):
        return None
    return round(value, 6) if math.isfinite(value) else None


def parse_reading(sensor: Sensor, data: bytes, limits: Thresholds) -> Reading:
    """Read the answer to Get Sensor Reading (35.14)."""
    _need(data, 2)
    gone = bool(data[1] & 0x20) or not data[1] & 0x40
    if gone:
        return _reading(sensor, None, "unknown", limits, "not available")
    if sensor.by_threshold:
        value = convert(sensor, data[0])
        return _reading(sensor, value, _by_bits(data[2] if len(data) > 2 else 0), limits, "")
    states = (data[2] if len(data) > 2 else 0) | (data[3] & 0x7F if len(data) > 3 else 0) << 8
    state, text = sensor_words.states(sensor.sensor_type, sensor.event_type, states)
    return _reading(sensor, None, state, limits, text)


def _by_bits(bits: int) -> State:
    """Return the state by the comparison bits: 0 and 3 non-critical, the others worse."""
    if bits & 0b110110:
        return "critical"
    return "warning" if bits & 0b001001 else "ok"


def _reading(
    sensor: Sensor, value: float | None, state: State, limits: Thresholds, text: str
) -> Reading:
    return Reading(
        name=sensor.name, kind=sensor.kind, unit=sensor.unit, value=value, state=state,
        thresholds=limits, text=text,
    )  # fmt: skip


def no_reading(sensor: Sensor, why: str) -> Reading:
    """Return a sensor whose reading was refused."""
    return _reading(sensor, None, "unknown", NO_THRESHOLDS, why)


def _signed(value: int, bits: int) -> int:
    return value - (1 << bits) if value >> (bits - 1) & 1 else value


def _need(data: bytes, count: int) -> None:
    if len(data) < count:
        raise NotIpmi(f"an answer of {len(data)} bytes, where {count} are due")
