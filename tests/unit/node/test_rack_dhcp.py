"""The DHCP client of simulated servers, against what our own nodes answer, and garbage."""

from dataclasses import replace
from ipaddress import IPv4Address

from hypothesis import given
from hypothesis import strategies as st

from node.proto import dhcp, lease
from node.proto import dhcp_options as opt
from node.proto.lease_snapshot import Snapshot, build
from node.proto.rack_dhcp import TRIES_MAX, Bound, DhcpClient, Machine, NoAnswer, Role, Send

MACHINE = Machine("sim-1", "02:52:4d:00:00:01", "4c4c4544-0042-4210-8031-b4c04f4d5332")
RELAY, NODE = "127.77.0.9", ("127.77.0.1", 6767)


def snapshot() -> Snapshot:
    subnet = {"first": "127.77.0.10", "last": "127.77.0.99", "lease_s": 600, "salt": "ab" * 16}
    node = {"site": "rome", "boot_url": "http://127.77.0.1:8470", "services": ["dhcp"]}
    return build(
        subnets=[("127.77.0.0/24", subnet)], servers=[], bindings=[], nodes=[("n" * 32, node)],
        site="rome", direct=None,
    )  # fmt: skip


def client(role: Role) -> DhcpClient:
    numbers = iter(range(100, 200))
    return DhcpClient(MACHINE, role, RELAY, [NODE], lambda n: next(numbers).to_bytes(n, "big"))


def exchange(role: Role, rows: Snapshot) -> Bound:
    asked = client(role)
    effects = asked.start(0)
    for _ in range(4):
        (effect,) = effects
        if isinstance(effect, Bound):
            return effect
        assert isinstance(effect, Send)
        packet = dhcp.decode(effect.datagram)
        assert packet is not None
        reply = lease.answer(rows, packet).reply
        assert reply is not None
        assert (reply.address, reply.port) == (IPv4Address(RELAY), None)
        effects = asked.on_datagram(reply.data, NODE, 0.1)
    raise AssertionError("no lease")


def test_a_rom_then_ipxe_then_a_system_get_the_same_address_and_their_boot_file() -> None:
    rows = snapshot()
    rom, ipxe, system = (exchange(role, rows) for role in ("rom", "ipxe", "os"))
    assert rom.address == ipxe.address == system.address
    assert (rom.file, rom.next_server) == ("undionly.kpxe", "127.77.0.1")
    assert ipxe.file == f"http://127.77.0.1:8470/boot/v1/script?mac={MACHINE.mac}"
    assert system.file == ""
    assert rom.lease_s == 600


def test_nobody_answers_and_that_is_said() -> None:
    asked = client("rom")
    effects = asked.start(0)
    sent = 0
    while isinstance(effects[0], Send):
        sent += 1
        assert asked.deadline is not None
        effects = asked.on_timer(asked.deadline)
    assert sent == TRIES_MAX
    assert effects == [NoAnswer(f"nobody offered an address after {TRIES_MAX} tries")]


def test_answers_for_others_are_dropped() -> None:
    asked = client("rom")
    (sent,) = asked.start(0)
    assert isinstance(sent, Send)
    request = dhcp.decode(sent.datagram)
    assert request is not None
    reply = lease.answer(snapshot(), request).reply
    assert reply is not None
    offer = dhcp.decode(reply.data)
    assert offer is not None
    for wrong in (
        replace(offer, xid=offer.xid ^ 1),
        replace(offer, chaddr=bytes(6)),
        replace(offer, giaddr=IPv4Address("127.9.9.9")),
        replace(offer, op=1),
        replace(offer, yiaddr=IPv4Address(0)),
        replace(offer, options={**offer.options, opt.MESSAGE_TYPE: b"\5"}),
    ):
        assert asked.on_datagram(dhcp.encode(wrong), NODE, 0) == []
    assert asked.dropped == 6
    assert len(asked.on_datagram(reply.data, NODE, 0)) == 1


@given(st.lists(st.binary(max_size=400), max_size=8))
def test_garbage_never_raises(packets: list[bytes]) -> None:
    asked = client("ipxe")
    asked.start(0)
    for packet in packets:
        assert asked.on_datagram(packet, NODE, 0) == []
        asked.on_datagram(bytes((2, 1, 6, 0)) + bytes(232) + dhcp.COOKIE + packet, NODE, 0)
