"""Links, joins and browsers on one TLS port on loopback."""

import hashlib
from pathlib import Path

import pytest
import trio
from wsproto import ConnectionType

from mesh.errors import Refused, RemoteRefused, Unreachable
from mesh.link.carrier import CarrierLost
from mesh.link.join import JoinService
from mesh.link.peers import Peers
from mesh.link.tls import TlsRefused, client_context, require_strong
from mesh.link.ws import WsCarrier, dial_websocket, join_over_websocket
from mesh.proto.join import JoinResult
from mesh.proto.trust import make_hub_record
from tests.support.link_mesh import WAIT_S, HubDoor, Place, running, until
from tests.support.trust import Org, identity


async def echo(peer: str, body: object) -> object:
    return {"from": peer, "body": body}


async def refuse(_peer: str, _body: object) -> object:
    raise Refused("no")


RPC = {"echo": echo, "refuse": refuse}


class Site:
    """A hub with its door, and what the organisation knows of it."""

    def __init__(self, folder: Path, *nodes: str) -> None:
        self.org = Org()
        self.org.admit_hub()
        for node in nodes:
            self.org.admit(node)
        self.door = HubDoor(folder)
        self.folder = folder

    def announce(self, label: str = "hub", door: HubDoor | None = None) -> None:
        urls = [(door or self.door).url]
        record = make_hub_record(identity(label), self.org.root_fp, version=2, urls=urls)
        self.org.register.merge(record)

    def hub(self, label: str = "hub") -> Place:
        return Place(self.org, label, listen=False, rpc=RPC)


async def test_a_node_phones_home_and_both_sides_call(tmp_path: Path):
    site = Site(tmp_path, "n1")
    async with trio.open_nursery() as nursery:
        await nursery.start(site.door.run)
        site.announce()
        hub = site.hub()
        site.door.peers = hub.peers
        node = Place(site.org, "n1", hub_link=True, rpc=RPC)
        async with running(hub, node):
            await until(hub.peers, lambda: node.id in hub.peers.connected())
            answer = await hub.peers.rpc(node.id, "echo", bytes(300_000), WAIT_S)
            assert answer == {"from": hub.id, "body": bytes(300_000)}
            answer = await node.peers.rpc(hub.id, "echo", 1, WAIT_S)
            assert answer["from"] == node.id
            with pytest.raises(RemoteRefused, match="no"):
                await hub.peers.rpc(node.id, "refuse", 1, WAIT_S)
            assert hub.peers.connected()[node.id].path == "websocket"
            async with node.peers.bulk(hub.id) as link:
                assert (await link.rpc("echo", bytes(1 << 20), WAIT_S))["body"] == bytes(
                    1 << 20
                )
        nursery.cancel_scope.cancel()


async def test_a_node_goes_to_the_other_hub_when_its_own_dies(tmp_path: Path):
    site = Site(tmp_path, "n1")
    site.org.admit_hub("hub2")
    other = HubDoor(tmp_path)
    async with trio.open_nursery() as nursery:
        doors = {"hub": site.door, "hub2": other}
        scopes: dict[str, trio.CancelScope] = {}

        async def life(
            label: str,
            door: HubDoor,
            *,
            task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
        ) -> None:
            async with trio.open_nursery() as inner:
                scopes[label] = inner.cancel_scope
                await inner.start(door.run)
                task_status.started()

        for label, door in doors.items():
            await nursery.start(life, label, door)
            site.announce(label, door)
        hubs = {label: site.hub(label) for label in doors}
        for label, door in doors.items():
            door.peers = hubs[label].peers
        node = Place(site.org, "n1", hub_link=True)
        async with running(*hubs.values(), node):
            await until(node.peers, lambda: bool(node.peers.connected()))
            first = next(iter(node.peers.connected()))
            assert len(node.peers.connected()) == 1
            label = next(name for name, hub in hubs.items() if hub.id == first)
            scopes[label].cancel()
            await until(
                node.peers,
                lambda: bool(node.peers.connected()) and first not in node.peers.connected(),
            )
        nursery.cancel_scope.cancel()


async def test_a_browser_gets_the_web_side_of_the_same_port(tmp_path: Path):
    door = HubDoor(tmp_path)
    async with trio.open_nursery() as nursery:
        await nursery.start(door.run)
        stream = await trio.open_tcp_stream("127.0.0.1", door.port)
        secured = trio.SSLStream(stream, client_context(), https_compatible=True)
        await secured.do_handshake()
        require_strong(secured)
        for part in (b"GET / HT", b"TP/1.1\r\nHost: x\r\n", b"\r\n"):
            await secured.send_all(part)
        assert b"web" in await secured.receive_some()
        await trio.aclose_forcefully(secured)
        nursery.cancel_scope.cancel()


class Desk:
    """A hub's decisions about joins, as bytes."""

    def __init__(self) -> None:
        self.asked: list[tuple[bytes, bytes, bytes]] = []

    def server_payload(self) -> bytes:
        return b"who the hub is"

    async def answer(self, request: bytes, handshake_hash: bytes, static_key: bytes) -> bytes:
        self.asked.append((request, handshake_hash, static_key))
        return b"welcome " + request


class Newcomer:
    """A joining node's decisions, as bytes."""

    def __init__(self, hub_key: bytes) -> None:
        self.hub_key = hub_key
        self.reply = b""

    def accept_hub(self, payload: bytes, static_key: bytes) -> None:
        if payload != b"who the hub is" or static_key != self.hub_key:
            raise Refused("another hub")

    def request(self, handshake_hash: bytes) -> bytes:
        return hashlib.sha256(handshake_hash).digest()

    def finish(self, reply: bytes) -> JoinResult:
        self.reply = reply
        return JoinResult(b"", "", "", frozenset(), {}, ())


async def serve_join(
    nursery: trio.Nursery, folder: Path, desk: Desk
) -> tuple[HubDoor, Place, bytes]:
    org = Org()
    who = org.admit_hub()
    door = HubDoor(folder)
    hub = Place(org, "hub", listen=False)
    door.peers = hub.peers
    door.join = JoinService(desk, lambda: who.kem_private)
    await nursery.start(door.run)
    return door, hub, who.kem_public


async def test_a_join_carries_request_and_reply_bound_to_the_handshake(tmp_path: Path):
    desk, node = Desk(), identity("new")
    async with trio.open_nursery() as nursery:
        door, _, hub_key = await serve_join(nursery, tmp_path, desk)
        newcomer = Newcomer(hub_key)
        await join_over_websocket(
            door.url, newcomer, node.kem_private, fingerprint=door.fingerprint
        )
        request, handshake_hash, static = desk.asked[0]
        assert static == node.kem_public
        assert request == hashlib.sha256(handshake_hash).digest()
        assert newcomer.reply == b"welcome " + request
        nursery.cancel_scope.cancel()


async def test_a_newcomer_tells_a_wrong_hub_nothing(tmp_path: Path):
    desk, node = Desk(), identity("new")
    async with trio.open_nursery() as nursery:
        door, _, _ = await serve_join(nursery, tmp_path, desk)
        with pytest.raises(Refused, match="another hub"):
            await join_over_websocket(door.url, Newcomer(bytes(32)), node.kem_private)
        assert desk.asked == []
        with pytest.raises(TlsRefused, match="fingerprint"):
            await join_over_websocket(
                door.url, Newcomer(bytes(32)), node.kem_private, fingerprint=bytes(32)
            )
        with pytest.raises(Unreachable, match="no https URL"):
            await join_over_websocket("http://hub", Newcomer(bytes(32)), node.kem_private)
        nursery.cancel_scope.cancel()


async def test_a_client_that_breaks_the_websocket_protocol_is_dropped(tmp_path: Path):
    org = Org()
    org.admit_hub()
    door = HubDoor(tmp_path)
    hub = Place(org, "hub", listen=False)
    door.peers = hub.peers
    async with trio.open_nursery() as nursery:
        await nursery.start(door.run)
        for message in (b"", b"\x01", b"\x01\x00\x00", b"\x09\x00\x01x", b"\x03\x00\x01x"):
            carrier = await dial_websocket(door.url)
            await carrier.send([message])
            with trio.fail_after(WAIT_S), pytest.raises(CarrierLost):
                await carrier.receive()
            await carrier.aclose()
        stream = await trio.open_tcp_stream("127.0.0.1", door.port)
        secured = trio.SSLStream(stream, client_context(), https_compatible=True)
        carrier = WsCarrier(secured, ConnectionType.CLIENT, "x")
        await carrier.open_as_client("x")
        await secured.send_all(b"\xff" * 1000)
        with trio.fail_after(WAIT_S), pytest.raises(CarrierLost):
            await carrier.receive()
        await carrier.aclose()
        assert isinstance(hub.peers, Peers)
        assert hub.peers.connected() == {}
        nursery.cancel_scope.cancel()
