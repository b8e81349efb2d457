"""Port locks: a machine on a port that is not its own gets nothing, and people hear of it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.proto import dhcp
from node.proto.dhcp import Packet
from node.proto.lease import answer, answer_4011
from node.proto.lease_snapshot import Snapshot
from node.proto.port_lock import QUARANTINE_S, TRACKED_MAX, Quarantine, trespass
from tests.support.boot_site import BIOS_ROM, MAC, A, packet, snapshot
from tests.unit.node.test_lease import sent

STRANGER = "52:54:00:77:00:66"
RELAY = "10.77.0.250"
PORT, ELSEWHERE = "sw1 eth7", "sw1 eth9"
SERVERS = {"s1": {"macs": [MAC], "ip": "10.77.0.20", "name": "web-1", "accepted_ms": 5}}


def site(**more: object) -> Snapshot:
    return snapshot(servers=SERVERS, locks={"s1": PORT}, **more)  # type: ignore[arg-type]


def at(port: str, mac: str = MAC, message_type: int = dhcp.DISCOVER, **more: object) -> Packet:
    switch, _, circuit = port.partition(" ")
    area = bytes((1, len(circuit))) + circuit.encode()
    area += bytes((2, len(switch))) + switch.encode()
    return packet(message_type, mac, {82: area}, giaddr=RELAY, **more)


def test_a_locked_server_is_answered_on_its_own_port_and_on_no_other() -> None:
    assert str(sent(answer(site(), at(PORT))).yiaddr) == "10.77.0.20"
    for elsewhere in (at(ELSEWHERE), packet(giaddr=RELAY), packet()):
        result = answer(site(), elsewhere)
        assert (result.kind, result.reply, result.seen) == ("wrong port", None, None)
        assert result.trespass is not None
        assert (result.trespass.mac, result.trespass.name) == (MAC, "web-1")


def test_what_a_machine_itself_says_of_its_port_is_not_believed() -> None:
    """Option 82 without a relay: anybody can write it."""
    by_itself = Packet(chaddr=at(PORT).chaddr, options=at(PORT).options)
    assert answer(site(), by_itself).kind == "wrong port"


def test_a_locked_port_answers_nobody_else() -> None:
    result = answer(site(), at(PORT, STRANGER))
    assert (result.kind, result.reply) == ("reserved port", None)
    assert answer(site(), at(ELSEWHERE, STRANGER)).kind == "offer"
    assert answer(site(), packet(mac=STRANGER)).kind == "offer"


@pytest.mark.parametrize("message_type", [3, 4, 7, 8])
def test_no_message_gets_past_a_lock(message_type: int) -> None:
    more = {50: bytes((10, 77, 0, 20)), 54: bytes((10, 77, 0, 1))}
    message = packet(message_type, options=more, giaddr=RELAY)
    result = answer(site(), message)
    assert result.kind == "wrong port"
    assert (result.reply, result.freed, result.in_use, result.claim) == (None,) * 4


def test_a_renewal_past_the_relay_waits_for_its_rebinding_without_an_alarm() -> None:
    renewal = packet(dhcp.REQUEST, ciaddr="10.77.0.20")
    result = answer(site(), renewal)
    assert (result.kind, result.reply, result.trespass) == ("past its relay", None, None)
    again = at(PORT, message_type=dhcp.REQUEST, ciaddr="10.77.0.20")
    assert answer(site(), again).kind == "renew"
    assert answer_4011(site(), packet(3, ciaddr="10.77.0.20", options=BIOS_ROM)).reply is None


def test_a_lock_changes_the_snapshot_and_a_bad_one_is_left_out() -> None:
    assert site().id != snapshot(servers=SERVERS).id
    bad = snapshot(servers=SERVERS, locks={"s1": 7})  # type: ignore[dict-item]
    assert (bad.rejected, dict(bad.reserved)) == (1, {})
    nobody = snapshot(servers=SERVERS, locks={"gone": PORT})
    assert answer(nobody, at(PORT, STRANGER)).kind == "offer"


def test_the_port_of_an_impersonator_is_quarantined_whatever_it_says_next() -> None:
    held, now = Quarantine(), 100.0
    found = trespass(site(), at(ELSEWHERE))
    assert found is not None
    assert held.note(site(), found, now)
    assert not held.note(site(), found, now + 1), "told once"
    assert held.holds(site(), ELSEWHERE, now + QUARANTINE_S)
    assert not held.holds(site(), ELSEWHERE, now + QUARANTINE_S + 2)
    assert not held.holds(site(), PORT, now)
    said = held.problem(now + 1)
    assert said is not None
    assert f"{MAC} asks from port {ELSEWHERE} as web-1, which is locked to {PORT}" in said
    assert held.problem(now + QUARANTINE_S + 2) is None


def test_a_stranger_on_a_servers_port_does_not_lock_the_server_out() -> None:
    held = Quarantine()
    found = trespass(site(), at(PORT, STRANGER))
    assert found is not None
    held.note(site(), found, 0.0)
    assert not held.holds(site(), PORT, 0.0)
    assert f"{STRANGER} asks from port {PORT}, which is locked to web-1" in str(
        held.problem(1.0)
    )


def test_a_server_that_is_locked_to_its_new_port_is_out_of_quarantine() -> None:
    held = Quarantine()
    found = trespass(site(), at(ELSEWHERE))
    assert found is not None
    held.note(site(), found, 0.0)
    moved = snapshot(servers=SERVERS, locks={"s1": ELSEWHERE})
    assert not held.holds(moved, ELSEWHERE, 1.0)


def test_a_flood_of_trespasses_fills_no_table() -> None:
    held = Quarantine()
    for number in range(3 * TRACKED_MAX):
        found = trespass(site(), at(f"sw1 eth1/{number}"))
        assert found is not None
        held.note(site(), found, 0.0)
    assert len(held._ports) == len(held._noted) == TRACKED_MAX
    assert len(str(held.problem(0.0))) < 1000


@given(st.binary(max_size=300))
def test_hostile_bytes_in_option_82_stay_printable(area: bytes) -> None:
    found = trespass(site(), packet(giaddr=RELAY, options={82: area}))
    if found is not None:
        assert found.port.isprintable()
        assert len(found.port) <= 2 * 128 + 1


def test_members_still_answer_alike() -> None:
    one, two = site(hosts=[A, "10.77.0.2"]), site(hosts=["10.77.0.2", A])
    for client in (at(PORT), at(ELSEWHERE), at(PORT, STRANGER)):
        assert answer(one, client) == answer(two, client)
