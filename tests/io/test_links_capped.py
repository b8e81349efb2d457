"""A capped link: streams and sync take their time, everything else does not wait for them."""

import pytest
import trio

from mesh.link.flow import MessageStream
from mesh.link.pace import BURST_BYTES, BURST_S
from mesh.link.peers import LinkLimits
from mesh.proto.link import STREAM_DATA_BYTES_MAX
from tests.io.test_links_tcp import RPC, org_of
from tests.support.link_mesh import WAIT_S, Place, running

MBIT = 4
TOTAL = 1_500_000
BYTES_PER_S = MBIT * 125_000


async def test_a_stream_keeps_to_the_cap_and_calls_do_not_wait_for_it():
    org = org_of("a", "b")
    times: list[float] = []
    got = 0

    async def sink(_peer: str, _body: object, stream: MessageStream) -> None:
        nonlocal got
        async for data in stream:
            got += len(data)
            times.append(trio.current_time())

    a = Place(org, "a", limits=LinkLimits(mbit=MBIT))
    b = Place(org, "b", rpc=RPC, streams={"sink": sink})
    async with running(a, b):
        a.knows(b)
        await a.peers.rpc(b.id, "echo", 1, WAIT_S)
        async with a.peers.stream(b.id, "sink", None) as stream:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(stream.send, bytes(TOTAL))
                for number in range(3):
                    await a.peers.rpc(b.id, "echo", number, WAIT_S)
                assert got < TOTAL  # the calls overtook what waits for the cap
            stream.send_eof()
            with pytest.raises(trio.EndOfChannel):
                await stream.receive()
    assert got == TOTAL
    took_s = times[-1] - times[0]
    free = max(BURST_S * BYTES_PER_S, BURST_BYTES) + STREAM_DATA_BYTES_MAX  # begin and end
    assert took_s > (TOTAL - free) / BYTES_PER_S - 0.1


async def test_without_a_cap_nothing_waits():
    org = org_of("a", "b")
    a, b = Place(org, "a"), Place(org, "b")
    async with running(a, b):
        a.knows(b)
        async with a.peers.stream(b.id, "none", None):
            link = a.peers.live(b.id)
            assert link is not None
            assert link._pace._bucket is None
