"""The virtual BMC's answers: orders that fit, refusals that say why, and garbage."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.proto.rack_bmc import BootOrder, PowerOrder, etag_of, respond
from node.proto.rack_reply import Reply, Shown

SERVER = Shown("sim-1", "u", "s", "m", "Off", "None", "Disabled", 1 << 30, 3)
OWN = "/redfish/v1/Systems/sim-1"
RESET = f"{OWN}/Actions/ComputerSystem.Reset"


def ask(
    method: str, path: str, body: Any = None, if_match: str | None = None, who: bool = True
) -> Reply:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return respond(method, path, raw, if_match, who, [SERVER])


def test_only_the_roots_are_open_to_strangers() -> None:
    for path in ("/redfish", "/redfish/v1", "/redfish/v1/"):
        assert ask("GET", path, who=False).status == 200
    for path in ("/redfish/v1/Systems", OWN, RESET, "/x"):
        assert ask("GET", path, who=False).status == 401


def test_power_orders_are_absolute() -> None:
    for kind, on in (("On", True), ("ForceOff", False), ("GracefulShutdown", False)):
        reply = ask("POST", RESET, {"ResetType": kind})
        assert (reply.status, reply.order) == (204, PowerOrder("sim-1", on))
    assert ask("POST", RESET, {"ResetType": "PowerCycle"}).status == 400


def test_boot_orders_change_what_they_name() -> None:
    reply = ask("PATCH", OWN, {"Boot": {"BootSourceOverrideTarget": "Pxe"}})
    assert reply.order == BootOrder("sim-1", "Pxe", "Once")
    both = {"BootSourceOverrideTarget": "Hdd", "BootSourceOverrideEnabled": "Continuous"}
    reply = ask("PATCH", OWN, {"Boot": both}, etag_of(SERVER))
    assert reply.order == BootOrder("sim-1", "Hdd", "Continuous")
    assert ask("PATCH", OWN, {"Boot": both}, 'W/"2"').status == 412


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("PATCH", OWN, {"Boot": {"BootSourceOverrideTarget": "Usb"}}, 400),
        ("PATCH", OWN, {"Boot": {"BootSourceOverrideMode": "UEFI"}}, 400),
        ("PATCH", OWN, {"Boot": {}, "AssetTag": "x"}, 400),
        ("PATCH", OWN, {"Boot": 1}, 400),
        ("PATCH", OWN, b"[", 400),
        ("POST", RESET, {"ResetType": ["On"]}, 400),
        ("POST", RESET, b"", 400),
        ("DELETE", OWN, None, 405),
        ("GET", RESET, None, 405),
        ("GET", "/redfish/v1/Systems/sim-2", None, 404),
    ],
)
def test_what_does_not_fit_is_refused_with_a_reason(
    method: str, path: str, body: Any, status: int
) -> None:
    reply = ask(method, path, body)
    assert (reply.status, reply.order) == (status, None)
    assert reply.body is not None
    assert reply.body["error"]["@Message.ExtendedInfo"][0]["Message"].endswith(".")


@given(
    st.sampled_from(["GET", "PATCH", "POST", "", "\0"]),
    st.sampled_from([OWN, RESET, "", "/", "/redfish/v1/Systems", "//", "?"]) | st.text(),
    st.binary(max_size=50) | st.dictionaries(st.text(), st.integers()),
)
def test_garbage_never_raises(method: str, path: str, body: Any) -> None:
    ask(method, path, body)
