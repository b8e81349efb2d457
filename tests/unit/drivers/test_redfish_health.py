"""Redfish sensors, logs, settings and versions: both forms of each, and wrong types."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.proto import redfish_health as health
from drivers.proto.health import LogEntry, Reading, Thresholds, judge, words

ENABLED = {"State": "Enabled", "Health": "OK"}
THERMAL = {
    "Temperatures": [
        {"Name": "CPU Temp", "ReadingCelsius": 41, "UpperThresholdNonCritical": 42,
         "UpperThresholdCritical": 45, "UpperThresholdFatal": 48, "Status": ENABLED},
        {"Name": "DIMM 9", "ReadingCelsius": None, "Status": {"State": "Absent"}},
        {"Name": "Inlet", "ReadingCelsius": 44, "UpperThresholdFatal": 43, "Status": ENABLED},
    ],
    "Fans": [
        {"FanName": "Fan 1", "Reading": 30, "ReadingUnits": "Percent",
         "Status": {"State": "Enabled", "Health": "Critical"}},
    ],
}  # fmt: skip


def test_thermal_gives_temperatures_and_fans_and_leaves_empty_slots_out() -> None:
    warm, inlet, fan = health.thermal(THERMAL)
    assert warm == Reading(
        name="CPU Temp", kind="temperature", unit="Cel", value=41, state="ok",
        thresholds=Thresholds(upper_warning=42, upper_critical=45),
    )  # fmt: skip
    assert inlet.state == "critical"  # it says OK, but its own limit says otherwise
    assert (fan.name, fan.unit, fan.state) == ("Fan 1", "%", "critical")


def test_power_gives_volts_and_watts() -> None:
    found = list(health.power({
        "Voltages": [{"Name": "P12V", "ReadingVolts": 12.1}],
        "PowerSupplies": [{"Name": "PSU1", "LastPowerOutputWatts": 220, "Status": ENABLED}],
        "PowerControl": [{"Name": "System", "PowerConsumedWatts": 410}],
    }))  # fmt: skip
    assert [(one.unit, one.value, one.state) for one in found] == [
        ("V", 12.1, "unknown"), ("W", 220, "ok"), ("W", 410, "unknown"),
    ]  # fmt: skip


def test_a_sensor_of_the_new_form_is_read_alike() -> None:
    body = {"Name": "Fan1", "ReadingType": "Rotational", "ReadingUnits": "{rev}/min",
            "Reading": 300, "Status": ENABLED,
            "Thresholds": {"LowerCritical": {"Reading": 500}}}  # fmt: skip
    found = health.sensor(body)
    assert found is not None
    assert (found.kind, found.unit, found.state) == ("fan", "RPM", "critical")
    assert health.sensor({"@odata.id": "/x", "Name": "no sensor"}) is None


@pytest.mark.parametrize(
    ("text", "at_ms"),
    [("2026-11-28T01:00:00Z", 1795827600000), ("2026-11-28T03:00:00+02:00", 1795827600000),
     ("2026-11-28T01:00:00", 1795827600000), ("1970-01-01T00:00:00Z", None), ("soon", None),
     ("0001-01-01T00:00:00+14:00", None), (7, None), ("9" * 500, None)],
)  # fmt: skip
def test_times_are_read_with_or_without_a_zone(text: object, at_ms: int | None) -> None:
    entry = health.log_entry({"Id": "1", "Created": text, "Message": "m", "Severity": "OK"})
    assert entry == LogEntry(id="1", at_ms=at_ms, severity="ok", message="m")


def test_entries_are_sorted_by_time_and_those_without_one_come_last() -> None:
    def entry(id_: str, at_ms: int | None) -> LogEntry:
        return LogEntry(id=id_, at_ms=at_ms, severity="ok", message="m")

    found = health.newest_first([entry("a", 1), entry("b", None), entry("c", 3)])
    assert [one.id for one in found] == ["c", "a", "b"]


def test_settings_are_plain_values_with_bounded_names() -> None:
    body = {"Attributes": {"A": "x", "B": 1, "C": 1.5, "D": True, "E": None, "F": [1],
                           "G": {}, "N" * 99: "long", "H\n": "x"}}  # fmt: skip
    assert health.attributes(body) == {"A": "x", "B": 1, "C": 1.5, "D": True, "E": None}
    many = {"Attributes": {f"a{i}": i for i in range(5000)}}
    assert len(health.attributes(many)) == 2000


def test_a_state_is_judged_by_limits_only_where_there_are_some() -> None:
    limits = Thresholds(lower_critical=1, lower_warning=2, upper_warning=8, upper_critical=9)
    found = [judge(value, limits) for value in (1, 2, 5, 8, 9)]
    assert found == ["critical", "warning", "ok", "warning", "critical"]
    assert judge(None, limits) == judge(5, Thresholds()) == "unknown"


def test_words_of_a_device_are_one_printable_line() -> None:
    assert words("a\n b\x1b[31m") == "a b?[31m"
    assert len(words("x" * 10_000)) == 300


json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(
            ["Temperatures", "Fans", "Voltages", "PowerSupplies", "PowerControl", "Name",
             "Reading", "ReadingCelsius", "ReadingUnits", "Status", "State", "Health", "Id",
             "Thresholds", "UpperCritical", "Members", "@odata.id", "Attributes", "Message",
             "Created", "Severity", "Version", "UserName", "@Redfish.Settings",
             "SettingsObject", "Links", "Chassis", "ProtocolFeaturesSupported",
             "ExpandQuery", "Members@odata.nextLink"]
        ),
        inner, max_size=6,
    ),
    max_leaves=20,
)  # fmt: skip


@given(st.dictionaries(st.text(max_size=8), json) | json.filter(lambda x: isinstance(x, dict)))
def test_garbage_never_raises(body: Any) -> None:
    readings = [*health.thermal(body), *health.power(body), health.sensor(body)]
    assert all(one is None or (one.name and one.state) for one in readings)
    health.log_entry(body)
    health.attributes(body)
    health.settings_path(body)
    health.component(body)
    health.account(body)
    health.members(body)
    health.expands(body)
    list(health.offered(body, body))
    for item in health.members(body)[0]:
        health.is_whole(item)
