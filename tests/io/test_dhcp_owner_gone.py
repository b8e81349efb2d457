"""An ACK that sends firmware to another node waits, in case that node dies just now."""

from ipaddress import IPv4Address
from pathlib import Path

import pytest
import trio

from mesh.host.clock import FixedClock
from mesh.host.log import get_log
from node.boot import dhcp as service
from node.boot.dhcp import DhcpServer
from node.proto import dhcp_options as opt
from node.proto.dhcp import ACK, REQUEST, Packet, decode, encode
from node.proto.lease_snapshot import Snapshot
from tests.io.test_boot_services import RELAY, SUBNET, node, udp_client
from tests.support.boot_site import IPXE, MAC, packet, snapshot

US, OTHER = "127.0.0.1", "127.0.0.2"
SERVERS = {"s1": {"macs": [], "ip": "127.91.0.20", "name": "web-1", "accepted_ms": 5}}


class Rows:
    """The site's rows as a test sets them."""

    version = 0

    def __init__(self, mac: str) -> None:
        self._mac = mac
        self.site = self.with_absent()

    def with_absent(self, *absent: str) -> Snapshot:
        servers = {"s1": {**SERVERS["s1"], "macs": [self._mac]}}
        return snapshot(
            hosts=[US, OTHER], subnets=[SUBNET], servers=servers, absent=absent,
            direct=SUBNET["cidr"],
        )  # fmt: skip

    def current(self) -> Snapshot:
        return self.site


def mac_sent_to(host: str) -> str:
    """Return the MAC of a machine that the site sends to that node."""
    site = snapshot(hosts=[US, OTHER], subnets=[SUBNET])
    owners = {mac: site.owner_of(mac, site.subnets[0]) for mac in map(numbered, range(64))}
    return next(mac for mac, one in owners.items() if one and str(one.host) == host)


def numbered(number: int) -> str:
    return f"{MAC[:-2]}{number:02x}"


def asks(mac: str) -> bytes:
    named = {
        opt.REQUESTED_ADDRESS: IPv4Address("127.91.0.20").packed,
        opt.SERVER_ID: IPv4Address(OTHER).packed,
        opt.RELAY_AGENT: b"\x13\x00",
    }
    return encode(packet(REQUEST, mac, {**IPXE, **named}, giaddr=RELAY))


async def received(sock: trio.socket.SocketType) -> Packet:
    message = decode((await sock.recvfrom(2000))[0])
    assert message is not None
    return message


@pytest.mark.parametrize("dies", [False, True])
async def test_firmware_is_sent_to_another_node_only_if_that_node_lives_a_moment_later(
    tmp_path: Path, dies: bool
) -> None:
    mac = mac_sent_to(OTHER)
    rows = Rows(mac)
    async with node(tmp_path) as running, trio.open_nursery() as nursery:
        server = DhcpServer(
            running.store, "lab", rows, FixedClock(), get_log("dhcp"), address=US, port=0
        )  # type: ignore[arg-type]
        with server.open() as door, server.open(0) as pxe, await udp_client() as sock:
            port = await nursery.start(server.run, door, pxe)
            began = trio.current_time()
            await sock.sendto(asks(mac), (US, port))
            while not server.statistics().get("held"):
                await trio.lowlevel.checkpoint()
            assert not server.statistics().get("ack")
            if dies:
                rows.site = rows.with_absent(OTHER)
            ack = await received(sock)
            assert trio.current_time() - began >= service.HELD_S
            assert ack.message_type == ACK
            assert ack.options[opt.SERVER_ID] == IPv4Address(OTHER).packed, "clients compare"
            assert str(ack.siaddr) == (US if dies else OTHER)
            nursery.cancel_scope.cancel()


async def test_firmware_that_is_sent_to_ourselves_is_acknowledged_at_once(
    tmp_path: Path,
) -> None:
    mac = mac_sent_to(US)
    async with node(tmp_path) as running, trio.open_nursery() as nursery:
        server = DhcpServer(
            running.store, "lab", Rows(mac), FixedClock(), get_log("dhcp"), address=US, port=0
        )  # type: ignore[arg-type]
        with server.open() as door, server.open(0) as pxe, await udp_client() as sock:
            port = await nursery.start(server.run, door, pxe)
            await sock.sendto(asks(mac), (US, port))
            assert str((await received(sock)).siaddr) == US
            assert not server.statistics().get("held")
            nursery.cancel_scope.cancel()
