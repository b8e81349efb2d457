"""Datagrams between members over real sockets: found, sealed, followed, and garbage dropped."""

import socket

import trio
from trio.socket import AF_INET, SOCK_DGRAM

from mesh.proto.datagram import HEARTBEAT
from mesh.proto.punch import Address
from tests.io.test_links_tcp import org_of
from tests.support.link_mesh import WAIT_S, Place, eventually, running, until


async def linked(a: Place, b: Place) -> None:
    """Let two running places have a link and a UDP path, both ways."""
    a.knows(b)
    for one, other in ((a, b), (b, a)):
        await until(one.peers, lambda one=one, other=other: other.id in one.peers.connected())
        await usable(one, other)


async def usable(one: Place, other: Place) -> None:
    path = one.peers.udp.path(other.id)
    assert path is not None
    with trio.fail_after(WAIT_S):
        while not path.usable:
            await path.level.wait_past(path.level.version)


async def test_two_members_send_each_other_datagrams():
    org = org_of("a", "b")
    a, b = Place(org, "a"), Place(org, "b")
    got: list[tuple[str, bytes]] = []
    b.peers.udp.on_kind(HEARTBEAT, lambda peer, payload: got.append((peer, payload)))
    async with running(a, b):
        assert not a.peers.udp.send(b.id, HEARTBEAT, b"too early")
        await linked(a, b)
        assert a.peers.udp.send(b.id, HEARTBEAT, b"alive")
        await eventually(lambda: got == [(a.id, b"alive")])
        assert a.peers.udp.seen_as() == [("127.0.0.1", a.peers.udp.port)]
        assert a.peers.udp.port == a.peers.port  # the same number as TCP
        info = a.peers.connected()[b.id]
        assert info.path == "tcp"
        assert info.bytes_in >= 100
        assert info.bytes_out >= 100


async def test_garbage_and_replays_are_dropped_and_counted():
    org = org_of("a", "b")
    a, b = Place(org, "a"), Place(org, "b")
    got: list[bytes] = []
    b.peers.udp.on_kind(HEARTBEAT, lambda _peer, payload: got.append(payload))

    def counted(what: str) -> int:
        return b.peers.statistics().counters.get(what, 0)

    async with running(a, b):
        await linked(a, b)
        path = a.peers.udp.path(b.id)
        assert path is not None
        data = path.session.seal(HEARTBEAT, b"once", trio.current_time())
        forged = data[:-1] + bytes([data[-1] ^ 1])
        with trio.socket.socket(AF_INET, SOCK_DGRAM) as stranger:
            for one in (b"", b"x" * 1500, bytes(100), forged, data, data):
                await stranger.sendto(one, ("127.0.0.1", b.peers.udp.port))
            await eventually(lambda: counted("udp_replayed") == 1)
        assert got == [b"once"]
        assert counted("udp_unknown") == 3
        assert counted("udp_forged") == 1
        await eventually(lambda: a.peers.udp.send(b.id, HEARTBEAT, b"again") and len(got) > 1)
        theirs = b.peers.udp.path(a.id)
        assert theirs is not None
        assert theirs.core.address == ("127.0.0.1", a.peers.udp.port)  # not the stranger's


async def test_a_member_that_is_suspended_loses_its_datagrams_with_its_link():
    org = org_of("a", "b")
    a, b = Place(org, "a"), Place(org, "b")
    async with running(a, b):
        await linked(a, b)
        a.roster.merge(org.roster(b.identity, status="suspended", version=2))
        await until(a.peers, lambda: b.id not in a.peers.connected())
        await eventually(lambda: not a.peers.udp.send(b.id, HEARTBEAT, b""))
        assert a.peers.udp.path(b.id) is None


async def test_a_peer_whose_address_changes_is_followed():
    org = org_of("a", "b")
    a, b = Place(org, "a"), Place(org, "b")
    got: list[bytes] = []
    a.peers.udp.on_kind(HEARTBEAT, lambda _peer, payload: got.append(payload))
    async with running(a, b):
        await linked(a, b)
        path = a.peers.udp.path(b.id)
        assert path is not None
        with trio.socket.socket(AF_INET, SOCK_DGRAM) as front:
            await front.bind(("127.0.0.1", 0))
            new: Address = front.getsockname()[:2]
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_translate, front, b.peers.udp.port, a.peers.udp.port)
                theirs = b.peers.udp.path(a.id)
                assert theirs is not None
                theirs.core.address = new  # what b sends comes from there now
                assert b.peers.udp.send(a.id, HEARTBEAT, b"moved")
                await eventually(lambda: path.core.address == new)
                nursery.cancel_scope.cancel()
        assert got == [b"moved"]


async def _translate(front: trio.socket.SocketType, inner: int, outer: int) -> None:
    """Be a NAT box of one socket between two ports of loopback."""
    while True:
        data, source = await front.recvfrom(2000)
        to = outer if source[1] == inner else inner
        await front.sendto(data, ("127.0.0.1", to))


async def test_a_taken_port_is_replaced_by_another_and_hello_tells():
    org = org_of("a", "b")
    a, b = Place(org, "a"), Place(org, "b")
    with socket.socket(AF_INET, SOCK_DGRAM) as holder:
        holder.bind(("127.0.0.1", 0))
        b.peers._listen_udp = ("127.0.0.1", holder.getsockname()[1])
        async with running(a, b):
            await linked(a, b)
            assert b.peers.udp.port not in (0, holder.getsockname()[1])
