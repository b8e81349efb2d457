"""Hostile clients of a running node's boot services: logs, tables, addresses, requests."""

import io
import json
import socket
from collections.abc import Iterator
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, cast

import pytest
import trio

from mesh.host import log as logging
from mesh.proto import tables
from node.boot.dhcp import WRITES_MAX
from node.boot.http import FileBody, Response, Route
from node.boot.tftp import PER_CLIENT_MAX
from node.proto import dhcp
from node.proto import dhcp_options as opt
from node.proto.dhcp import encode
from tests.io.test_boot_dhcp import STRANGER
from tests.io.test_boot_http import echo, serving, talk
from tests.io.test_boot_services import LOADER, RELAY, ask, get, node, read_by_tftp, udp_client
from tests.support.boot_corpus import dhcp_requests, rrq
from tests.support.boot_node import SCOPE
from tests.support.boot_site import MAC, packet
from tests.support.mutations import mutations

NASTY = b'\x1b[2J\r\n{"level": "error"}\x00\xff\xe2\x80\xae'
CHANGED = 3000


@pytest.fixture
def logged() -> Iterator[io.StringIO]:
    stream = io.StringIO()
    logging.configure("debug", stream)
    yield stream
    logging.configure()


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    """Return the log's lines; each is one object of printable text."""
    found = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert all(str(value).isprintable() for line in found for value in line.values())
    return found


async def test_hostile_bytes_are_printable_in_every_line_of_the_log(
    tmp_path: Path, logged: io.StringIO
) -> None:
    """Kea CVE-2025-32801 and others: the path that writes the log is one of attack."""
    servers = {"s1": {"macs": [MAC], "ip": "127.91.0.20", "accepted_ms": 5}}
    async with node(tmp_path, servers=servers) as running:
        await running.store.write(
            lambda tx: tx.put(SCOPE, tables.PORT_LOCK, "s1", {"port": "eth7"})
        )
        words = bytes((1, len(NASTY))) + NASTY
        options = {opt.RELAY_AGENT: words, 60: NASTY, 61: NASTY, 12: NASTY, 77: NASTY}
        with await udp_client() as sock:
            there = ("127.0.0.1", running.boot.ports["dhcp"])
            await sock.sendto(encode(packet(giaddr=RELAY, options=options)), there)
            while not running.boot.statistics()["dhcp"].get("wrong port"):
                await trio.lowlevel.checkpoint()
        (said,) = running.boot.problems()
        assert said.isprintable()
        name = NASTY[:20].replace(b"\0", b"").decode("ascii")
        assert (await read_by_tftp(running, name))[:4] == b"\0\5\0\1"
        assert (await get(running, "/%1b%5b2J%0d%0aforged"))[0] == 404
    found = lines(logged)
    assert {"port lock broken", "tftp file unknown", "request"} <= {one["msg"] for one in found}


class Mute:
    """A socket that counts what is sent."""

    def __init__(self) -> None:
        self.sent = 0

    def sendmsg(self, *_said: object) -> int:
        self.sent += 1
        return 1


async def test_changed_messages_leave_every_table_of_the_service_bounded(
    tmp_path: Path, logged: io.StringIO
) -> None:
    sock = Mute()
    async with node(tmp_path) as running, trio.open_nursery() as nursery:
        server, count = running.boot._dhcp, 0
        giaddr = IPv4Address(RELAY).packed
        for count, data in enumerate(mutations(dhcp_requests(), 19, CHANGED), 1):
            data = data[:24] + giaddr + data[28:]
            server._on_datagram(data, (RELAY, 68), cast(socket.socket, sock), nursery)
            if count % 64 == 0:
                await trio.lowlevel.checkpoint()
        counts = running.boot.statistics()["dhcp"]
        assert counts["packets"] == CHANGED
        assert CHANGED // 20 < sock.sent <= CHANGED
        assert len(server._writing) <= WRITES_MAX
        assert len(server._claims) <= WRITES_MAX
        assert not any(key[0].isupper() for key in counts), "kinds are ours, not the packets'"
        assert len(counts) < 60
        nursery.cancel_scope.cancel()
    lines(logged)


async def test_an_invented_machine_that_declines_makes_no_row(tmp_path: Path) -> None:
    async with node(tmp_path) as running:
        with await udp_client() as sock:
            for number in range(20):
                client = packet(mac=f"{STRANGER[:-2]}{number:02x}")
                offer = await ask(sock, running, client)
                wanted = {
                    opt.SERVER_ID: offer.options[opt.SERVER_ID],
                    opt.REQUESTED_ADDRESS: offer.yiaddr.packed,
                }
                declines = packet(dhcp.DECLINE, mac=client.mac, giaddr=RELAY, options=wanted)
                there = ("127.0.0.1", running.boot.ports["dhcp"])
                await sock.sendto(encode(declines), there)
            while running.boot.statistics()["dhcp"].get("decline", 0) < 20:
                await trio.lowlevel.checkpoint()
        assert running.store.rows(SCOPE, tables.BINDING) == []


async def test_tftp_answers_our_networks_alone_and_a_client_little(tmp_path: Path) -> None:
    """No reflection: a first answer may go to who never asked, so it goes to nobody else."""
    async with node(tmp_path) as running:
        there = ("127.0.0.1", running.boot.ports["tftp"])
        asked = rrq("undionly.kpxe", "octet")
        with await udp_client("127.8.8.8") as stranger:
            for data in (asked, rrq("nothing", "octet"), rrq("x", "octet", opcode=2)):
                await stranger.sendto(data, there)
            while running.boot.statistics()["tftp"].get("foreign", 0) < 3:
                await trio.lowlevel.checkpoint()
        assert running.boot.statistics()["tftp"]["transfers"] == 0
        victims = [await udp_client() for _ in range(PER_CLIENT_MAX + 3)]
        for sock in victims:
            await sock.sendto(asked, there)
        first = [await sock.recv(2000) for sock in victims]
        for sock in victims:
            sock.close()
        begun = [data for data in first if data[1] == 3]
        assert len(begun) == PER_CLIENT_MAX
        assert all(len(data) <= 64 for data in first if data[1] == 5)
        assert await read_by_tftp(running, "undionly.kpxe") in {LOADER} | {
            data for data in first if data[1] == 5
        }


@pytest.mark.parametrize(
    ("said", "statuses"),
    [
        (b"HEAD /file HTTP/1.1\r\nHost: a\r\n\r\nnonsense\r\n\r\n", [b"200", b"400"]),
        (b"head /file HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", [b"405"]),
        (b"get /file HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", [b"405"]),
        (b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: " + b"9" * 9000, [b"400"]),
        (b"GET /file HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", [b"400"]),
        (b"GET /api/v1/servers HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", [b"404"]),
    ],
    ids=["garbage after HEAD", "head", "get", "length", "two hosts", "no management here"],
)
async def test_a_request_that_is_none_costs_one_connection_and_no_service(
    tmp_path: Path, said: bytes, statuses: list[bytes]
) -> None:
    """The first two ended the node: h11 was told of a body that was not sent."""
    image = tmp_path / "image"
    image.write_bytes(b"image")

    async def file(_request: object) -> Response:
        return Response(body=FileBody(image, 5, "v1"))

    if b"9999" in said:
        said += b"\r\n\r\n"
    routes = [Route("GET", "/file", file), Route("POST", "/echo", echo)]
    async with serving(routes) as (server, port):
        answer = await talk(port, said)
        found = [one.split(b" ")[0] for one in answer.split(b"HTTP/1.1 ")[1:]]
        assert found == statuses
        again = await talk(port, b"GET /file HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert again.startswith(b"HTTP/1.1 200")
        assert not server.counts["failed_connections"]


async def test_a_fault_of_ours_in_one_connection_ends_that_one(logged: io.StringIO) -> None:
    async def odd(_request: object) -> Response:
        return Response(headers={"X": "\u2028"})  # no header can hold it

    async with serving([Route("GET", "/odd", odd), Route("POST", "/echo", echo)]) as (
        server,
        port,
    ):
        assert await talk(port, b"GET /odd HTTP/1.1\r\nHost: a\r\n\r\n") == b""
        said = b"POST /echo HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
        assert (await talk(port, said)).startswith(b"HTTP/1.1 200")
        assert server.counts["failed_connections"] == 1
    assert "connection failed" in {one["msg"] for one in lines(logged)}


@pytest.mark.parametrize(
    "path", ["/phone/v1/SECRET", "//phone/v1/SECRET", "/Phone/v1/SECRET", "/x/phone/v1/SECRET"]
)
async def test_a_capability_stays_out_of_the_log_where_its_path_is_mistyped(
    tmp_path: Path, logged: io.StringIO, path: str
) -> None:
    async with node(tmp_path) as running:
        await get(running, path, method="POST")
    assert "/phone/v1/***" in logged.getvalue()
    assert "SECRET" not in logged.getvalue()
