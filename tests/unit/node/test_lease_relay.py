"""What a relay gets: its own option back, its own port, and its own address as the server's."""

from ipaddress import IPv4Address

from node.proto import dhcp
from node.proto.lease import answer
from tests.support.boot_site import packet, snapshot
from tests.unit.node.test_lease import SERVER, owner_host, sent


def test_a_relay_gets_the_reply_with_its_option_unchanged_and_last() -> None:
    relay = b"\x01\x03abc\x02\x02id"
    result = answer(snapshot(), packet(giaddr="10.77.0.250", options={82: relay}))
    assert result.reply is not None
    assert (str(result.reply.address), result.reply.port) == ("10.77.0.250", 67)
    assert sent(result).giaddr == IPv4Address("10.77.0.250")
    assert result.reply.data.rstrip(b"\0").endswith(bytes((82, len(relay))) + relay + b"\xff")


def test_a_relay_that_stands_in_for_the_server_is_named_in_every_reply() -> None:
    """RFC 5107: clients then renew by the relay, which adds its option again."""
    relay = b"\x01\x03abc\x0b\x04\x0a\x4d\x00\xfa"
    through = {"giaddr": "10.77.0.250", "options": {82: relay}}
    site = snapshot(servers={"s1": SERVER})
    stands_in = IPv4Address("10.77.0.250")
    assert sent(answer(site, packet(**through))).server_id == stands_in
    renewal = {82: relay, 50: IPv4Address("10.77.0.20").packed, 54: stands_in.packed}
    acked = answer(site, packet(dhcp.REQUEST, giaddr="10.77.0.250", options=renewal))
    assert acked.kind == "ack"
    assert sent(acked).server_id == stands_in
    bare = {code: value for code, value in renewal.items() if code != 82}
    lost = answer(site, packet(dhcp.REQUEST, giaddr="10.77.0.250", options=bare))
    assert lost.kind == "other server", "without the relay's word it is a stranger"
    for odd in (b"\x0b\x03\x0a\x4d\x00", b"\x0b\x04\0\0\0\0", b"\x0b\x09\x0a"):
        plain = answer(site, packet(giaddr="10.77.0.250", options={82: odd}))
        assert str(sent(plain).server_id) == owner_host(site)


def test_a_relay_with_a_source_port_of_its_own_is_answered_there() -> None:
    result = answer(snapshot(), packet(giaddr="10.77.0.250", options={82: b"\x13\x00"}))
    assert result.reply is not None
    assert result.reply.port is None
