"""DHCP of a real node over loopback: port locks, proxy DHCP, relays, digests of replies."""

from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest
import trio

from mesh.errors import Refused, Unreachable
from mesh.proto import tables
from node.boot.digest_gossip import METHOD
from node.proto import dhcp
from node.proto import dhcp_options as opt
from node.proto.dhcp import Packet, decode, encode
from tests.io.test_boot_services import RELAY, SUBNET, get, node, udp_client
from tests.support.boot_node import SCOPE, Node
from tests.support.boot_site import BIOS_ROM, MAC, packet

STRANGER = "52:54:00:77:00:66"
SERVERS = {"s1": {"macs": [MAC], "ip": "127.91.0.20", "name": "web-1", "accepted_ms": 5}}


def circuit(port: str) -> bytes:
    return bytes((1, len(port))) + port.encode() + b"\x13\x00"


async def send(
    sock: trio.socket.SocketType, running: Node, client: Packet, port: str = "dhcp"
) -> None:
    await sock.sendto(encode(client), ("127.0.0.1", running.boot.ports[port]))


async def counted(running: Node, kind: str, count: int = 1) -> None:
    while running.boot.statistics()["dhcp"].get(kind, 0) < count:
        await trio.lowlevel.checkpoint()


async def answered(sock: trio.socket.SocketType, running: Node, client: Packet) -> Packet:
    await send(sock, running, client)
    message = decode((await sock.recvfrom(2000))[0])
    assert message is not None
    return message


def relayed(port: str, mac: str = MAC) -> Packet:
    return packet(mac=mac, giaddr=RELAY, options={opt.RELAY_AGENT: circuit(port)})


async def test_an_impersonator_is_not_answered_and_its_port_is_quarantined(
    tmp_path: Path,
) -> None:
    async with node(tmp_path, servers=SERVERS) as running:
        with await udp_client() as sock:
            offer = await answered(sock, running, relayed("eth7"))
            assert str(offer.yiaddr) == "127.91.0.20"
            await running.store.write(
                lambda tx: tx.put(SCOPE, tables.PORT_LOCK, "s1", {"port": "eth7"})
            )
            await send(sock, running, relayed("eth9"))
            await counted(running, "wrong port")
            await send(sock, running, relayed("eth9", STRANGER))
            await counted(running, "port in quarantine")
            offer = await answered(sock, running, relayed("eth7"))
            assert str(offer.yiaddr) == "127.91.0.20"
            offer = await answered(sock, running, relayed("eth8", STRANGER))
            assert offer.message_type == dhcp.OFFER
        (said,) = running.boot.problems()
        assert f"{MAC} asks from port eth9 as web-1, which is locked to eth7" in said


async def test_beside_another_server_machines_learn_what_to_boot_and_get_their_script(
    tmp_path: Path,
) -> None:
    mode = {**SUBNET, "mode": "proxy", "beside": [RELAY]}
    async with node(tmp_path, subnet=mode) as running:
        with await udp_client("127.91.0.50") as sock, await udp_client() as relay:
            asks = packet(giaddr=RELAY, options={**BIOS_ROM, opt.RELAY_AGENT: b"\x13\x00"})
            offer = await answered(relay, running, asks)
            assert (offer.yiaddr, offer.file) == (dhcp.ZERO, b"undionly.kpxe")
            path = f"/boot/v1/script?mac={MAC.replace(':', '%3A')}"
            assert (await get(running, path, "127.91.0.50"))[0] == 403
            boot = packet(3, ciaddr="127.91.0.50", options=BIOS_ROM)
            await send(sock, running, boot, "pxe")
            message = decode((await sock.recvfrom(2000))[0])
            assert message is not None
            assert message.message_type == dhcp.ACK
            assert (await get(running, path, "127.91.0.50"))[0] == 200
            chosen = {opt.SERVER_ID: IPv4Address(RELAY).packed, 50: bytes((127, 91, 0, 51))}
            await send(relay, running, packet(3, giaddr=RELAY, options=chosen))
            await counted(running, "proxy: heard")
            assert (await get(running, path, "127.91.0.51"))[0] == 200
            assert (await get(running, path, "127.91.0.50"))[0] == 403
        assert running.boot.problems() == []


async def test_nobody_is_answered_at_an_address_that_is_not_the_senders_or_ours(
    tmp_path: Path,
) -> None:
    async with node(tmp_path) as running:
        with await udp_client("127.91.0.50") as sock:
            link = bytes((5, 4)) + IPv4Address(RELAY).packed + b"\x13\x00"
            options = {opt.RELAY_AGENT: link}
            await send(sock, running, packet(giaddr="127.8.8.8", options=options))
            await counted(running, "relay of nowhere")
            other = packet(3, ciaddr="127.91.0.60", options=BIOS_ROM)
            await send(sock, running, other, "pxe")
            await counted(running, "4011: not from its address")
        with await udp_client("127.8.8.8") as itself:
            asks = packet(giaddr="127.8.8.8", options=options)
            assert (await answered(itself, running, asks)).message_type == dhcp.OFFER
        assert "replies" in running.boot.statistics()["dhcp"]
        assert running.boot.statistics()["dhcp"]["replies"] == 1


async def test_nodes_tell_each_other_digests_of_their_replies_and_compare_them(
    tmp_path: Path,
) -> None:
    messages: list[dict[str, Any]] = []

    async def rpc(peer: str, method: str, body: Any, _timeout_s: float) -> Any:
        assert (peer, method) == ("b", METHOD)
        messages.append(body)
        raise Unreachable("away")

    def near() -> list[str]:
        return ["b"]

    async with node(tmp_path, near=near) as running, trio.open_nursery() as nursery:
        nursery.start_soon(running.boot.gossip.run, rpc)
        with await udp_client() as sock:
            await answered(sock, running, relayed("eth1"))
            again = await answered(sock, running, replace(relayed("eth1"), xid=7))
            assert again.xid == 7
        while not messages:
            await trio.lowlevel.checkpoint()
        (message,) = messages
        assert message["snapshot"] == running.boot.snapshot().id
        ((asked, said),) = message["pairs"]
        take = running.boot.gossip.rpc_handlers()[METHOD]
        with pytest.raises(Refused):
            await take("c", message)
        await take("b", message)
        assert running.boot.statistics()["dhcp"]["replies compared"] == 1
        assert running.boot.problems() == []
        await take("b", {**message, "pairs": [[asked, said[::-1]]]})
        (problem,) = running.boot.problems()
        assert f"node b (1 replies, last to {MAC})" in problem
        nursery.cancel_scope.cancel()
