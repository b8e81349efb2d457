"""The Redfish core: what bodies mean, what to send next, and that garbage is only garbage."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.proto import redfish as core
from drivers.proto.quirks import PLAIN, quirks_for


def system(**changes: Any) -> core.System:
    body = {"PowerState": "Off", **changes}
    return core.parse_system(body, "/redfish/v1/Systems/1", None)


WORDS = [
    "PowerState",
    "Boot",
    "Actions",
    "#ComputerSystem.Reset",
    "target",
    "Members",
    "@odata.id",
    "@odata.etag",
    "error",
    "@Message.ExtendedInfo",
    "Message",
    "Oem",
    "Links",
    "Sessions",
    "Systems",
    "Vendor",
    "ResetType@Redfish.AllowableValues",
    "BootSourceOverrideTarget",
]
LEAF = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
JSON = st.recursive(
    LEAF,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=5)
    ),
    max_leaves=20,
)


@given(JSON)
def test_garbage_never_raises(value: Any) -> None:
    body = json.dumps(value).encode()
    core.refusal(body)
    core.session_path(None, body)
    core.session_path(body.decode("latin-1"), body)
    try:
        decoded = core.decode(body)
    except core.NotRedfish:
        return
    core.parse_root(decoded)
    for parse in (core.parse_members, lambda b: core.parse_system(b, "/x", None)):
        try:
            found = parse(decoded)
        except core.NotRedfish:
            continue
        if isinstance(found, core.System):
            core.power_step(found, on=True, asked=False)
            core.boot_bodies(found, "network", PLAIN)
            core.boot_device(found)
            core.if_match_values(found.etag)


@given(st.binary(max_size=200))
def test_garbage_bytes_never_raise(body: bytes) -> None:
    core.refusal(body)
    try:
        core.decode(body)
    except core.NotRedfish:
        pass


@given(st.text(max_size=80))
def test_garbage_addresses_are_one_sentence(url: str) -> None:
    try:
        address = core.parse_address(url)
    except ValueError:
        return
    assert address.system is None or address.system.startswith("/")


@pytest.mark.parametrize("bad", ["//h/x", "http://h/x", "x", "", 7, None, "/a b", "/a/../b"])
def test_a_link_is_only_a_path_on_the_same_host(bad: object) -> None:
    assert core.link(bad) is None
    assert core.link({"@odata.id": bad}) is None


def test_a_bmc_address_may_be_a_root_or_a_system() -> None:
    for root in ("https://h", "https://h/", "https://h/redfish/v1/"):
        assert core.parse_address(root).system is None
    address = core.parse_address("http://[::1]:8000/redfish/v1/Systems/a/")
    assert (address.origin, address.host, address.port) == ("http://[::1]:8000", "::1", 8000)
    assert address.system == "/redfish/v1/Systems/a"


@pytest.mark.parametrize(
    ("state", "on", "asked", "step"),
    [
        ("On", True, False, core.Reached()),
        ("Off", False, True, core.Reached()),
        ("Off", True, False, core.Ask("On")),
        ("On", False, False, core.Ask("ForceOff")),
        ("Off", True, True, core.Wait()),
        ("PoweringOff", True, False, core.Wait()),
        ("PoweringOff", False, False, core.Wait()),
        ("Paused", False, False, core.Ask("ForceOff")),
        (None, True, False, core.Ask("On")),
    ],
)
def test_power_goes_to_an_absolute_target(state: str, on: bool, asked: bool, step: Any) -> None:
    assert core.power_step(system(PowerState=state), on, asked) == step


def test_a_reset_type_that_is_not_offered_is_not_sent() -> None:
    def offering(*types: str) -> core.System:
        reset = {"ResetType@Redfish.AllowableValues": list(types)}
        return system(Actions={"#ComputerSystem.Reset": reset})

    assert core.power_step(offering("ForceOn"), True, False) == core.Ask("ForceOn")
    refusal = core.power_step(offering("Nmi"), True, False)
    assert isinstance(refusal, core.CannotAsk)
    assert "Nmi" in refusal.sentence


@pytest.mark.parametrize("enabled", ["Once", "Continuous"])
def test_once_and_continuous_count_the_same(enabled: str) -> None:
    boot = {"BootSourceOverrideTarget": "Pxe", "BootSourceOverrideEnabled": enabled}
    assert core.boot_device(system(Boot=boot)) == "network"
    assert core.boot_device(system(Boot={**boot, "BootSourceOverrideEnabled": "Disabled"})) == (
        "other"
    )


def test_vendor_quirks_are_data() -> None:
    lenovo = core.boot_bodies(system(), "disk", quirks_for("Lenovo"))
    assert lenovo[0]["Boot"]["BootSourceOverrideEnabled"] == "Once"
    shows_mode = system(Boot={"BootSourceOverrideMode": "UEFI"})
    mode = {"BootSourceOverrideMode": "UEFI"}
    supermicro = core.boot_bodies(shows_mode, "network", quirks_for("", "Supermicro Inc."))
    assert supermicro[0]["Boot"].items() >= mode.items()
    plain = core.boot_bodies(shows_mode, "network", quirks_for("Acme"))
    assert "BootSourceOverrideMode" not in plain[0]["Boot"]


def test_an_error_body_gives_its_first_message() -> None:
    info = [{"MessageId": "x"}, {"Message": "The  value\nis wrong."}]
    body = json.dumps({"error": {"message": "general", "@Message.ExtendedInfo": info}}).encode()
    assert core.refusal(body) == "The value is wrong."
    assert core.refusal(b'{"error": {"message": "general"}}') == "general"
    assert core.refusal(b"<html>") == ""
    assert len(core.refusal(json.dumps({"error": {"message": "x" * 9999}}).encode())) < 400
