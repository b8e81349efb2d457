"""Which foreign DHCP servers are told of, and for how long."""

from ipaddress import IPv4Address

from node.proto.other_servers import RECENT_S, SERVERS_MAX, OtherServers

ROGUE = IPv4Address("10.77.0.66")


def test_a_foreign_server_is_new_once_and_an_alarm_until_nobody_takes_it_any_more() -> None:
    others = OtherServers()
    assert others.problem(0.0) is None
    assert others.note(ROGUE, "52:54:00:00:00:01", 10.0)
    assert not others.note(ROGUE, "52:54:00:00:00:02", 20.0)
    said = others.problem(25.0)
    assert said is not None
    assert "10.77.0.66 (last taken by 52:54:00:00:00:02 5 s ago)" in said
    assert others.problem(20.0 + RECENT_S + 1) is None
    assert others.note(ROGUE, "52:54:00:00:00:01", 21.0 + RECENT_S), "it is back"


def test_invented_servers_fill_no_table_and_no_screen() -> None:
    others = OtherServers()
    for number in range(10_000):
        others.note(IPv4Address(number + 1), "52:54:00:00:00:01", 1.0)
    assert len(others._seen) == SERVERS_MAX
    said = others.problem(2.0)
    assert said is not None
    assert f"and {SERVERS_MAX - 3} more" in said
    assert len(said) < 500
