"""No relay and no port starves the others, and no flood fills the tables."""

from dataclasses import dataclass

from node.proto import dhcp_limits
from node.proto.dhcp_limits import (
    ALONE_S,
    PORT_BURST,
    PORT_EACH_S,
    RELAY_EACH_S,
    STRANGERS_MAX,
    STRANGERS_S,
    TRACKED_MAX,
    DhcpLimits,
)

RELAY, OTHER = bytes((10, 77, 0, 250)), bytes((10, 78, 0, 250))


@dataclass
class Asked:
    mac: str = "52:54:00:00:00:01"
    relay_port: str = ""


def answered(limits: DhcpLimits, packet: Asked, count: int, now: float, relay=RELAY) -> int:
    return sum(limits.refuses(relay, packet, now) is None for _ in range(count))


def test_a_port_has_its_burst_and_then_its_rate() -> None:
    limits, port = DhcpLimits(), Asked(relay_port="sw1/eth1")
    assert answered(limits, port, 1000, 0.0) == PORT_BURST
    assert limits.refuses(RELAY, port, 0.0) == "port too quick"
    assert answered(limits, Asked(relay_port="sw1/eth2"), 10, 0.0) == 10, "its neighbour"
    assert answered(limits, Asked(relay_port="sw1/eth1"), 10, 0.0, relay=OTHER) == 10
    assert answered(limits, port, 1000, 2.0) == 2 * PORT_EACH_S


def test_a_whole_hall_that_starts_at_once_is_no_flood() -> None:
    limits = DhcpLimits()
    assert answered(limits, Asked(), 5000, 0.0) == 5000
    assert answered(limits, Asked(), 100_000, 0.0) == 100_000, "it takes from nobody"
    assert limits.refuses(OTHER, Asked(), 0.0) is None
    assert limits.refuses(RELAY, Asked(), 0.0) == "relay too quick"
    assert limits.refuses(OTHER, Asked(), 0.0) is None


def test_a_relay_over_its_rate_gives_way_as_long_as_another_asks() -> None:
    limits = DhcpLimits()
    answered(limits, Asked(), 20_000, 0.0)
    assert limits.refuses(OTHER, Asked(), 0.0) is None
    assert answered(limits, Asked(), 10_000, 0.5) == 0.5 * RELAY_EACH_S
    assert answered(limits, Asked(), 10_000, ALONE_S + 0.1) == 10_000, "alone again"


def test_a_port_that_invents_machines_gets_no_more_addresses() -> None:
    limits = DhcpLimits()
    for number in range(STRANGERS_MAX):
        packet = Asked(f"02:00:00:00:00:{number:02x}", "sw1/eth1")
        assert limits.refuses_stranger(RELAY, packet, float(number)) is None
    one_more = Asked("02:00:00:00:01:00", "sw1/eth1")
    assert limits.refuses_stranger(RELAY, one_more, 100.0) is not None
    again = Asked("02:00:00:00:00:05", "sw1/eth1")
    assert limits.refuses_stranger(RELAY, again, 100.0) is None, "it has asked before"
    assert limits.refuses_stranger(RELAY, Asked(one_more.mac, "sw1/eth2"), 100.0) is None
    assert limits.refuses_stranger(RELAY, Asked(one_more.mac), 100.0) is None, "no port said"
    assert limits.refuses_stranger(RELAY, one_more, STRANGERS_S + 1.0) is None


def test_invented_relays_and_ports_fill_no_table() -> None:
    limits = DhcpLimits()
    for number in range(3 * TRACKED_MAX):
        packet = Asked(relay_port=f"port {number}")
        limits.refuses(number.to_bytes(4, "big"), packet, 0.0)
        limits.refuses_stranger(RELAY, packet, 0.0)
    for table in (limits._relays, limits._ports, limits._strangers):
        assert len(table) == TRACKED_MAX
    assert dhcp_limits.STRANGERS_MAX * TRACKED_MAX < 1 << 20
