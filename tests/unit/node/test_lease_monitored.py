"""A monitored server is given an address at most: no boot file, no next server, no script."""

import itertools

import pytest

from node.proto import dhcp
from node.proto import dhcp_options as opt
from node.proto.dhcp import ZERO, decode
from node.proto.lease import answer, answer_4011
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

ROMS = {"bios": BIOS_ROM, "uefi": UEFI_ROM, "http": HTTP_ROM, "ipxe": IPXE}
SERVER = {"macs": [MAC], "ip": "10.77.0.20", "name": "db-1", "accepted_ms": 5}
ONLY = {**SERVER, "administration": "monitored"}
BOOTS = (opt.BOOT_FILE, opt.VENDOR, opt.IPXE, opt.VENDOR_CLASS)


@pytest.mark.parametrize(("rom", "asks"), list(itertools.product(ROMS, ("offer", "ack"))))
def test_firmware_gets_an_address_and_nothing_to_boot(rom: str, asks: str) -> None:
    for row, boots in ((SERVER, True), (ONLY, False)):
        site = snapshot(servers={"s1": row})
        if asks == "offer":
            result = answer(site, packet(options=ROMS[rom]))
        else:
            result = answer(site, request("10.77.0.20", A, options=ROMS[rom]))
        assert result.reply is not None
        message = decode(result.reply.data)
        assert message is not None
        assert str(message.yiaddr) == "10.77.0.20"
        told = [code for code in BOOTS if code in message.options]
        assert bool(message.file or told) == boots
        assert (message.siaddr != ZERO) == boots
        assert boots or result.boots_from is None


def test_a_proxy_and_the_port_of_boot_servers_are_silent() -> None:
    proxy = snapshot(servers={"s1": ONLY}, subnets=[{**SUBNET, "mode": "proxy"}])
    assert answer(proxy, packet(options=UEFI_ROM)).kind == "monitored"
    site = snapshot(servers={"s1": ONLY})
    asks = packet(dhcp.REQUEST, options=UEFI_ROM, ciaddr="10.77.0.20")
    assert answer_4011(site, asks).kind == "monitored"


def test_nodes_that_differ_about_it_know_that_they_answer_differently() -> None:
    assert snapshot(servers={"s1": ONLY}).id != snapshot(servers={"s1": SERVER}).id
