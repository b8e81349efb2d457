"""Smoke of a node's boot services over loopback, without root: relayed DHCP, TFTP, HTTP."""

import json
import os
import random
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import blake3
import pytest
import trio

from cache.api import Cache
from mesh.errors import LocalError
from mesh.host.clock import FixedClock
from mesh.host.log import get_log
from mesh.proto import tables
from mesh.store import Tx
from node.boot import tftp_send
from node.boot.aging import KEEP_MS, sweep
from node.boot.dhcp_alarms import NOTE_EACH_S
from node.boot.files import BootFiles
from node.boot.ports import Refusal
from node.boot.service import BootConfig, BootServices
from node.boot.snapshot import SnapshotSource
from node.boot.sockets import holders, interface_address, udp_socket
from node.proto import dhcp, tftp
from node.proto import dhcp_options as opt
from node.proto.dhcp import Packet, decode, encode
from tests.support.boot_node import SCOPE, SCRIPT, Decisions, NoAssets, Node, boot_node
from tests.support.boot_site import BIOS_ROM, IPXE, MAC, packet

RELAY = "127.91.0.9"
SUBNET = {
    "cidr": "127.91.0.0/24",
    "first": "127.91.0.10",
    "last": "127.91.0.99",
    "lease_s": 600,
    "salt": "5a17",
}
LOOPBACK = BootConfig(site="lab", listen="127.0.0.1", dhcp_port=0, tftp_port=0, http_port=0)
LOADER = bytes(range(256)) * 12  # 3,072 bytes


@asynccontextmanager
async def node(tmp_path: Path, **more: Any) -> AsyncIterator[Node]:
    files = BootFiles(entries={"undionly.kpxe": LOADER, "empty": b""})
    async with boot_node(
        tmp_path, LOOPBACK, **{"files": files, "subnet": SUBNET, **more}
    ) as running:
        yield running


async def udp_client(address: str = RELAY) -> trio.socket.SocketType:
    sock = trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM)
    await sock.bind((address, 0))
    return sock


async def ask(
    sock: trio.socket.SocketType, node: Node, client: Packet, relay: str = RELAY
) -> Packet:
    relayed = Packet(
        xid=client.xid,
        giaddr=IPv4Address(relay),
        chaddr=client.chaddr,
        options={**client.options, opt.RELAY_AGENT: b"\x13\x00"},
    )
    await sock.sendto(encode(relayed), ("127.0.0.1", node.boot.ports["dhcp"]))
    data, _ = await sock.recvfrom(2000)
    message = decode(data)
    assert message is not None
    return message


async def get(
    node: Node, path: str, source: str = "127.0.0.1", method: str = "GET", body: bytes = b"",
    headers: str = "",
) -> tuple[int, bytes]:  # fmt: skip
    stream = await trio.open_tcp_stream(
        "127.0.0.1", node.boot.ports["http"], local_address=source
    )
    async with stream:
        head = f"{method} {path} HTTP/1.1\r\nHost: n\r\nContent-Length: {len(body)}\r\n"
        head += f"{headers}Connection: close\r\n\r\n"
        await stream.send_all(head.encode() + body)
        answer = b""
        while data := await stream.receive_some(65536):
            answer += data
    return int(answer.split(b" ")[1]), answer.partition(b"\r\n\r\n")[2]


async def test_an_unknown_machine_boots_by_relay_and_its_binding_is_durable(
    tmp_path: Path,
) -> None:
    async with node(tmp_path) as running:
        with await udp_client() as sock:
            offer = await ask(sock, running, packet(options=BIOS_ROM))
            assert offer.file == b"undionly.kpxe"
            assert running.store.rows(SCOPE, tables.BINDING) == []
            wanted = {
                **IPXE,
                opt.REQUESTED_ADDRESS: offer.yiaddr.packed,
                opt.SERVER_ID: offer.options[opt.SERVER_ID],
            }
            ack = await ask(sock, running, packet(dhcp.REQUEST, options=wanted))
            assert ack.message_type == dhcp.ACK
            (row,) = running.store.rows(SCOPE, tables.BINDING)
            assert (row.key, row.body["ip"]) == (MAC, str(offer.yiaddr))
            url = f"http://127.0.0.1:{running.boot.ports['http']}/boot/v1/script?mac={MAC}"
            assert ack.file == url.encode()
        version = running.store.version
        while not (rows := running.store.authored(SCOPE, tables.SIGHTING)):
            version = await running.store.wait_past(version)
        assert rows[0].body["arch"] == "bios-x64"
        assert rows[0].body["where"] == "ipxe"
        assert running.boot.statistics()["dhcp"]["bindings"] == 1
        assert await get(running, f"/boot/v1/script?mac={MAC.replace(':', '%3A')}") == (
            403,
            b"#!ipxe\necho this address is not bound to that machine\nsleep 3\nexit 1\n",
        )
        status, script = await get(
            running, f"/boot/v1/script?mac={MAC.replace(':', '%3A')}", str(offer.yiaddr)
        )
        assert (status, script) == (200, SCRIPT.encode())
        assert running.decisions.asked == [("script", MAC, str(offer.yiaddr))]


async def test_a_sighting_is_written_once_and_keeps_what_others_wrote(tmp_path: Path) -> None:
    async with node(tmp_path) as running:
        await running.store.write(
            lambda tx: tx.put(SCOPE, tables.SIGHTING, MAC, {"summary": "Dell", "first_ms": 7})
        )
        with await udp_client() as sock:
            for _ in range(5):
                await ask(sock, running, packet(options=BIOS_ROM))
            await ask(sock, running, packet(mac="52:54:00:77:00:09"))
        while running.boot.statistics()["dhcp"].get("sightings written", 0) < 2:
            await trio.lowlevel.checkpoint()
        (row,) = running.store.authored(SCOPE, tables.SIGHTING, MAC)
        assert row.body["summary"] == "Dell"
        assert row.body["first_ms"] == 7
        assert row.body["arch"] == "bios-x64"
        assert running.boot.statistics()["dhcp"]["sightings written"] == 2


async def test_clients_without_a_relay_and_garbage_are_dropped_and_counted(
    tmp_path: Path,
) -> None:
    async with node(tmp_path) as running:
        with await udp_client() as sock:
            there = ("127.0.0.1", running.boot.ports["dhcp"])
            await sock.sendto(encode(packet()), there)
            await sock.sendto(b"garbage", there)
            await sock.sendto(b"\0" * 6000, there)
            await ask(sock, running, packet())
        counts = running.boot.statistics()["dhcp"]
        assert counts["without relay"] == 1
        assert counts["malformed"] == 2
        assert counts["offer"] == 1


async def test_a_machine_that_takes_another_servers_offer_raises_an_alarm(
    tmp_path: Path,
) -> None:
    async with node(tmp_path) as running:
        with await udp_client() as sock:
            offer = await ask(sock, running, packet())
            there = ("127.0.0.1", running.boot.ports["dhcp"])
            for server in (offer.options[opt.SERVER_ID], bytes((10, 77, 0, 66))):
                wanted = {opt.SERVER_ID: server, opt.REQUESTED_ADDRESS: offer.yiaddr.packed}
                taken = packet(dhcp.REQUEST, giaddr=RELAY, options=wanted)
                await trio.sleep(2 * NOTE_EACH_S)
                await sock.sendto(encode(taken), there)
            while not running.boot.problems():
                await trio.lowlevel.checkpoint()
        (said,) = running.boot.problems()
        assert f"10.77.0.66 (last taken by {MAC}" in said
        assert "127.0.0.1" not in said
        assert running.boot.statistics()["dhcp"]["other server"] == 1


async def test_release_and_decline_change_the_binding(tmp_path: Path) -> None:
    async with node(tmp_path) as running:
        with await udp_client() as sock:
            offer = await ask(sock, running, packet())
            named = {opt.SERVER_ID: offer.options[opt.SERVER_ID]}
            wanted = {**named, opt.REQUESTED_ADDRESS: offer.yiaddr.packed}
            await ask(sock, running, packet(dhcp.REQUEST, options=wanted))

            async def tell(client: Packet) -> None:
                version = running.store.version
                there = ("127.0.0.1", running.boot.ports["dhcp"])
                await sock.sendto(encode(client), there)
                await running.store.wait_past(version)

            await tell(packet(dhcp.DECLINE, giaddr=RELAY, options=wanted))

            def declined() -> list[str]:
                row = running.store.get(SCOPE, tables.BINDING, MAC)
                return row.body.get("declined", []) if row is not None else []

            while not declined():
                await running.store.wait_past(running.store.version)
            assert declined() == [str(offer.yiaddr)]
            second = await ask(sock, running, packet())
            assert second.yiaddr != offer.yiaddr
            wanted = {**named, opt.REQUESTED_ADDRESS: second.yiaddr.packed}
            await ask(sock, running, packet(dhcp.REQUEST, options=wanted))
            await tell(
                packet(dhcp.RELEASE, giaddr=RELAY, ciaddr=str(second.yiaddr), options=named)
            )
            while running.store.get(SCOPE, tables.BINDING, MAC) is not None:
                await running.store.wait_past(running.store.version)


async def test_the_owner_ends_bindings_of_machines_long_gone(tmp_path: Path) -> None:
    async with node(tmp_path) as running:
        now_ms = running.clock.now_ms()
        rows = {"52:54:00:00:00:01": now_ms - 2 * KEEP_MS, "52:54:00:00:00:02": now_ms}

        def put(tx: Tx) -> None:
            for mac, claimed_ms in rows.items():
                tx.put(
                    SCOPE, tables.BINDING, mac, {"ip": "127.91.0.50", "claimed_ms": claimed_ms}
                )

        await running.store.write(put)
        snapshots = SnapshotSource(
            running.store, "lab", IPv4Address("127.0.0.1"), frozenset[str]
        )
        await sweep(running.store, SCOPE, snapshots, running.clock, get_log("dhcp"))
        assert [row.key for row in running.store.rows(SCOPE, tables.BINDING)] == [
            "52:54:00:00:00:02"
        ]


async def read_by_tftp(node: Node, name: str, *options: str) -> bytes:
    """Read a file as RFC 7440 says, or return the ERROR packet."""
    words = (name, "octet", *options)
    with await udp_client() as sock:
        request = b"\0\1" + b"".join(word.encode() + b"\0" for word in words)
        await sock.sendto(request, ("127.0.0.1", node.boot.ports["tftp"]))
        got, size, window, count = b"", 512, 1, 0
        while True:
            data, server = await sock.recvfrom(2000)
            if data[1] == tftp.ERROR:
                return data
            if data[1] == tftp.OACK:
                fields = data[2:-1].split(b"\0")
                granted = dict(zip(fields[::2], fields[1::2], strict=True))
                size = int(granted.get(b"blksize", 512))
                window = int(granted.get(b"windowsize", 1))
                await sock.sendto(b"\0\4\0\0", server)
                continue
            count += 1
            assert data[2:4] == count.to_bytes(2, "big"), "in order, each once"
            got += data[4:]
            if len(data) - 4 < size or count % window == 0:
                await sock.sendto(b"\0\4" + data[2:4], server)
            if len(data) - 4 < size:
                return got


@pytest.mark.parametrize("batches", [True, False], ids=["segments", "one by one"])
@pytest.mark.parametrize("window", ["1", "5", "64", "65535"])
async def test_a_window_brings_the_file_with_and_without_the_kernels_segments(
    tmp_path: Path, window: str, batches: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("node.proto.tftp.RETRY_S_LEAST", 5.0)  # the machine may be busy
    content = random.Random(7).randbytes(30_001)
    async with node(tmp_path, files=BootFiles(None, {"file": content})) as running:
        sender = running.boot._tftp._sender
        assert sender.batches
        sender.batches = batches
        for block in ("8", "512", "1468"):
            options = ("blksize", block, "windowsize", window)
            assert await read_by_tftp(running, "file", *options) == content
        assert sender.batches == batches, "the kernel refused to cut segments"
        assert running.boot.statistics()["tftp"]["repeated_blocks"] == 0


async def test_a_kernel_without_segments_gets_packets_one_by_one(tmp_path: Path) -> None:
    """An old one, or a card without checksums, says EIO to the first batch."""
    content = random.Random(7).randbytes(99_999)
    async with node(tmp_path, files=BootFiles(None, {"file": content})) as running:
        tftp_send.UDP_SEGMENT, kept = 9999, tftp_send.UDP_SEGMENT
        try:
            assert await read_by_tftp(running, "file", "windowsize", "16") == content
        finally:
            tftp_send.UDP_SEGMENT = kept
        assert not running.boot._tftp._sender.batches


async def test_tftp_gives_the_boot_files_out_and_nothing_else(tmp_path: Path) -> None:
    on_disk = tmp_path / "served"
    on_disk.mkdir()
    (on_disk / "initrd").write_bytes(LOADER * 3)
    (tmp_path / "secret").write_bytes(b"no")
    files = BootFiles(on_disk, {"undionly.kpxe": LOADER, "empty": b""})
    async with node(tmp_path, files=files) as running:
        assert await read_by_tftp(running, "undionly.kpxe") == LOADER
        assert await read_by_tftp(running, "/undionly.kpxe", "blksize", "1432") == LOADER
        assert (
            await read_by_tftp(running, "initrd", "tsize", "0", "blksize", "1024") == LOADER * 3
        )
        assert await read_by_tftp(running, "empty") == b""
        for name in ("nothing", "../secret", "served/initrd", "/etc/passwd", ""):
            assert (await read_by_tftp(running, name))[:4] == b"\0\5\0\1"
        (on_disk / "late").write_bytes(b"late")
        assert await read_by_tftp(running, "late") == b"late"
        statistics = running.boot.statistics()["tftp"]
        assert statistics["finished"] >= 4
        assert statistics["refused"] == 5


async def test_tftp_does_not_write_and_survives_garbage_and_vanished_clients(
    tmp_path: Path,
) -> None:
    async with node(tmp_path) as running:
        there = ("127.0.0.1", running.boot.ports["tftp"])
        with await udp_client() as sock:
            await sock.sendto(b"\0\2undionly.kpxe\0octet\0", there)
            assert (await sock.recv(100))[:4] == b"\0\5\0\2"
            await sock.sendto(b"\0\1undionly.kpxe\0netascii\0", there)
            assert (await sock.recv(100))[:4] == b"\0\5\0\4"
            await sock.sendto(b"garbage", there)
            request = b"\0\1undionly.kpxe\0octet\0tsize\x000\0"
            await sock.sendto(request, there)
            await sock.sendto(request, there)
            data, transfer = await sock.recvfrom(100)
            assert data == b"\0\6tsize\x003072\0"
            await sock.sendto(b"\0\5\0\x08User aborted the transfer\0", transfer)
        assert await read_by_tftp(running, "undionly.kpxe") == LOADER
        while running.boot.statistics()["tftp"].get("looked") != 1:
            await trio.lowlevel.checkpoint()
        counts = running.boot.statistics()["tftp"]
        assert counts["malformed"] == 1
        assert counts["repeated_requests"] == 1
        assert "failed" not in counts


async def test_http_serves_files_scripts_agents_and_phone_in(tmp_path: Path) -> None:
    fixed = {"s1": {"macs": [MAC], "ip": "127.91.0.7"}}
    async with node(tmp_path, servers=fixed) as running:
        assert await get(running, "/boot/v1/file/undionly.kpxe") == (200, LOADER)
        assert (await get(running, "/boot/v1/file/..%2f..%2fstate.db"))[0] == 404
        status, script = await get(running, "/boot/v1/script")
        assert (status, script[:6]) == (200, b"#!ipxe")
        assert b"mac=${net0/mac}" in script
        assert (await get(running, "/boot/v1/script?mac=zz"))[0] == 400
        running.decisions.script = Refusal("the server is held")
        status, script = await get(running, f"/boot/v1/script?mac={MAC}", "127.91.0.7")
        assert (status, script[:32]) == (200, b"#!ipxe\necho the server is held\ns")
        assert (await get(running, "/agent/v1/hello", method="POST", body=b"{}"))[1] == (
            b'{"session":"s"}'
        )
        form = b"hostname=web-1&pub_key_ed25519=x%20y"
        assert (await get(running, "/phone/v1/cap", method="POST", body=form))[0] == 200
        assert running.decisions.asked[-2:] == [
            ("agent", "/agent/v1/hello", b"{}", None, "127.0.0.1"),
            ("phone", "cap", {"hostname": "web-1", "pub_key_ed25519": "x y"}, "127.0.0.1"),
        ]
        assert (await get(running, "/phone/v1/", method="POST"))[0] == 404


async def test_assets_of_the_cache_are_served_with_their_manifest(tmp_path: Path) -> None:
    content = bytes(range(251)) * 9000  # 2.2 MiB, three chunks

    async def pieces() -> AsyncIterator[bytes]:
        yield content

    cache = Cache.open(tmp_path / "cache", 1 << 30, FixedClock())
    manifest = await cache.add_stream("image", pieces())
    async with node(tmp_path, assets=cache) as running:
        status, body = await get(running, f"/assets/{manifest.asset}")
        assert (status, body) == (200, content)
        status, body = await get(
            running, f"/assets/{manifest.asset.replace(':', '%3A')}/manifest"
        )
        document = json.loads(body)
        assert document["size"] == len(content)
        assert document["chunks"][0] == blake3.blake3(content[: 1 << 20]).hexdigest()
        assert document["sha256"] == manifest.sha256
        for path in ("b3:00", f"b3:{'0' * 64}", f"{manifest.asset}/x", "..%2fstate.db"):
            assert (await get(running, f"/assets/{path}"))[0] == 404


async def test_what_is_booted_off_the_network_is_served_only_as_the_decisions_say(
    tmp_path: Path,
) -> None:
    content = bytes(range(256)) * 5000

    async def pieces() -> AsyncIterator[bytes]:
        yield content

    cache = Cache.open(tmp_path / "cache", 1 << 30, FixedClock())
    asset = (await cache.add_stream("cd", pieces())).asset
    async with node(tmp_path, assets=cache) as running:
        path = f"/media/v1/{asset.removeprefix('b3:')}?cap=CAP"
        running.decisions.medium = Refusal("srv1 does not boot that any more")
        status, body = await get(running, path)
        assert (status, json.loads(body)["detail"]) == (403, "srv1 does not boot that any more")
        running.decisions.medium = asset
        assert await get(running, path) == (200, content)
        piece = await get(running, path, headers="Range: bytes=2048-4095\r\n")
        assert piece == (206, content[2048:4096])
        assert (await get(running, path, method="HEAD"))[0] == 200
        running.decisions.medium = None
        assert (await get(running, "/media/v1/boots?cap=CAP"))[0] == 200
        for odd in ("/media/v1/", f"/media/v1/{'x' * 2000}", "/media/v1"):
            assert (await get(running, odd))[0] == 404
        asked = [entry for entry in running.decisions.asked if entry[0] == "media"]
        name = asset.removeprefix("b3:")
        assert [entry[1:4] for entry in asked] == [
            ("CAP", name, 0), ("CAP", name, 0), ("CAP", name, 2048), ("CAP", name, 0),
            ("CAP", "boots", 0),
        ]  # fmt: skip
    cache.close()


@pytest.mark.parametrize(("service", "port"), [("DHCP", "dhcp_port"), ("TFTP", "tftp_port")])
async def test_a_port_that_is_taken_is_said_in_one_sentence_with_its_holder(
    tmp_path: Path, service: str, port: str
) -> None:
    with udp_socket("DHCP", "127.0.0.1", 0, None) as held:
        number = held.getsockname()[1]
        config = BootConfig(
            site="lab", **{"dhcp_port": 0, "tftp_port": 0, "http_port": 0, port: number}
        )
        async with node(tmp_path) as running:
            boot = BootServices(
                config, running.store, Decisions(), NoAssets(), BootFiles(), FixedClock()
            )
            with pytest.raises(LocalError, match=f"{service} cannot use .* held by process"):
                await boot.run()
        assert holders("udp", number)


async def test_two_nodes_are_tried_on_one_machine_each_on_ports_of_its_own(
    tmp_path: Path,
) -> None:
    async with node(tmp_path) as running, trio.open_nursery() as nursery:
        numbers: set[int] = set()
        for _ in range(2):
            with udp_socket("DHCP", "127.0.0.1", 0, None) as free:
                number = int(free.getsockname()[1])
            config = BootConfig(site="lab", dhcp_port=number, tftp_port=0, http_port=0)
            boot = BootServices(
                config, running.store, Decisions(), NoAssets(), BootFiles(), FixedClock()
            )
            await nursery.start(boot.run)
            numbers |= {number, boot.ports["pxe"]}
        assert len(numbers) == 4
        nursery.cancel_scope.cancel()


def test_a_holder_is_found_whatever_it_closes_while_we_look(tmp_path: Path) -> None:
    low = (tmp_path / "file").open("w")
    with udp_socket("DHCP", "127.0.0.1", 0, None) as held:
        low.close()  # the listing of our own files takes this lower number, and is gone then
        assert [f"process {os.getpid()} "] == [
            words.split("(")[0] for words in holders("udp", held.getsockname()[1])
        ]


async def test_an_http_port_that_is_taken_leaves_nothing_open(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as held:
        config = BootConfig(
            site="lab", dhcp_port=0, tftp_port=0, http_port=held.getsockname()[1]
        )
        async with node(tmp_path) as running:
            boot = BootServices(
                config, running.store, Decisions(), NoAssets(), BootFiles(), FixedClock()
            )
            with pytest.raises(LocalError, match="HTTP cannot use TCP port"):
                await boot.run()


def test_an_interface_that_is_not_there_is_said_with_those_that_are() -> None:
    with pytest.raises(LocalError, match=r"no network interface nic9; this machine has: .*lo"):
        interface_address("nic9")
    with pytest.raises(LocalError, match="not the name"):
        interface_address("a-name-that-is-too-long")
    assert interface_address("lo") == "127.0.0.1"


def test_an_address_that_is_none_is_said() -> None:
    with pytest.raises(LocalError, match="must be an IPv4 address"):
        BootConfig(site="lab", listen="here").address()
    with pytest.raises(LocalError, match="no interface of this machine has that address"):
        udp_socket("TFTP", "203.0.113.7", 0, None)
