"""IPMI sensor records, readings, event records and FRU: what bytes mean; garbage is garbage."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.proto import fru, sdr, sel, sensor_words
from drivers.proto.health import NO_THRESHOLDS, Thresholds
from drivers.proto.ipmi import NotIpmi
from tests.support.mutations import mutations

# what ipmi_sim 2.0.33 said (`ipmitool sdr dump`, `sel writeraw`) with the sensors of
# scripts/lib/ipmi_simulator.py; the limits and the time, 0 there, are put in
FULL = bytes.fromhex(
    "010051013320000107017f680101800a807a38380001000001000000000000000000ff00"
    "6e645a0000000000000000"
    "c84350552054656d70"
)
COMPACT = bytes.fromhex(
    "03005102202000030a016340086f030003000300c000000000000000000000c55053552031"
)
EVENT = bytes.fromhex("020002 80a51a65 200004010101575f5a".replace(" ", ""))
FRU = bytes.fromhex("0100000001000000010600c341434dc3535256c2503fc3312e37c1").ljust(64, b"\0")


def sensor(**changes: object) -> sdr.Sensor:
    return replace(sdr.sensors_of(FULL)[0], **changes)  # type: ignore[arg-type]


def test_a_full_record_says_how_to_ask_and_what_numbers_mean() -> None:
    (found,) = sdr.sensors_of(FULL)
    assert (found.name, found.number, found.kind, found.unit) == (
        "CPU Temp", 1, "temperature", "Cel",
    )  # fmt: skip
    limits = sdr.parse_thresholds(found, None)
    assert limits == Thresholds(upper_warning=90, upper_critical=100)
    reading = sdr.parse_reading(found, bytes.fromhex("5fc008"), limits)
    assert (reading.value, reading.state) == (95, "warning")


def test_a_compact_record_stands_for_as_many_sensors_as_it_says() -> None:
    (one,) = sdr.sensors_of(COMPACT)
    assert (one.name, one.number, one.by_threshold) == ("PSU 1", 3, False)
    shared = bytearray(COMPACT)
    shared[23:25] = bytes((0x13, 0x00))  # three, told apart by letters
    assert [(s.name, s.number) for s in sdr.sensors_of(bytes(shared))] == [
        ("PSU 1 A", 3), ("PSU 1 B", 4), ("PSU 1 C", 5),
    ]  # fmt: skip
    failed = sdr.parse_reading(one, bytes.fromhex("00c00380"), NO_THRESHOLDS)
    assert (failed.state, failed.text, failed.value) == ("critical", "present, failure", None)


@pytest.mark.parametrize(
    ("record", "why"),
    [(FULL[:47], "cut short"), (FULL[:3] + b"\x11" + FULL[4:], "a FRU locator"),
     (FULL[:5] + b"\x2c" + FULL[6:], "another controller's"),
     (FULL[:6] + b"\x01" + FULL[7:], "at another LUN"), (b"", "nothing")],
)  # fmt: skip
def test_other_records_are_no_sensors_of_ours(record: bytes, why: str) -> None:
    assert sdr.sensors_of(record) == [], why


@pytest.mark.parametrize(
    ("changes", "raw", "value"),
    [
        ({}, 200, 200),
        ({"signed": 2}, 0xF6, -10),
        ({"signed": 1}, 0xF5, -10),
        ({"m": 6, "r_exponent": -2}, 200, 12),
        ({"m": 2, "b": 5, "b_exponent": 1}, 10, 70),
        ({"m": -1, "b": -3, "b_exponent": 2, "r_exponent": 1}, 7, -3070),
        ({"linear": 7}, 4, 0.25),
        ({"linear": 8}, 12, 144),
        ({"linear": 7}, 0, None),  # 1/0
        ({"linear": 1}, 0, None),  # ln 0
        ({"linear": 0x70}, 4, None),  # needs factors for each reading
        ({"signed": 3}, 4, None),
    ],
)
def test_numbers_are_converted_by_chapter_36(
    changes: dict[str, object], raw: int, value: float | None
) -> None:
    assert sdr.convert(sensor(**changes), raw) == value


@pytest.mark.parametrize(
    ("answer", "state", "text"),
    [
        ("2ae000", "unknown", "not available"),
        ("2a8000", "unknown", "not available"),
        ("2ac0c0", "ok", ""),
        ("2ac001", "warning", ""),
        ("2ac010", "critical", ""),
        ("2ac024", "critical", ""),
        ("2ac0", "ok", ""),
    ],
)
def test_a_reading_is_judged_by_what_the_bmc_compares(
    answer: str, state: str, text: str
) -> None:
    reading = sdr.parse_reading(sensor(), bytes.fromhex(answer), NO_THRESHOLDS)
    assert (reading.state, reading.text) == (state, text)
    assert (reading.value is None) == (state == "unknown")


def test_live_thresholds_go_before_those_of_the_record() -> None:
    found = sdr.parse_thresholds(sensor(), bytes.fromhex("1b0a05005a6400"))
    assert found == Thresholds(
        lower_warning=10, lower_critical=5, upper_warning=90, upper_critical=100
    )
    assert sdr.parse_thresholds(sensor(), b"\0" * 7) == NO_THRESHOLDS
    assert sdr.parse_thresholds(sensor(readable=0), None) == NO_THRESHOLDS


@pytest.mark.parametrize(
    ("coded", "name"),
    [
        ("c3414243", "ABC"), ("8329dca6", "IPMI"), ("420156", "0156"), ("034d7920", "My"),
        ("c0", "sensor 1"),
    ],
)  # fmt: skip
def test_names_come_in_four_codings(coded: str, name: str) -> None:
    (found,) = sdr.sensors_of(FULL[:47] + bytes.fromhex(coded))
    assert found.name == name


def test_an_event_is_said_with_its_sensor_and_how_bad_it_is() -> None:
    entry = sel.meaning(EVENT, {1: "CPU Temp"})
    assert (entry.id, entry.severity, entry.at_ms) == ("2", "warning", 0x651AA580 * 1000)
    assert entry.message == "Temperature CPU Temp: upper non-critical, going high"
    over = sel.meaning(EVENT[:12] + b"\x81" + EVENT[13:], {})
    assert (over.severity, over.message) == (
        "ok", "Temperature sensor 1: upper non-critical, going high, no longer",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("seconds", "at_ms"),
    [(14_619, None), (0xFFFFFFFF, None), (0x651AA580, 1696245120000)],
)
def test_a_clock_that_was_never_set_is_no_time(seconds: int, at_ms: int | None) -> None:
    record = EVENT[:3] + seconds.to_bytes(4, "little") + EVENT[7:]
    assert sel.meaning(record, {}).at_ms == at_ms


def test_records_without_words_show_their_bytes() -> None:
    vendor = sel.meaning(b"\1\0\xc1" + EVENT[3:], {})
    assert vendor.message.startswith("OEM: 20 00 04 01")
    assert sel.meaning(b"\1\0\xe5" + EVENT[3:], {}).at_ms is None
    strange = sel.meaning(EVENT[:12] + b"\x7e" + EVENT[13:], {})
    assert strange.message == "Temperature sensor 1: event 0x7e/7 (57 5f 5a)"


def test_versions_come_from_the_device_and_its_fru() -> None:
    device = bytes.fromhex("008309080 29f911200020f00000001".replace(" ", ""))
    assert fru.bmc_version(device).version == "9.08 (00000001)"
    assert [(c.name, c.version) for c in fru.components(FRU)] == [("SRV", "1.7")]
    assert fru.components(FRU[:9]) == []
    assert fru.parse_area_bytes(b"\0\2\0") == 512
    assert fru.parse_area_bytes(b"\0\2\1") == 0  # in words: not read


def digest(data: bytes) -> None:
    """Give bytes to everything that takes them; each answers, or says NotIpmi."""
    for one in sdr.sensors_of(data):
        assert one.name
        assert one.name.isprintable()
        for raw in (None, data):
            limits = sdr.parse_thresholds(one, raw)
            try:
                reading = sdr.parse_reading(one, data[:4], limits)
            except NotIpmi:
                continue
            assert reading.value is None or math.isfinite(reading.value)
    if len(data) >= sel.RECORD_BYTES:
        assert sel.meaning(data[: sel.RECORD_BYTES], {}).message.isprintable()
    assert all(one.name and one.version for one in fru.components(data))
    fru.parse_piece(data, 8)
    fru.parse_area_bytes(data)
    for parse in (
        sdr.parse_repository_info, sdr.parse_reservation, sdr.record_bytes, sel.parse_info,
        sel.parse_entry, fru.bmc_version, lambda d: sdr.parse_piece(d, 5),
    ):  # fmt: skip
        try:
            parse(data)
        except NotIpmi:
            continue


@given(st.binary(max_size=80))
def test_garbage_never_raises(data: bytes) -> None:
    digest(data)


def test_what_was_once_good_never_raises_with_seed_7() -> None:
    for data in mutations([FULL, COMPACT, EVENT, FRU], seed=7, count=5000):
        digest(data)


@given(st.integers(0, 255), st.integers(0, 127), st.integers(0, 0x7FFF))
def test_every_state_has_words(sensor_type: int, event_type: int, bits: int) -> None:
    state, text = sensor_words.states(sensor_type, event_type, bits)
    assert state in ("ok", "warning", "critical", "unknown")
    assert bool(text) == bool(bits)
