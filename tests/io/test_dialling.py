"""Dialling over real TCP on loopback: several ways at once, and whom the keeper dials."""

import pytest
import trio

from mesh.errors import Unreachable
from tests.support.link_mesh import WAIT_S, Place, eventually, running, until
from tests.support.trust import Org


def pair(**more: object) -> tuple[Place, Place]:
    org = Org()
    org.admit("a")
    org.admit("b")
    return Place(org, "a", **more), Place(org, "b")


class Silent:
    """Takes connections, says nothing, and counts those that ended."""

    def __init__(self) -> None:
        self.port = 0
        self.taken = 0
        self.ended = 0

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        self.port = listeners[0].socket.getsockname()[1]
        task_status.started()
        await trio.serve_listeners(self._serve, listeners)

    async def _serve(self, stream: trio.SocketStream) -> None:
        self.taken += 1
        try:
            while await stream.receive_some():
                pass
        except trio.BrokenResourceError:
            pass
        self.ended += 1


async def test_a_silent_address_does_not_hold_up_the_next_one():
    a, b = pair()
    silent = Silent()
    async with running(a, b) as nursery:
        await nursery.start(silent.run)
        a.addresses[b.id] = [("127.0.0.1", silent.port), ("127.0.0.1", b.peers.port)]
        a.peers.look_again()
        with trio.fail_after(5):  # a handshake alone may take 10 s
            await until(a.peers, lambda: b.id in a.peers.connected())
        await eventually(lambda: silent.taken == silent.ended == 1)


async def test_many_ways_to_one_peer_make_one_link():
    a, b = pair()
    async with running(a, b):
        a.addresses[b.id] = [(f"127.0.0.{host}", b.peers.port) for host in range(1, 8)]
        b.addresses[a.id] = [(f"127.0.0.{host}", a.peers.port) for host in range(1, 8)]
        for place in (a, b):
            place.peers.look_again()
        await until(a.peers, lambda: b.id in a.peers.connected())
        await until(b.peers, lambda: a.id in b.peers.connected())
        assert a.peers.statistics().links == b.peers.statistics().links == 1


async def test_only_wanted_peers_are_dialled():
    wanted: set[str] = set()
    a, b = pair(wanted=lambda: wanted)
    async with running(a, b):
        a.knows(b)
        c = a.peers.version
        await trio.testing.wait_all_tasks_blocked()
        assert not a.peers.connected()
        wanted.add(b.id)
        a.peers.look_again()
        await a.peers.wait_past(c)
        assert b.id in a.peers.connected()


async def test_all_reasons_are_said_in_the_order_of_the_ways():
    a, b = pair()
    async with running(a):
        a.addresses[b.id] = [("127.0.0.1", 1), ("127.0.0.2", 2)]
        with pytest.raises(Unreachable, match=r"127\.0\.0\.1:1.*127\.0\.0\.2:2"):
            await a.peers.rpc(b.id, "echo", None, WAIT_S)


async def test_who_shows_up_at_another_address_is_dialled_soon():
    a, b = pair()
    async with running(a, b):
        a.addresses[b.id] = [("127.0.0.1", 1)]
        a.peers.look_again()
        await eventually(lambda: a.peers.statistics().counters.get("dials_failed", 0) >= 4)
        a.knows(b)  # the next dial by the clock is up to 8 s away
        with trio.fail_after(WAIT_S):
            await until(a.peers, lambda: b.id in a.peers.connected())
