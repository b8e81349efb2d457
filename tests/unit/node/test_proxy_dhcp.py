"""Proxy DHCP beside another server, port 4011, and the classes of firmware."""

from ipaddress import IPv4Address

import pytest

from node.proto import dhcp
from node.proto import dhcp_options as opt
from node.proto.dhcp_answer import Answer
from node.proto.dhcp_boot import ARM_FILE, EFI_FILE, PXE_VENDOR, architecture
from node.proto.lease import answer, answer_4011
from node.proto.lease_snapshot import Snapshot
from tests.support.boot_site import (
    BIOS_ROM,
    HTTP_ROM,
    IPXE,
    MAC,
    SUBNET,
    UEFI_ROM,
    A,
    packet,
    request,
    snapshot,
)
from tests.unit.node.test_lease import owner_host, sent

OTHERS = "10.77.0.250"


def beside(**more: str) -> Snapshot:
    return snapshot(subnets=[{**SUBNET, "mode": "proxy", **more}])


@pytest.mark.parametrize("rom", [BIOS_ROM, UEFI_ROM, IPXE, HTTP_ROM])
def test_firmware_is_told_what_to_boot_and_gets_no_address(rom: dict[int, bytes]) -> None:
    message = sent(answer(beside(), packet(options=rom)))
    assert message.message_type == dhcp.OFFER
    assert message.yiaddr == dhcp.ZERO
    assert message.file
    assert str(message.siaddr) == owner_host(beside())
    for code in (opt.LEASE_TIME, opt.SUBNET_MASK, opt.ROUTER, opt.DNS, opt.RENEWAL_TIME):
        assert code not in message.options
    if rom in (BIOS_ROM, UEFI_ROM):
        assert message.options[opt.VENDOR_CLASS] == b"PXEClient"
        assert message.options[opt.VENDOR] == PXE_VENDOR


def test_an_operating_system_is_never_answered() -> None:
    for message_type in (1, 3, 8):
        more = {50: IPv4Address("10.77.0.120").packed}
        assert answer(beside(), packet(message_type, options=more)).reply is None


def test_the_address_of_the_other_server_is_heard_and_nobody_is_refused() -> None:
    result = answer(beside(), request("10.77.0.120", OTHERS, options=IPXE))
    assert (result.reply, result.claim) == (None, None)
    assert str(result.heard) == "10.77.0.120"
    assert result.seen is not None
    assert (result.seen.where, str(result.seen.ip)) == ("ipxe", "10.77.0.120")
    chosen = answer(beside(), request("10.77.0.120", owner_host(beside())))
    assert chosen.heard is None


def test_a_boot_server_request_is_answered_where_it_came_from() -> None:
    asks = packet(3, options=UEFI_ROM, ciaddr="10.77.0.120")
    for site in (beside(), snapshot()):
        result = answer_4011(site, asks)
        message = sent(result)
        assert result.reply is not None
        assert (str(result.reply.address), result.reply.port) == ("10.77.0.120", None)
        assert (message.message_type, message.file) == (dhcp.ACK, EFI_FILE.encode())
        assert message.yiaddr == dhcp.ZERO
        assert opt.LEASE_TIME not in message.options
        assert str(result.heard) == "10.77.0.120"


@pytest.mark.parametrize(
    "asks",
    [
        packet(3, options=UEFI_ROM),
        packet(3, options=UEFI_ROM, ciaddr="192.0.2.7"),
        packet(3, ciaddr="10.77.0.120"),
        packet(1, options=UEFI_ROM, ciaddr="10.77.0.120"),
        packet(3, options=UEFI_ROM, ciaddr="10.77.0.120", giaddr=OTHERS),
        packet(3, options=UEFI_ROM, ciaddr="10.77.0.120", op=2),
    ],
)
def test_port_4011_answers_nothing_else(asks: dhcp.Packet) -> None:
    assert answer_4011(beside(), asks).reply is None


def test_the_mode_is_part_of_the_snapshot() -> None:
    assert beside().id != snapshot().id
    assert beside(mode="serve").id == snapshot().id


# -- classes -------------------------------------------------------------------------------


def rom(number: int, vendor: bytes = b"PXEClient") -> dict[int, bytes]:
    return {
        opt.VENDOR_CLASS: vendor + f":Arch:{number:05}:UNDI:003016".encode(),
        opt.ARCHITECTURE: number.to_bytes(2, "big"),
        opt.PARAMETERS: bytes((opt.BOOT_FILE,)),
    }


@pytest.mark.parametrize(
    ("number", "vendor", "name", "file"),
    [
        (0, b"PXEClient", "bios-x64", "undionly.kpxe"),
        (7, b"PXEClient", "uefi-x64", EFI_FILE),
        (9, b"PXEClient", "uefi-x64", EFI_FILE),
        (11, b"PXEClient", "uefi-arm64", ARM_FILE),
        (16, b"HTTPClient", "uefi-x64-http", f"http://{A}:8470/boot/v1/file/{EFI_FILE}"),
        (19, b"HTTPClient", "uefi-arm64-http", f"http://{A}:8470/boot/v1/file/{ARM_FILE}"),
        (6, b"PXEClient", "unknown-6", ""),
        (16, b"PXEClient", "uefi-x64-http", ""),
        (11, b"HTTPClient", "uefi-arm64", ""),
    ],
)
def test_each_class_of_firmware_gets_its_own_file(
    number: int, vendor: bytes, name: str, file: str
) -> None:
    client = packet(options=rom(number, vendor))
    assert architecture(client) == name
    message = sent(answer(snapshot(hosts=[A]), client))
    assert message.file.decode() == file
    assert message.options.get(opt.BOOT_FILE, b"").decode() == file
    assert message.options.get(opt.VENDOR_CLASS, b"") == (vendor if file else b"")


def test_ipxe_gets_its_script_on_every_architecture() -> None:
    for number in (0, 7, 11):
        client = packet(options={**rom(number), opt.USER_CLASS: b"iPXE"})
        message = sent(answer(snapshot(hosts=[A]), client))
        assert message.file.decode() == f"http://{A}:8470/boot/v1/script?mac={MAC}"


# -- no reflection -------------------------------------------------------------------------


def told(client: dhcp.Packet) -> Answer:
    known = {"s1": {"macs": [MAC], "ip": "10.77.0.20", "name": "web-1", "accepted_ms": 5}}
    return answer(snapshot(servers=known), client)


@pytest.mark.parametrize(
    "client",
    [
        packet(dhcp.INFORM, ciaddr="192.0.2.7"),
        request("10.77.0.20", A, ciaddr="192.0.2.7"),
        request("10.77.0.20", None, ciaddr="192.0.2.7"),
    ],
)
def test_no_reply_leaves_our_networks(client: dhcp.Packet) -> None:
    result = told(client)
    assert (result.kind, result.reply) == ("reply would leave our networks", None)
    assert result.claim is None


def test_a_refusal_of_a_foreign_address_is_broadcast_on_our_own_wire() -> None:
    result = told(packet(dhcp.REQUEST, ciaddr="192.0.2.7"))
    assert result.kind == "nak"
    assert result.reply is not None
    assert str(result.reply.address) == "255.255.255.255"
