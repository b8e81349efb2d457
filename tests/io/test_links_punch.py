"""From a relayed link to one over UDP, and back when the path dies."""

import random
from collections.abc import Callable

import pytest
import trio

from mesh.errors import RemoteRefused, Unreachable
from mesh.link.carrier import CarrierLost
from mesh.link.puncher import METHOD
from mesh.proto import arq
from mesh.proto.arq import reset_payload
from mesh.proto.datagram import STREAM
from mesh.proto.punch import Address
from tests.io.test_links_relay import three, to_hub
from tests.io.test_links_tcp import double
from tests.support.link_mesh import WAIT_S, Place, eventually, running, until


async def path_is(path: str, one: Place, other: Place) -> None:
    """Wait until both ends have this kind of main link."""
    for place, far in ((one, other), (other, one)):

        def check(place: Place = place, far: Place = far) -> bool:
            info = place.peers.connected().get(far.id)
            return info is not None and info.path.split()[0] == path

        await until(place.peers, check)


async def relayed(a: Place, b: Place, hub: Place) -> None:
    await to_hub(hub, a, b)
    await a.peers.rpc(b.id, "echo", 1, WAIT_S)


async def test_a_relayed_link_becomes_one_over_udp_and_carries_what_links_carry():
    a, b, hub = three(streams={"double": double})
    async with running(a, b, hub):
        await relayed(a, b, hub)
        await path_is("udp", a, b)
        data = bytes(range(256)) * 4096
        assert (await a.peers.rpc(b.id, "echo", data, WAIT_S))["body"] == data
        async with a.peers.stream(b.id, "double", None) as stream:
            await stream.send(b"ab")
            assert await stream.receive() == b"abab"
        path = a.peers.udp.path(b.id)
        assert path is not None
        await eventually(lambda: path.usable)
        async with a.peers.bulk(b.id) as link:  # no relay carries it
            assert link.path == "udp"
            assert (await link.rpc("echo", data, WAIT_S))["body"] == data
        assert a.peers.connected()[b.id].address == f"127.0.0.1:{b.peers.udp.port}"
        await eventually(lambda: not hub.peers.relay._core._splices)
        for one, other in ((a, b), (b, a)):
            path = one.peers.udp.path(other.id)
            assert path is not None
            await eventually(lambda path=path: path.usable)


async def test_a_lossy_path_carries_everything():
    a, b, hub = three()
    async with running(a, b, hub):
        await relayed(a, b, hub)
        await path_is("udp", a, b)
        for place, seed in ((a, 1), (b, 2)):
            spoil(place, random.Random(seed))
        for size in (10, 50_000, 200_000):
            data = random.Random(size).randbytes(size)
            assert (await a.peers.rpc(b.id, "echo", data, 3 * WAIT_S))["body"] == data
        assert a.peers.connected()[b.id].path == "udp"


def spoil(place: Place, rng: random.Random, loss: float = 0.1) -> None:
    """Lose datagrams that a place sends."""
    honest: Callable[[bytes, Address], None] = place.peers.udp.post

    def post(data: bytes, address: Address) -> None:
        if rng.random() >= loss:
            honest(data, address)

    place.peers.udp.post = post  # type: ignore[method-assign]


async def test_when_the_path_dies_the_link_goes_back_to_the_relay(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(arq, "DEAD_S", 1.0)
    a, b, hub = three()
    async with running(a, b, hub):
        await relayed(a, b, hub)
        await path_is("udp", a, b)
        for place in (a, b):
            spoil(place, random.Random(0), loss=1.0)
        with pytest.raises(Unreachable):
            await a.peers.rpc(b.id, "echo", 1, WAIT_S)
        for one, other in ((a, b), (b, a)):
            one.peers.live(other.id)
        answer = await eventually_answers(a, b)
        assert answer["body"] == 2
        await path_is("relay", a, b)


async def eventually_answers(a: Place, b: Place) -> dict[str, object]:
    with trio.fail_after(2 * WAIT_S):
        while True:
            try:
                return await a.peers.rpc(b.id, "echo", 2, WAIT_S)
            except Unreachable:
                await trio.lowlevel.checkpoint()


async def test_streams_that_nobody_knows_are_reset_and_numbers_are_used_once():
    a, b, hub = three()
    async with running(a, b, hub):
        await relayed(a, b, hub)
        await path_is("udp", a, b)
        path = a.peers.udp.path(b.id)
        assert path is not None
        await eventually(lambda: path.usable)
        carrier = a.peers._udp_streams.dial(path)
        await carrier.send([b"\xee"])  # no record
        with pytest.raises(CarrierLost):
            await carrier.receive()
        number = carrier.core.stream
        before = b.peers.statistics().counters.get("handshakes_refused", 0)
        head = arq._HEAD.pack(arq.DATA, number) + arq._DATA.pack(0, 0)
        assert path.send(STREAM, head + b"again")
        assert path.send(STREAM, reset_payload(9999))
        assert path.send(STREAM, b"")
        await eventually(lambda: b.peers.statistics().counters.get("arq_malformed") == 1)
        assert b.peers.statistics().counters.get("handshakes_refused", 0) == before
        assert a.peers.connected()[b.id].path == "udp"


async def test_punching_is_refused_where_there_is_nothing_to_replace():
    a, b, hub = three()
    async with running(a, b, hub):
        a.knows(b)
        await until(a.peers, lambda: b.id in a.peers.connected())
        with pytest.raises(RemoteRefused, match="no relayed link to replace"):
            await a.peers.rpc(b.id, METHOD, {"candidates": []}, WAIT_S)


async def test_a_peer_cannot_have_us_probe_nonsense_or_too_often():
    a, b, hub = three()
    async with running(a, b, hub):
        await relayed(a, b, hub)
        named = [["224.0.0.1", 5], ["0.0.0.0", 5], ["x", 5], ["10.0.0.1", 0], [1, 2], None]
        there = a.peers._puncher._theirs(b.id, {"candidates": [*named, ["192.0.2.1", 7]]})
        assert there == [("192.0.2.1", 7)]
        many = [["192.0.2.1", port] for port in range(1, 500)]
        assert len(a.peers._puncher._theirs(b.id, {"candidates": many})) == 8
        for body in (None, [], {"candidates": 5}, {"candidates": {}}):
            assert a.peers._puncher._theirs(b.id, body) == []
        await a.peers._puncher.answer(b.id, {"candidates": []})
        with pytest.raises(Exception, match="too often"):
            await a.peers._puncher.answer(b.id, {"candidates": []})
