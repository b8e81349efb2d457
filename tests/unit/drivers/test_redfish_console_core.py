"""Where a Redfish system says that its console is."""

from typing import Any

import pytest

from drivers.proto.redfish import parse_console


def body(**web: Any) -> dict[str, Any]:
    return {"SerialConsole": {"WebSocket": web}}


def test_the_path_of_the_console_is_read() -> None:
    assert parse_console(body(ConsoleURI="/console0", ServiceEnabled=True)) == "/console0"
    assert parse_console(body(ConsoleURI="/console0")) == "/console0"


@pytest.mark.parametrize(
    "odd",
    [
        {},
        {"SerialConsole": None},
        {"SerialConsole": {"WebSocket": []}},
        body(ConsoleURI="/console0", ServiceEnabled=False),
        body(ConsoleURI="wss://elsewhere/console0"),
        body(ConsoleURI="//elsewhere/console0"),
        body(ConsoleURI="/a/../b"),
        body(ConsoleURI="/a\r\nX: y"),
        body(ConsoleURI=7),
    ],
)
def test_none_is_seen_where_it_is_off_elsewhere_or_odd(odd: dict[str, Any]) -> None:
    assert parse_console(odd) is None
